"""Gates judged: what each makes of a candidate, with the interval and the rows that it is known from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from windrow.errors import ParityError
from windrow.models.candidate import Candidate
from windrow.models.fairness import check_fairness, check_slices
from windrow.models.gate import BetterThanGolden, Calibration, Fairness, Gate, Latency, Slices, gate_names
from windrow.models.golden import check_golden
from windrow.models.intervals import Interval, interval_of, size_interval
from windrow.models.judging import judged, measured
from windrow.models.metrics import top_label
from windrow.models.release import GateResult
from windrow.models.service import PredictionService

PARITY, GOLDEN_PAIRS = "parity", "golden_pairs"
_RESAMPLED_CELLS, _LEAST_DRAWS, _MOST_DRAWS = 50_000_000, 200, 1_000
_TIMED_CALLS, _TIMED_SECONDS = 1_000, 2.0


def check_gates(service: PredictionService, candidate: Candidate) -> list[GateResult]:
    """Return what each gate of the service makes of a candidate.

    Returns
    -------
    list of GateResult
        In the order of the declaration, then parity and golden pairs, which every release must show. What
        could not be computed does not pass.
    """
    named = zip(gate_names(service.gates), service.gates, strict=True)
    declared = [judged(check_gate(gate, candidate), name=name) for name, gate in named]
    return [*declared, check_parity(candidate), check_golden_pairs(candidate)]


def intervals_of(candidate: Candidate) -> dict[str, dict[str, float]]:
    """Return ``low``, ``high`` and ``rows`` of every metric of a candidate, for its release."""
    found = {name: interval_of(name, candidate.truth, candidate.answers) for name in candidate.metrics}
    return {n: {"low": s.low, "high": s.high, "rows": s.rows} for n, s in found.items() if s is not None}


def check_gate(gate: Any, candidate: Candidate) -> GateResult:
    """Return the result of one declared gate."""
    return _JUDGES[type(gate)](gate, candidate)


def check_metric(
    gate: Gate, metrics: Mapping[str, float], baseline: Mapping[str, float], *, sure: Interval | None = None
) -> GateResult:
    """Return the result of a bar on one metric of all test rows.

    Parameters
    ----------
    metrics
        The candidate's, on the test split.
    baseline
        The naive prediction's, on the same rows; where the baseline is missing on some of them, the
        candidate's own metrics on the rows that it has are beside it as ``model_<metric>``.
    sure
        The metric's interval.

    Examples
    --------
    >>> check_metric(Gate("mae", of_baseline=0.8), {"mae": 90.0}, {"mae": 100.0}).why
    "mae is 90; the bar is at most 80 (0.8 of the baseline's 100)"
    """
    value = metrics.get(gate.metric)
    if value is None:
        why = f"{gate.metric} could not be computed: the test rows do not define it"
        return GateResult(gate.metric, None, gate.bar, False, why)
    failed = [why for why in (_below(gate, value), _above(gate, value), _share(gate, value, baseline)) if why]
    naive = baseline.get(gate.metric)
    beside = "; ".join(failed) or (f"the baseline's is {naive:.6g}" if naive is not None else f"the bar is {gate.bar}")
    told = measured(gate.metric, value, sure)
    return judged(GateResult(gate.metric, value, gate.bar, not failed, f"{told}; {beside}"), sure=sure)


def check_calibration(gate: Calibration, truth: Any, answers: Any) -> GateResult:
    """Return whether probabilities come true as often as they say; of several classes, that of the one named.

    Examples
    --------
    >>> truth = np.tile([1.0, 0.0, 0.0, 0.0], 100)
    >>> check_calibration(Calibration(0.1), truth, np.full(400, 0.25)).value
    0.0
    """
    name = "expected calibration error" if answers.ndim == 1 else "top-label expected calibration error"
    truth, answers = top_label(truth, answers)
    gaps = _gaps(truth, answers, gate.bins)
    value = float(np.abs(gaps).sum())
    draws = max(_LEAST_DRAWS, min(_MOST_DRAWS, _RESAMPLED_CELLS // len(truth)))
    rng = np.random.default_rng(0)
    rows = (rng.integers(len(truth), size=len(truth)) for _ in range(draws))
    errors = np.array([np.abs(_gaps(truth[drawn], answers[drawn], gate.bins) - gaps).sum() for drawn in rows])
    sure = Interval(value, *size_interval(value, errors), len(truth))
    why = f"{measured(name, value, sure)}; the bar is at most {gate.at_most:g}"
    return judged(GateResult(name, value, gate.bar, value <= gate.at_most, why), sure=sure)


def check_latency(gate: Latency, candidate: Candidate) -> GateResult:
    """Return whether one row through the model as it is served is fast enough; up to 1,000 calls are timed."""
    release = candidate.bundle.release
    budget = gate.p99_ms if gate.p99_ms is not None else release.p99_ms
    assert budget is not None, "a declaration without either is refused"
    taken = np.sort(_timed(candidate))
    value, (low, high) = float(np.quantile(taken, 0.99)), _quantile_reach(taken, 0.99)
    sure, name = Interval(value, low, high, len(taken)), "p99 of one row, ms"
    bar = f"at most {budget:g} ms"
    why = f"{measured(name, value, sure, unit='calls')}, answered by {release.backend}; the bar is {bar}"
    return judged(GateResult(name, value, bar, value <= budget, why), sure=sure)


def check_parity(candidate: Candidate) -> GateResult:
    """Return the proof that the served model answers as the fitted one: always a gate."""
    release, proof = candidate.bundle.release, candidate.bundle.release.parity
    if not proof.get("max_difference"):
        return GateResult(
            PARITY, None, "a proof", False, "nothing says that the served model is as the fitted one", name=PARITY
        )
    value, rows = max(proof["max_difference"].values()), sum(proof["rows"].values())
    bar = f"at most {proof['tolerance']:g} from the fitted model"
    told = f"{release.backend} answers {rows:,} rows with a largest difference of {value:.3g}; the bar is {bar}"
    why = f"{told}; not compiled further: {release.backend_reason}" if release.backend_reason else told
    return GateResult(PARITY, value, bar, value <= proof["tolerance"], why, name=PARITY, rows=rows)


def check_golden_pairs(candidate: Candidate) -> GateResult:
    """Return whether the model's file, read back, answers its golden inputs as it did: always a gate."""
    rows, bar = len(candidate.bundle.golden.outputs), "the same answers to the golden inputs"
    try:
        worst = candidate.bundle.replay_golden()
    except ParityError as error:
        return GateResult(GOLDEN_PAIRS, None, bar, False, error.what, name=GOLDEN_PAIRS, rows=rows)
    why = f"the largest difference is {worst:.3g} on {rows} pairs"
    return GateResult(GOLDEN_PAIRS, worst, bar, True, why, name=GOLDEN_PAIRS, rows=rows)


def _metric(gate: Gate, candidate: Candidate) -> GateResult:
    sure = interval_of(gate.metric, candidate.truth, candidate.answers)
    return check_metric(gate, candidate.metrics, candidate.baseline, sure=sure)


def _calibration(gate: Calibration, candidate: Candidate) -> GateResult:
    return check_calibration(gate, candidate.truth, candidate.answers)


_JUDGES: dict[type, Callable[[Any, Candidate], GateResult]] = {
    Gate: _metric,
    BetterThanGolden: check_golden,
    Slices: check_slices,
    Calibration: _calibration,
    Fairness: check_fairness,
    Latency: check_latency,
}


def _below(gate: Gate, value: float) -> str:
    low = gate.at_least is not None and value < gate.at_least
    return f"the bar is at least {gate.at_least:g}" if low else ""


def _above(gate: Gate, value: float) -> str:
    high = gate.at_most is not None and value > gate.at_most
    return f"the bar is at most {gate.at_most:g}" if high else ""


def _share(gate: Gate, value: float, baseline: Mapping[str, float]) -> str:
    if gate.of_baseline is None:
        return ""
    naive = baseline.get(gate.metric)
    if naive is None:
        return f"the baseline's {gate.metric} could not be computed, so there is nothing to compare with"
    compared, bar = baseline.get(f"model_{gate.metric}", value), gate.of_baseline * naive
    told = f"the bar is at most {bar:.6g} ({gate.of_baseline:g} of the baseline's {naive:.6g})"
    if f"model_{gate.metric}" in baseline:
        told += f", and it is {compared:.6g} on the {baseline['rows']:g} rows that the baseline has"
    return "" if compared <= bar else told


def _gaps(truth: Any, answers: Any, bins: int) -> Any:
    """Return how much more than came true the answers of each bin said, as a share of all rows; shape (bins,)."""
    place = np.minimum((answers * bins).astype(int), bins - 1)
    return np.bincount(place, weights=answers - truth, minlength=bins) / len(truth)


def _timed(candidate: Candidate) -> Any:
    frame = candidate.test.frame
    taken: list[float] = []
    rows = len(next(iter(frame.values())))
    one = [{name: values[i : i + 1] for name, values in frame.items()} for i in range(min(rows, 100))]
    for row in one[:20]:  # the first calls pay for what later ones find ready
        candidate.bundle.predict(row)
    end = time.perf_counter() + _TIMED_SECONDS
    while len(taken) < _TIMED_CALLS and (time.perf_counter() < end or len(taken) < 100):
        begin = time.perf_counter()
        candidate.bundle.predict(one[len(taken) % len(one)])
        taken.append(1e3 * (time.perf_counter() - begin))
    return np.array(taken)


def _quantile_reach(ordered: Any, share: float) -> tuple[float, float]:
    """Return the interval of a quantile: between the ranks that a share of the calls lies at, by chance."""
    rows = len(ordered)
    reach = 1.96 * np.sqrt(rows * share * (1 - share))
    low, high = np.floor(rows * share - reach), np.ceil(rows * share + reach)
    return float(ordered[int(max(low, 0))]), float(ordered[int(min(high, rows - 1))])
