"""Whether an on-demand function answers each row from that row alone, as it must where requests come one by one."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.errors import DeclarationError
from windrow.features.contract import OnDemand
from windrow.features.on_demand import compute

_ROWS = 16  # computed again
_CLOSE = 1e-5  # relative: vectorised functions may round the last digit by where a row stands


class Text(str):
    """A text that will not be compared with a number, which no text ever equals.

    Examples
    --------
    >>> Text("36") == "36"
    True
    >>> Text("36") == 36
    Traceback (most recent call last):
    TypeError: a text is compared with the number 36
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, numbers.Number):
            raise TypeError(f"a text is compared with the number {other}")
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def refuse_by_position(
    spec: OnDemand, function: Callable[..., Any], inputs: Mapping[str, NDArray[Any]], made: NDArray[Any]
) -> None:
    """Raise if the values `made` are not those of the rows by themselves.

    A few rows are computed once more, without the others and in the opposite order. A look-up by position, a
    statistic over the rows, or the value of the row before gives them other values then.

    Raises
    ------
    DeclarationError
        If a value differs, or the function compares a text with a number.

    Examples
    --------
    >>> spec = OnDemand("share", "share", "float64", {"amount": "request.amount"}, {"amount": "float64"})
    >>> amounts = np.array([1.0, 3.0])
    >>> share = lambda amount: amount / amount.sum()
    >>> refuse_by_position(spec, share, {"amount": amounts}, compute(spec, share, {"amount": amounts}))
    Traceback (most recent call last):
    windrow.errors.DeclarationError: on-demand function 'share' gives 1 of 1 rows another value when they are computed without the others. Next: compute each row from its own inputs: look up by key (TABLE[code]) and never by position, and take no statistic over the rows.
    """
    few = _few(len(made))
    alone = compute(spec, function, {name: _texts(values[few]) for name, values in inputs.items()})
    differing = int((~_same(alone, made[few])).sum())
    if differing:
        raise DeclarationError(
            f"on-demand function {spec.function!r} gives {differing} of {few.size} rows another value when they are computed without the others",
            next_step="compute each row from its own inputs: look up by key (TABLE[code]) and never by position, and take no statistic over the rows",
        )


def _few(rows: int) -> NDArray[np.int64]:
    """Return the places of some rows, at most half of them, from the last to the first."""
    return np.unique(np.linspace(rows - 1, 0, min(_ROWS, (rows + 1) // 2)).astype(np.int64))[::-1]


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != object:
        return values
    made = np.empty(len(values), dtype=object)
    made[:] = [Text(value) if isinstance(value, str) else value for value in values]
    return made


def _same(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
    if left.dtype == object:
        return np.array([str(a) == str(b) for a, b in zip(left, right, strict=True)], dtype=bool)
    return np.asarray(np.isclose(left, right, rtol=_CLOSE, atol=0, equal_nan=True))
