"""How a gate says what it found: value, interval, sample size."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from windrow.models.intervals import CONFIDENCE, Interval
from windrow.models.release import GateResult


def measured(name: str, value: float, sure: Interval | None, *, confidence: float = CONFIDENCE, unit: str = "rows") -> str:  # fmt: skip
    """Return a value in words, with what is known of its error.

    Examples
    --------
    >>> measured("auc", 0.7123, Interval(0.7123, 0.69, 0.73, 1234))
    'auc is 0.7123 on 1,234 rows (95 % interval 0.69 to 0.73)'
    """
    told = f"{name} is {value:.6g}"
    if sure is None:
        return told
    return f"{told} on {sure.rows:,} {unit} ({100 * confidence:g} % interval {sure.low:.4g} to {sure.high:.4g})"


def judged(result: GateResult, *, sure: Interval | None = None, **facts: Any) -> GateResult:
    """Return a result with its interval and other facts."""
    known = {} if sure is None else {"rows": sure.rows, "low": sure.low, "high": sure.high}
    return replace(result, **known, **facts)
