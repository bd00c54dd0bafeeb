"""Conditions on single features: what an anchor is built of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import MISSING_TEXT
from windrow.serving.explaining.explanation import Condition, spoken
from windrow.serving.explaining.subject import plain

_FEW = 6  # a number with so few different values is a class, and is compared for equality


class Met(NamedTuple):
    """A condition, and which background rows meet it, shape (m,)."""

    condition: Condition
    rows: NDArray[np.bool_]


def condition_of(feature: str, value: Any, usual: NDArray[Any]) -> Met:
    """Return the condition that a row's value meets: its text, its being missing, or its quarter of the numbers.

    Parameters
    ----------
    value
        Of the row that is explained.
    usual
        The feature's values in the background rows.

    Examples
    --------
    >>> usual = np.arange(100, dtype=np.float32)
    >>> met = condition_of("amount", np.float32(60), usual)
    >>> met.condition.text, int(met.rows.sum())
    ('49.5 < amount <= 74.25', 25)
    >>> condition_of("amount", np.float32("nan"), usual).condition.text
    'amount is missing'
    """
    if isinstance(value, str):
        shown = "is missing" if value == MISSING_TEXT else f"= {value}"
        return Met(
            Condition(feature, f"{feature} {shown}", equals=value, missing=value == MISSING_TEXT), usual == value
        )
    if np.isnan(value):
        return Met(Condition(feature, f"{feature} is missing", missing=True), np.isnan(usual))
    known = usual[~np.isnan(usual)]
    if len(np.unique(known)) <= _FEW and value in known:
        return Met(Condition(feature, f"{feature} = {spoken(plain(value))}", equals=plain(value)), usual == value)
    return _quarter(feature, value, usual, known)


def _quarter(feature: str, value: Any, usual: NDArray[Any], known: NDArray[Any]) -> Met:
    edges = np.unique(np.quantile(known.astype(np.float64), [0.25, 0.5, 0.75])) if len(known) else np.empty(0)
    below, above = edges[edges < value], edges[edges >= value]
    low = float(below[-1]) if len(below) else None
    high = float(above[0]) if len(above) else None
    met = ~np.isnan(usual)
    met &= usual > low if low is not None else True
    met &= usual <= high if high is not None else True
    left = f"{spoken(low)} < " if low is not None else ""
    right = f" <= {spoken(high)}" if high is not None else ""
    text = f"{feature} > {spoken(low)}" if low is not None and not right else f"{left}{feature}{right}"
    text = text if left or right else f"{feature} is known"
    return Met(Condition(feature, text, above=low, at_most=high), met)
