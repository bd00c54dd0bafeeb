"""Groups: whether a model treats groups of people alike, and whether it is good enough in every slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.clock import parse_time
from windrow.errors import listed
from windrow.models.candidate import Candidate
from windrow.models.gate import Fairness, Slices
from windrow.models.intervals import Interval, gap_interval, interval_of
from windrow.models.judging import judged, measured
from windrow.models.release import GateResult, Waived


class _Rates(NamedTuple):
    """How often each judged group gets the favourable answer, and who was too few to judge."""

    rows: dict[str, int]
    rates: dict[str, float]
    small: dict[str, int]


def check_fairness(gate: Fairness, candidate: Candidate) -> GateResult:
    """Return how far apart two groups are treated, at most.

    The rates are fairlearn's; see `windrow.models.intervals.gap_interval` for the interval.
    """
    found = _rates(gate, candidate)
    waived = Waived(gate.waiver.reason, parse_time(gate.waiver.until)) if gate.waiver else None
    if len(found.rates) < 2:
        why = f"{gate.measure} cannot be judged: {_judged_groups(found.rows, gate)}{_left_out(found.small, gate)}"
        return GateResult(gate.measure, None, gate.bar, False, why, waived=waived)
    value = max(found.rates.values()) - min(found.rates.values())
    rates, rows = (np.array([part[name] for name in found.rates]) for part in (found.rates, found.rows))
    sure = Interval(value, *gap_interval(rates, rows), sum(found.rows.values()))
    least, most = (min(found.rates, key=found.rates.__getitem__), max(found.rates, key=found.rates.__getitem__))
    told = f"{_rate_of(most, found)}, {_rate_of(least, found)}{_left_out(found.small, gate)}"
    why = f"{measured(f'{gate.measure} difference', value, sure)}; the bar is at most {gate.at_most:g}: {told}"
    passed = value <= gate.at_most
    return judged(GateResult(gate.measure, value, gate.bar, passed, why, waived=None if passed else waived), sure=sure)


def check_slices(gate: Slices, candidate: Candidate) -> GateResult:
    """Return the worst slice by a metric, and whether all that have enough rows clear the bar."""
    groups = candidate.groups(gate.by)
    sizes = _sizes(groups)
    found = {name: _slice(gate.metric, candidate, groups == name) for name, n in sizes.items() if n >= gate.min_rows}
    small = {name: n for name, n in sizes.items() if n < gate.min_rows}
    known = {name: sure for name, sure in found.items() if sure is not None}
    if not known or len(known) < len(found):
        undefined = listed(name for name in found if name not in known)
        why = f"{gate.metric} could not be computed in {undefined}" if found else "no slice has enough rows"
        return GateResult(gate.metric, None, gate.bar, False, f"{why}{_left_out(small, gate)}")
    worst = (max if gate.at_most is not None else min)(known, key=lambda name: known[name].value)
    failed = [name for name, sure in known.items() if not _clears(gate, sure.value)]
    worst = worst if not failed or worst in failed else failed[0]
    told = f"the worst of {len(known)} slices is {worst}: {measured(gate.metric, known[worst].value, known[worst])}"
    told += f"; under the bar: {listed(failed)}" if failed else ""
    why = f"{told}; the bar is {gate.bar}{_left_out(small, gate)}"
    return judged(GateResult(gate.metric, known[worst].value, gate.bar, not failed, why), sure=known[worst])


def _clears(gate: Slices, value: float) -> bool:
    return (gate.at_least is None or value >= gate.at_least) and (gate.at_most is None or value <= gate.at_most)


def _slice(metric: str, candidate: Candidate, inside: NDArray[np.bool_]) -> Interval | None:
    return interval_of(metric, candidate.truth[inside], candidate.answers[inside])


def _rates(gate: Fairness, candidate: Candidate) -> _Rates:
    from fairlearn.metrics import MetricFrame, selection_rate  # type: ignore[import-untyped]

    place = gate.place(candidate.classes)
    favoured = _favoured(gate, candidate.answers, place)
    counted = np.ones(len(favoured), dtype=bool)
    if gate.measure == "equal_opportunity":  # the true positive rate is the selection rate of those who deserve it
        counted = candidate.truth == place
    groups = candidate.groups(gate.by)
    sizes = _sizes(groups[counted])
    small = {name: sizes.get(name, 0) for name in _sizes(groups) if sizes.get(name, 0) < gate.min_rows}
    kept = counted & ~np.isin(groups, list(small))
    if not kept.any():
        return _Rates({}, {}, small)
    frame = MetricFrame(
        metrics=selection_rate, y_true=candidate.truth[kept], y_pred=favoured[kept].astype(int),
        sensitive_features=groups[kept],
    )  # fmt: skip
    rates = {str(name): float(rate) for name, rate in frame.by_group.items()}
    return _Rates({name: sizes[name] for name in rates}, rates, small)


def _favoured(gate: Fairness, answers: NDArray[np.float64], place: int) -> NDArray[np.bool_]:
    """Return which rows get the favourable answer, shape (n,): of several classes, the one that is served."""
    if answers.ndim == 2:
        return np.asarray(answers.argmax(axis=1) == place)
    return np.asarray((answers > gate.threshold) == (place == 1))


def _sizes(groups: NDArray[Any]) -> dict[str, int]:
    names, counts = np.unique(groups.astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _rate_of(group: str, found: _Rates) -> str:
    return f"{group} {found.rates[group]:.3g} of {found.rows[group]:,}"


def _judged_groups(rows: Mapping[str, int], gate: Fairness) -> str:
    return f"{len(rows) or 'no'} group{'' if len(rows) == 1 else 's'} with {gate.min_rows} rows or more, and two are compared"


def _left_out(small: Mapping[str, int], gate: Fairness | Slices) -> str:
    if not small:
        return ""
    told = listed(f"{name} ({rows})" for name, rows in small.items())
    return f"; not judged, under {gate.min_rows} rows: {told}"
