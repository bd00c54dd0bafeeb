"""The order of (key, time): one sort where rows lie in the order of time already, as in most files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def by_key_and_time(code: Ints, time: Ints) -> Ints:
    """Return the places of rows in the order of (code, time), equal ones as they came.

    Examples
    --------
    >>> by_key_and_time(np.array([1, 0, 1]), np.array([7, 9, 3])).tolist()
    [1, 2, 0]
    """
    few = len(code) == 0 or code.max() < 1 << 16
    if few and (time[1:] >= time[:-1]).all():
        # NumPy sorts small whole numbers by their digits, quicker than anything else.
        return np.argsort(code.astype(np.uint16), kind="stable")
    one = _one_number(code, time)
    if one is None:
        return np.lexsort((time, code))
    # Several times quicker than a stable sort, and the same where no two are equal.
    order = np.argsort(one)
    ordered = one[order]
    return order if (ordered[1:] > ordered[:-1]).all() else np.argsort(one, kind="stable")


def _one_number(code: Ints, time: Ints) -> Ints | None:
    """Return a number per row in the order of (code, time), or None where 63 bits do not hold it."""
    low, width = int(time.min()), int(time.max()) - int(time.min()) + 1
    if (int(code.max()) + 1) * width >> 63:
        return None
    return code * width + (time - low)
