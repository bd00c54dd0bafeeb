"""What an experiment has shown so far: its arms' answers, outcomes and metrics, and whether its units were divided as told.

Computed from the prediction log and the outcomes that have matured; the newest state is kept in the metadata store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import DeclarationError, NotFoundError
from windrow.models.assignment import unit_of
from windrow.models.experiment import GOLDEN, HOLDOUT, Experiment
from windrow.models.intervals import Interval, interval_of, share_interval
from windrow.models.labels import KNOWN, LABEL, STATE
from windrow.models.release import Task
from windrow.models.thompson import Rewards, reward_of_all

if TYPE_CHECKING:
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog

SHADOW = "shadow"
SUSPICIOUS = 0.001
"""A division of units less likely than this is a fault and no chance (Fabijan and others, 2019)."""
_SETTLED = 1_000_000  # microseconds after a change until every worker follows it
_LEAST = 5.0  # expected units of an arm, for chi-square to hold
_METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("auc", "log_loss", "brier", "accuracy"),
    "multiclass": ("accuracy",),
    "regression": ("mae", "rmse"),
}

_Values = NDArray[np.float64]


class Spread(msgspec.Struct, frozen=True):
    """How an arm's outputs are spread: mean, standard deviation, and the 5th, 50th and 95th percentile."""

    mean: float
    std: float
    p5: float
    p50: float
    p95: float


class ArmPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """One arm with one release: where golden was replaced meanwhile, there are two of it.

    Attributes
    ----------
    requests, rows, units
        How many were answered by it.
    matured
        Rows whose outcome is final.
    metrics
        On matured rows, with intervals that take rows as independent.
    propensity
        Mean over the rows; None for a shadow, which hears everybody.
    reward
        Expected if every unit were in the arm, by inverse propensity; None where rewards are not 0 or 1.
    outputs
        How they are spread.
    """

    arm: str
    release: str
    requests: int
    rows: int
    units: int
    matured: int
    metrics: dict[str, Interval]
    propensity: float | None
    reward: float | None
    outputs: Spread


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """Whether units fell to arms as their weights say, since these were changed last: Pearson's chi-square test."""

    units: dict[str, int]
    expected: dict[str, float]
    p: float

    @property
    def suspicious(self) -> bool:
        """Whether this is no chance: whatever the arms show is not to be trusted."""
        return self.p < SUSPICIOUS


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """All arms; `assigned` counts rows that were in the experiment while another one chose who answers."""

    service: str
    experiment: str
    arms: list[ArmPerformance]
    assigned: int
    mismatch: Mismatch | None
    notes: list[str] = []


class _Row(NamedTuple):
    request_id: str
    row: int
    release: str
    received: int
    arm: str
    propensity: float
    unit: bytes
    output: float
    exposed: bool


def performance(
    experiment: Experiment,
    service: PredictionService,
    *,
    task: Task,
    log: PredictionLog,
    lake: Lake,
    con: BaseBackend,
    now: int,
) -> Performance:
    """Return what an experiment has shown by `now` (UTC microseconds of the service's clock)."""
    rows = list(_rows(experiment, log.table(service.name)))
    heard = list(_rows(experiment, log.table(service.name, kind=SHADOW)))
    labels = _labels(service, log, lake, con, now)
    exposed = [row for row in rows if row.exposed or not experiment.chooses]
    arms = [_arm(experiment, group, labels, task) for group in _groups(experiment, [*exposed, *heard])]
    mismatch = _mismatch(experiment, rows)
    notes = _notes(experiment, arms, mismatch)
    return Performance(
        service=service.name, experiment=experiment.name, arms=arms, assigned=len(rows) - len(exposed),
        mismatch=mismatch, notes=notes,
    )  # fmt: skip


def rewards(
    experiment: Experiment,
    service: PredictionService,
    *,
    task: Task,
    log: PredictionLog,
    lake: Lake,
    con: BaseBackend,
    now: int,
) -> dict[str, Rewards]:
    """Return what each arm has won, golden first; rows that are held out are not among them.

    Raises
    ------
    DeclarationError
        If the experiment has no rewards of 0 or 1.
    """
    rows = [row for row in _rows(experiment, log.table(service.name)) if row.exposed]
    labels = _labels(service, log, lake, con, now)
    found: dict[str, Rewards] = {}
    for arm in experiment.arms:
        own = [row for row in rows if row.arm == arm.name and (row.request_id, row.row) in labels]
        truth, answers = _truth(own, labels), _outputs(own)
        won = _won(experiment, task, truth, answers)
        if won is None:
            raise DeclarationError(
                f"experiment {experiment.name!r} has no reward of 0 or 1 ({experiment.reward}, {task})",
                next_step="give weights by hand, or start it with --reward outcome where outcomes are 0 or 1",
            )
        found[arm.name] = Rewards(int(won.sum()), len(won))
    return found


def chi_square_tail(value: float, degrees: int) -> float:
    """Return the probability that chi-square with so many degrees of freedom exceeds a value.

    Examples
    --------
    >>> round(chi_square_tail(3.841, 1), 3), round(chi_square_tail(5.991, 2), 3), round(chi_square_tail(7.815, 3), 3)
    (0.05, 0.05, 0.05)
    """
    half = value / 2
    shape = 0.5 if degrees % 2 else 1.0
    tail = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    while shape < degrees / 2:  # the incomplete gamma function by its recurrence
        tail += math.exp(shape * math.log(half) - half - math.lgamma(shape + 1)) if half else 0.0
        shape += 1
    return min(1.0, tail)


def _rows(experiment: Experiment, logged: pa.Table) -> Iterator[_Row]:
    name = experiment.name
    wanted = ["request_id", "row", "release", "experiment", "output", "arms", "propensities", "request"]
    times = logged["received_at"].cast("int64").to_pylist()
    columns = [logged[column].to_pylist() for column in wanted]
    for received, id, row, release, chose, output, arms, propensities, request in zip(times, *columns, strict=True):
        # Most rows of a service's whole log are in no experiment: no JSON is read for them.
        if output is None or arms == "{}" or name not in (found := msgspec.json.decode(arms)):
            continue
        likely = msgspec.json.decode(propensities).get(name, 1.0)
        unit = unit_of(id) if experiment.by_request else _unit(experiment, request)
        yield _Row(id, row, release, received, found[name], likely, unit, output, chose == name)


def _unit(experiment: Experiment, request: str) -> bytes:
    values = msgspec.json.decode(request)
    return unit_of(*[values.get(field) for field in experiment.unit])


def _labels(
    service: PredictionService, log: PredictionLog, lake: Lake, con: BaseBackend, now: int
) -> dict[tuple[str, int], float]:
    from windrow.models.logged import logged_rows

    try:
        told = logged_rows(service, lake, log, con, now=now)
    except NotFoundError:  # nothing was logged yet
        return {}
    columns = [told[name].to_pylist() for name in ("request_id", "row", LABEL, STATE)]
    return {(id, row): label for id, row, label, state in zip(*columns, strict=True) if state == KNOWN}


def _groups(experiment: Experiment, rows: Sequence[_Row]) -> list[list[_Row]]:
    order = {name: place for place, name in enumerate([*(arm.name for arm in experiment.arms), HOLDOUT, SHADOW])}
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.release), []).append(row)
    return [groups[key] for key in sorted(groups, key=lambda key: (order.get(key[0], len(order)), key[1]))]


def _arm(
    experiment: Experiment, rows: Sequence[_Row], labels: Mapping[tuple[str, int], float], task: Task
) -> ArmPerformance:
    known = [row for row in rows if (row.request_id, row.row) in labels]
    truth, answers = _truth(known, labels), _outputs(known)
    won, listens = _won(experiment, task, truth, answers), rows[0].arm == SHADOW
    likely = np.array([row.propensity for row in known])
    found = ((metric, _interval(metric, task, truth, answers)) for metric in _METRICS[task])
    return ArmPerformance(
        arm=rows[0].arm,
        release=rows[0].release,
        requests=len({row.request_id for row in rows}),
        rows=len(rows),
        units=len({row.unit for row in rows}),
        matured=len(known),
        metrics={metric: interval for metric, interval in found if interval is not None},
        propensity=None if listens else float(np.mean([row.propensity for row in rows])),
        reward=None if won is None else reward_of_all(won, likely),
        outputs=_spread(_outputs(rows)),
    )


def _interval(metric: str, task: Task, truth: _Values, answers: _Values) -> Interval | None:
    if task != "multiclass":
        return interval_of(metric, truth, answers)
    hits = int((truth == answers).sum())  # the log has the most likely class of several
    return Interval(hits / len(truth), *share_interval(hits, len(truth)), len(truth)) if len(truth) else None


def _won(experiment: Experiment, task: Task, truth: _Values, answers: _Values) -> _Values | None:
    if experiment.reward == "outcome":
        return truth if np.isin(truth, (0.0, 1.0)).all() else None
    if task == "regression":
        return None
    said = (answers > 0.5) if task == "classification" else answers
    return np.asarray(said == truth, dtype=np.float64)


def _spread(outputs: _Values) -> Spread:
    p5, p50, p95 = np.quantile(outputs, [0.05, 0.5, 0.95]).tolist()
    return Spread(float(outputs.mean()), float(outputs.std()), p5, p50, p95)


def _truth(rows: Sequence[_Row], labels: Mapping[tuple[str, int], float]) -> _Values:
    return np.array([labels[row.request_id, row.row] for row in rows], dtype=np.float64)


def _outputs(rows: Sequence[_Row]) -> _Values:
    return np.array([row.output for row in rows], dtype=np.float64)


def _mismatch(experiment: Experiment, rows: Sequence[_Row]) -> Mismatch | None:
    since = experiment.changed_at + _SETTLED
    until = math.inf if experiment.stopped_at is None else experiment.stopped_at
    units: dict[str, set[bytes]] = {arm: set() for arm, share in experiment.propensities.items() if share > 0}
    for row in rows:
        if since <= row.received < until:
            units.setdefault(row.arm, set()).add(row.unit)
    found = {arm: len(seen) for arm, seen in units.items()}
    total = sum(found.values())
    expected = {arm: total * experiment.propensities.get(arm, 0.0) for arm in found}
    if len(found) < 2 or min(expected.values()) < _LEAST:
        return None
    value = sum((found[arm] - wanted) ** 2 / wanted for arm, wanted in expected.items())
    return Mismatch(units=found, expected=expected, p=chi_square_tail(value, len(found) - 1))


def _notes(experiment: Experiment, arms: Sequence[ArmPerformance], mismatch: Mismatch | None) -> list[str]:
    notes = []
    if mismatch is None:
        notes.append("too few units since the last change of weights to tell whether they were divided as told")
    elif mismatch.suspicious:
        notes.append(
            f"units are not divided as the weights say (p = {mismatch.p:.2g}): trust no figure before you know why"
        )
    golden = [one.release for one in arms if one.arm == GOLDEN]
    if len(golden) > 1:
        notes.append(f"golden was {', then '.join(golden)}: compare rows of the same time only")
    same = sorted({arm.name for arm in experiment.arms if arm.release in golden})
    if same:
        notes.append(f"{', '.join(same)} and golden are one release by now: stop the experiment")
    return notes


def as_document(found: Performance) -> dict[str, Any]:
    """Return a performance as JSON-like values, for the metadata store and ``--json``."""
    document: dict[str, Any] = msgspec.to_builtins(found)
    for arm in document["arms"]:
        arm["metrics"] = {n: dict(zip(Interval._fields, v, strict=True)) for n, v in arm["metrics"].items()}
    if found.mismatch is not None:
        document["mismatch"]["suspicious"] = found.mismatch.suspicious
    return document
