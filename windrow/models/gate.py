"""Gates as they are declared: what a candidate must show before it can go live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from windrow.clock import parse_time
from windrow.errors import DeclarationError, TimeError, UnknownNameError, listed
from windrow.features.kinds import check_kind

CLASS_METRICS = ("auc", "log_loss", "brier", "accuracy")
NUMBER_METRICS = ("mae", "rmse", "r2")
SHARED = ("log_loss", "brier", "mae", "rmse")  # 0 at best, and so a share of the baseline's says something
_RANGES = {"auc": (0.0, 1.0), "accuracy": (0.0, 1.0), "r2": (-inf, 1.0)}  # of the others: 0 or more
MEASURES = ("demographic_parity", "equal_opportunity")


@dataclass(frozen=True)
class Gate:
    """A bar that a candidate must clear before it becomes a release.

    Parameters
    ----------
    metric
        ``auc log_loss brier accuracy`` for classes, ``mae rmse r2`` for numbers. Of three classes or more,
        ``auc`` is the mean over classes of each against all others, and ``brier`` sums over classes.
    at_least, at_most
        Bars on the value itself.
    of_baseline
        The value must be at most this share of the baseline's; for metrics of which less is better.

    Examples
    --------
    >>> Gate("mae", of_baseline=0.8).metric
    'mae'
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    of_baseline: float | None = None

    def __post_init__(self) -> None:
        _check_metric(self.metric, "Gate()")
        _check_bars("Gate", at_least=self.at_least, at_most=self.at_most, of_baseline=self.of_baseline)
        _check_reach(self)
        if self.of_baseline is not None and self.of_baseline <= 0:
            raise DeclarationError(
                f"Gate(of_baseline={self.of_baseline:g}) is no share", next_step="give a share, such as of_baseline=0.9"
            )
        if self.of_baseline is not None and self.metric not in SHARED:
            raise DeclarationError(
                f"Gate({self.metric!r}, of_baseline=...) asks for at most a share of the baseline's, and more is better",
                exists=f"A share of the baseline's can be asked of {listed(SHARED)}",
                next_step=f"write Gate({self.metric!r}, at_least=...)",
            )
        if (self.at_least, self.at_most, self.of_baseline) == (None, None, None):
            raise DeclarationError(
                f"Gate({self.metric!r}) has no bar", next_step="give at_least, at_most or of_baseline"
            )

    @property
    def check(self) -> str:
        """Name of its check."""
        return f"gate_{self.metric}"

    @property
    def bar(self) -> str:
        """What is asked, in words."""
        share = {"at most {:g} of the baseline's": self.of_baseline}
        return _bars({"at least {:g}": self.at_least, "at most {:g}": self.at_most, **share})


@dataclass(frozen=True)
class BetterThanGolden:
    """The candidate must be better than the live release, on the same test rows.

    It passes where the whole confidence interval of the improvement is at or above `margin`, so that
    luck with the test rows does not promote; while nothing is live, it passes.

    Parameters
    ----------
    metric
        As in `Gate`; an improvement is counted positive for every metric.
    margin
        The improvement asked for; a negative one allows the candidate to be that much worse.
    confidence
        Of the interval of the difference, which is taken row by row.

    Examples
    --------
    >>> BetterThanGolden("auc", margin=-0.01).bar
    "auc at most 0.01 worse than the live release's, with 95 % confidence"
    """

    metric: str
    margin: float = 0.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _check_metric(self.metric, "BetterThanGolden()")
        _check_bars("BetterThanGolden", margin=self.margin)
        _check_share("BetterThanGolden", "confidence", self.confidence)

    @property
    def check(self) -> str:
        """Name of its check."""
        return f"gate_golden_{self.metric}"

    @property
    def bar(self) -> str:
        """What is asked, in words."""
        far = f"at least {self.margin:g} better" if self.margin > 0 else "no worse"
        far = f"at most {-self.margin:g} worse" if self.margin < 0 else far
        return f"{self.metric} {far} than the live release's, with {100 * self.confidence:g} % confidence"


@dataclass(frozen=True)
class Slices:
    """Every slice of the test rows must clear a bar, not only all rows together.

    Parameters
    ----------
    by
        A column of the dataset's rows (of the spine, also one that no feature uses, or a feature), or several.
    metric
        As in `Gate`.
    at_least, at_most
        Bars on each slice's value.
    min_rows
        A smaller slice is named and not judged.

    Examples
    --------
    >>> Slices("region", "auc", at_least=0.65).check
    'gate_slices_region_auc'
    """

    by: str | Sequence[str]
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    min_rows: int = 100

    def __post_init__(self) -> None:
        _name_columns(self, self.by)
        _check_metric(self.metric, "Slices()")
        _check_rows("Slices", self.min_rows)
        _check_bars("Slices", at_least=self.at_least, at_most=self.at_most)
        _check_reach(self)
        if (self.at_least, self.at_most) == (None, None):
            raise DeclarationError(f"Slices({self.metric!r}) has no bar", next_step="give at_least or at_most")

    @property
    def check(self) -> str:
        """Name of its check."""
        return f"gate_slices_{'_'.join(self.by)}_{self.metric}"

    @property
    def bar(self) -> str:
        """What is asked, in words."""
        bars = _bars({"at least {:g}": self.at_least, "at most {:g}": self.at_most})
        return f"{self.metric} {bars} in every slice by {' and '.join(self.by)}"


@dataclass(frozen=True)
class Calibration:
    """Probabilities must come true as often as they say.

    The expected calibration error: over `bins` equally wide bins of the probability, the mean distance
    between what was said and what came true, weighted by rows (Naeini, Cooper and Hauskrecht, 2015). Of
    three classes or more, the probability of the most probable one is judged (top-label; Guo et al., 2017).

    Examples
    --------
    >>> Calibration(at_most=0.05).bar
    'expected calibration error at most 0.05'
    """

    at_most: float
    bins: int = 10

    def __post_init__(self) -> None:
        _check_share("Calibration", "at_most", self.at_most)
        if not (isinstance(self.bins, int) and 2 <= self.bins <= 100):
            raise DeclarationError(f"Calibration(bins={self.bins!r}) is no number of bins", next_step="give 2 to 100")

    @property
    def check(self) -> str:
        """Name of its check."""
        return "gate_calibration"

    @property
    def bar(self) -> str:
        """What is asked, in words."""
        return f"expected calibration error at most {self.at_most:g}"


@dataclass(frozen=True)
class Waiver:
    """A signed exception: the gate is not cleared, and this is why it does not block, and until when.

    Parameters
    ----------
    reason
        Who decided what; it stands beside the gate wherever that is shown.
    until
        ISO date or time with zone; from then on the waiver does not count any more.

    Examples
    --------
    >>> Waiver("risk board, minute 12: new data come in March", until="2030-03-31").until
    '2030-03-31'
    """

    reason: str
    until: str

    def __post_init__(self) -> None:
        if not (isinstance(self.reason, str) and self.reason.strip()):
            raise DeclarationError("a Waiver has no reason", next_step="say who decided it and why")
        try:
            parse_time(self.until)
        except (TimeError, TypeError):
            raise DeclarationError(
                f"Waiver(until={self.until!r}) is no time",
                next_step='give a date, such as "2030-03-31", or a time with zone',
            ) from None


@dataclass(frozen=True)
class Fairness:
    """Groups of people must not be treated too differently.

    Parameters
    ----------
    by
        A column of the dataset's rows (of the spine, also one that no feature uses, or a feature), or
        several for groups such as "women over 60".
    measure
        ``demographic_parity``: the share that gets the favourable answer; ``equal_opportunity``: the same
        among those who had it coming (Hardt, Price and Srebro, 2016).
    at_most
        The largest difference between two groups.
    min_rows
        A group with fewer rows (that the measure counts) is named and not judged.
    waiver
        A signed exception.
    threshold
        Of two classes: the answer is class 1 above it. Of more, the answer is the most probable one.
    favourable
        Which class is good for the person: 0 or 1, or its name where the label has `classes`; of three or
        more it must be named, and is judged against all others.

    Examples
    --------
    >>> Fairness(["sex", "age_band"], measure="equal_opportunity").check
    'gate_fairness_sex_age_band_equal_opportunity'
    >>> Fairness("sex", favourable="admitted").place(["refused", "waiting", "admitted"])
    2
    """

    by: str | Sequence[str]
    measure: Literal["demographic_parity", "equal_opportunity"] = "demographic_parity"
    at_most: float = 0.1
    min_rows: int = 100
    waiver: Waiver | None = None
    threshold: float = 0.5
    favourable: Literal[0, 1] | str = 1

    def __post_init__(self) -> None:
        _name_columns(self, self.by)
        if self.measure not in MEASURES:
            raise UnknownNameError("measure", self.measure, MEASURES, where="Fairness()")
        _check_share("Fairness", "at_most", self.at_most)
        _check_share("Fairness", "threshold", self.threshold)
        _check_rows("Fairness", self.min_rows)
        if not isinstance(self.favourable, str) and self.favourable not in (0, 1):
            raise DeclarationError(
                f"Fairness(favourable={self.favourable!r}) is no class",
                next_step='give 0 or 1, or the name of one of the label\'s classes, such as favourable="admitted"',
            )
        if not isinstance(self.waiver, Waiver | None):
            raise DeclarationError(
                f"Fairness(waiver={self.waiver!r}) is no Waiver",
                next_step='write Waiver("who decided it and why", until="2030-03-31")',
            )

    @property
    def check(self) -> str:
        """Name of its check."""
        return f"gate_fairness_{'_'.join(self.by)}_{self.measure}"

    @property
    def bar(self) -> str:
        """What is asked, in words."""
        of = f" of {self.favourable!r}" if isinstance(self.favourable, str) else ""
        return f"{self.measure} difference{of} by {' and '.join(self.by)} at most {self.at_most:g}"

    def place(self, classes: Sequence[str]) -> int:
        """Return which number the label of the favourable class is."""
        return classes.index(self.favourable) if isinstance(self.favourable, str) else self.favourable


@dataclass(frozen=True)
class Latency:
    """One row through the model as it is served must be fast enough.

    Parameters
    ----------
    p99_ms
        Bar of the 99th percentile; default: the budget of the service's `Online`.

    Examples
    --------
    >>> Latency(p99_ms=5).bar
    'p99 of one row at most 5 ms'
    """

    p99_ms: float | None = None

    def __post_init__(self) -> None:
        if self.p99_ms is not None and not (isinstance(self.p99_ms, int | float) and 0 < self.p99_ms < 60_000):
            raise DeclarationError(
                f"Latency(p99_ms={self.p99_ms!r}) is no latency budget",
                next_step="give milliseconds, such as p99_ms=20, or leave it out for that of Online",
            )

    @property
    def check(self) -> str:
        """Name of its check."""
        return "gate_latency"

    @property
    def bar(self) -> str:
        """What is asked, in words."""
        return "p99 of one row " + ("within Online's p99_ms" if self.p99_ms is None else f"at most {self.p99_ms:g} ms")


AnyGate = Gate | BetterThanGolden | Slices | Calibration | Fairness | Latency
GATES = (Gate, BetterThanGolden, Slices, Calibration, Fairness, Latency)


def gate_names(gates: Sequence[AnyGate]) -> list[str]:
    """Return the names of the gates' checks, in order; a second gate of one kind and metric is numbered.

    Examples
    --------
    >>> gate_names([Gate("auc", at_least=0.7), Gate("auc", at_most=0.99), Calibration(0.1)])
    ['gate_auc', 'gate_auc_2', 'gate_calibration']
    """
    names = [gate.check for gate in gates]
    seen = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name + (f"_{n}" if n > 1 else "") for name, n in zip(names, seen, strict=True)]


def check_declared(
    gates: Sequence[AnyGate], where: str, *, metrics: Sequence[str], columns: Sequence[str], online: bool
) -> None:
    """Raise if a gate cannot be judged in a service.

    Parameters
    ----------
    where
        The service, in words.
    metrics
        Those that it has.
    columns
        Of its dataset's rows.
    online
        Whether it has a latency budget.

    Raises
    ------
    DeclarationError
        For a metric, column or budget that the service does not have, with the closest one that it has.
    """
    numbers = "auc" not in metrics
    for gate in gates:
        kind = type(gate).__name__
        if isinstance(gate, Gate | BetterThanGolden | Slices) and gate.metric not in metrics:
            told = f"{where} (its label is {'a number' if numbers else 'a class'})"
            raise UnknownNameError("metric", gate.metric, metrics, where=told)
        if isinstance(gate, Slices | Fairness):
            for name in gate.by:
                if name not in columns:
                    raise UnknownNameError("column", name, columns, where=f"{kind}: a dataset row of {where}")
        if isinstance(gate, Calibration | Fairness) and numbers:
            raise DeclarationError(
                f"{where} predicts a number, and {kind} judges classes", next_step=f"leave {kind}() out of its gates"
            )
        if isinstance(gate, Latency) and gate.p99_ms is None and not online:
            raise DeclarationError(
                f"{where} is not online, so Latency() has no budget", next_step="write Latency(p99_ms=20)"
            )


def check_classes(gates: Sequence[AnyGate], where: str, *, classes: Sequence[str]) -> None:
    """Raise if a gate's favourable class is none of a service's.

    Parameters
    ----------
    where
        The service, in words.
    classes
        The names of its label's classes; none where they have none.

    Raises
    ------
    DeclarationError
        Also for a threshold of three classes or more, where the most probable one is the answer.
    """
    for gate in (gate for gate in gates if isinstance(gate, Fairness)):
        if isinstance(gate.favourable, str):
            _check_named(gate.favourable, where, classes)
        elif len(classes) > 2:
            raise DeclarationError(
                f"{where} has {len(classes)} classes, and Fairness() does not say which one is good for the person",
                exists=f"Its classes are {listed(classes)}", next_step=f"name it: Fairness(favourable={classes[0]!r})",
            )  # fmt: skip
        if len(classes) > 2 and gate.threshold != Fairness.threshold:
            raise DeclarationError(
                f"{where} has {len(classes)} classes and answers with the most probable one, so "
                f"Fairness(threshold={gate.threshold:g}) changes nothing",
                next_step="leave threshold= out, or make a label of two classes",
            )


def _check_named(name: str, where: str, classes: Sequence[str]) -> None:
    if not classes:
        raise DeclarationError(
            f"the classes of {where} have no names, so Fairness(favourable={name!r}) names none",
            next_step="give 0 or 1, or name them in its label: classes=[...]",
        )
    if name not in classes:
        raise UnknownNameError("class", name, classes, where=f"Fairness(favourable=): the label of {where}")


def _name_columns(gate: Slices | Fairness, by: str | Sequence[str]) -> None:
    several = tuple(by) if isinstance(by, list | tuple) else (by,)
    names = tuple(dict.fromkeys(several)) if all(isinstance(name, str) and name for name in several) else ()
    if not names:
        raise DeclarationError(
            f"{type(gate).__name__}(by={by!r}) names no column", next_step='give a name or several, such as by="region"'
        )
    object.__setattr__(gate, "by", names)


def _check_metric(metric: str, where: str) -> None:
    check_kind(metric, str, where=f"the metric of {where}", example='"auc"')
    known = (*CLASS_METRICS, *NUMBER_METRICS)
    if metric not in known:
        raise UnknownNameError("metric", metric, known, where=where)


def _check_bars(kind: str, **bars: float | None) -> None:
    """Refuse what is no number; a bar that is NaN would be cleared by every value."""
    for name, bar in bars.items():
        number = isinstance(bar, int | float) and not isinstance(bar, bool) and isfinite(bar)
        if bar is not None and not number:
            raise DeclarationError(f"{kind}({name}={bar!r}) is no bar", next_step=f"give a number, such as {name}=0.1")


def _check_reach(gate: Gate | Slices) -> None:
    """Refuse bars that no value of the metric clears."""
    bottom, top = _RANGES.get(gate.metric, (0.0, inf))
    low = bottom if gate.at_least is None else gate.at_least
    high = top if gate.at_most is None else gate.at_most
    if low > min(high, top) or high < bottom:
        raise DeclarationError(
            f"{type(gate).__name__}({gate.metric!r}, at_least={gate.at_least}, at_most={gate.at_most}) can never be cleared",
            exists=f"{gate.metric} is between {bottom:g} and {top:g}",
            next_step="give a bar that can be reached",
        )


def _check_share(kind: str, name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value < 1):
        raise DeclarationError(
            f"{kind}({name}={value!r}) is not between 0 and 1", next_step=f"give a number such as {name}=0.1"
        )


def _check_rows(kind: str, rows: int) -> None:
    if not (isinstance(rows, int) and rows >= 1):
        raise DeclarationError(
            f"{kind}(min_rows={rows!r}) is no number of rows", next_step="give a number of rows, such as 100"
        )


def _bars(bars: Mapping[str, float | None]) -> str:
    return " and ".join(words.format(bar) for words, bar in bars.items() if bar is not None)
