"""How far apart the training time was from itself: what a season, a weekday or a slow mean does in any window.

Rows of a time series are no independent draws. Thirty days of hourly temperatures are far from those
of two years in every single month; shuffling rows (`windrow.monitoring.distance.chance_distance`)
does not know that, but the training time does: each stretch of it as long as the window is compared
with the rest of it, and only a window that is further away than all of them is news.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import Frame
from windrow.monitoring.distance import binned, jensen_shannon, present
from windrow.schema import Field

FEWEST_STRETCHES = 5
_MOST_STRETCHES = 400


class Past(msgspec.Struct, frozen=True):
    """Training rows with their times.

    Attributes
    ----------
    frame
        Feature -> values of shape (n,).
    times
        Event times, int64 UTC microseconds of shape (n,).
    window
        Length of the monitor's window in microseconds.
    """

    frame: Frame
    times: NDArray[np.int64]
    window: int


def past_distance(past: Past, field: Field, *, rows: int, seed: int = 0) -> float | None:
    """Return the largest distance of one stretch of the past, thinned to `rows` values, from all others.

    Returns
    -------
    float or None
        None where fewer than five stretches have at least half of `rows` values.

    Examples
    --------
    >>> hours = np.arange(24 * 100)
    >>> past = Past({"hour": hours % 24.0}, hours * 3_600_000_000, window=6 * 3_600_000_000)
    >>> round(past_distance(past, Field("hour", "int64"), rows=6), 2)  # six hours never have all hours
    0.62
    """
    there = present(past.frame[field.name], field)
    kept, others = _counts(past.frame[field.name][there], past.times[there], past.window, rows=rows)
    if len(kept) < FEWEST_STRETCHES:
        return None
    return float(jensen_shannon(others, _thinned(kept, rows, seed)).max())


def _counts(
    values: NDArray[Any], times: NDArray[np.int64], window: int, *, rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return by bin the values of each stretch, and those of all others, both of shape (stretches, bins)."""
    if not len(values):
        return np.zeros((0, 1), np.int64), np.zeros((0, 1), np.int64)
    bins, k = binned(values)
    _, stretch, sizes = np.unique((times.max() - times) // window, return_inverse=True, return_counts=True)
    large = np.flatnonzero(2 * sizes >= rows)
    if len(large) > _MOST_STRETCHES:
        large = large[np.linspace(0, len(large) - 1, _MOST_STRETCHES).astype(int)]
    kept = np.array([np.bincount(bins[stretch == i], minlength=k) for i in large]).reshape(-1, k)
    return kept, np.bincount(bins, minlength=k) - kept


def _thinned(counts: NDArray[np.int64], rows: int, seed: int) -> NDArray[np.int64]:
    # A window of few rows is further away by chance alone, so each stretch is judged by as few.
    rng = np.random.default_rng(seed)
    return np.array([rng.multivariate_hypergeometric(c, min(rows, int(c.sum()))) for c in counts])
