"""Gates: the bars that a candidate must clear before it becomes the live release."""

from __future__ import annotations

from collections.abc import Mapping

from windrow.models.release import GateResult
from windrow.models.service import Gate, PredictionService


def check_gates(
    service: PredictionService, metrics: Mapping[str, float], baseline: Mapping[str, float]
) -> list[GateResult]:
    """Return what each gate of the service makes of a candidate.

    Parameters
    ----------
    metrics
        The candidate's, on the test split.
    baseline
        The naive prediction's, on the same rows; where the baseline is missing on some of them, the
        candidate's own metrics on the rows that it has are beside it as ``model_<metric>``.

    Returns
    -------
    list of GateResult
        In the order of the declaration. A metric that could not be computed fails its gate.
    """
    return [check_gate(gate, metrics, baseline) for gate in service.gates]


def check_gate(gate: Gate, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> GateResult:
    """Return the result of one gate.

    Examples
    --------
    >>> check_gate(Gate("mae", of_baseline=0.8), {"mae": 90.0}, {"mae": 100.0})
    GateResult(metric='mae', value=90.0, bar="at most 0.8 of the baseline's", passed=False, why="mae is 90, the bar is 80 (0.8 of the baseline's 100)")
    """
    value, bar = metrics.get(gate.metric), _bar(gate)
    if value is None:
        return GateResult(
            gate.metric, None, bar, False, f"{gate.metric} could not be computed: the test rows do not define it"
        )
    failed = [why for why in (_below(gate, value), _above(gate, value), _share(gate, value, baseline)) if why]
    naive = baseline.get(gate.metric)
    cleared = f"{gate.metric} is {value:.6g}" + (f", the baseline's {naive:.6g}" if naive is not None else "")
    return GateResult(gate.metric, value, bar, not failed, "; ".join(failed) or cleared)


def _bar(gate: Gate) -> str:
    bars = (
        ("at least {:g}", gate.at_least),
        ("at most {:g}", gate.at_most),
        ("at most {:g} of the baseline's", gate.of_baseline),
    )
    return " and ".join(words.format(bar) for words, bar in bars if bar is not None)


def _below(gate: Gate, value: float) -> str:
    low = gate.at_least is not None and value < gate.at_least
    return f"{gate.metric} is {value:.6g}, the bar is at least {gate.at_least:g}" if low else ""


def _above(gate: Gate, value: float) -> str:
    high = gate.at_most is not None and value > gate.at_most
    return f"{gate.metric} is {value:.6g}, the bar is at most {gate.at_most:g}" if high else ""


def _share(gate: Gate, value: float, baseline: Mapping[str, float]) -> str:
    if gate.of_baseline is None:
        return ""
    naive = baseline.get(gate.metric)
    if naive is None:
        return f"the baseline's {gate.metric} could not be computed, so there is nothing to compare with"
    compared, bar = baseline.get(f"model_{gate.metric}", value), gate.of_baseline * naive
    words = (
        f"{gate.metric} is {compared:.6g}, the bar is {bar:.6g} ({gate.of_baseline:g} of the baseline's {naive:.6g})"
    )
    return "" if compared <= bar else words
