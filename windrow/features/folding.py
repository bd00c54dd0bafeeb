"""Each aggregate function over all windows at once, from the stretches that `windrow.features.ranges` evaluates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from windrow.features.agg import LONGEST_STREAK, Agg
from windrow.features.ranges import (
    Limbs,
    Places,
    Spans,
    Squares,
    Total,
    deviation,
    distinct,
    extremes,
    newest,
    oldest,
    running,
    squared,
    streaks,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


class Current(NamedTuple):
    """The request's own events: whether each counts, and its value (0 where it does not)."""

    counts: Bools
    values: NDArray[Any]


class Answer(NamedTuple):
    """One value per window, and where there is none; `values` of last and first are places of events, -2 the current one."""

    values: NDArray[Any]
    missing: Bools | None = None


@dataclass(frozen=True)
class Column:
    """The values of one column in n ordered events, of those that a function counts.

    Attributes
    ----------
    valid
        Which events count, None: all.
    values
        float64, int64 or bool of shape (n,); for ``distinct`` int64 numbers of (key, value), -1 for none.
    edge
        For ``distinct`` where the events of each event's key begin, for ``streak`` where each event's moment ends.
    """

    valid: Bools | None
    values: NDArray[Any]
    edge: Ints

    @cached_property
    def count(self) -> Ints | None:
        """Running count of valid events."""
        return None if self.valid is None else running(self.valid)

    @cached_property
    def limbs(self) -> Limbs:
        """Running totals."""
        return Limbs.of(self.plain(0.0).astype(np.float64))

    @cached_property
    def squares(self) -> Squares:
        """Running totals of squares."""
        return Squares.of(self.plain(0.0).astype(np.float64))

    @cached_property
    def places(self) -> Places:
        """Where each value occurs."""
        return Places.of(self.plain(-1))

    def plain(self, missing: Any) -> NDArray[Any]:
        """Return the values with `missing` where an event does not count."""
        return self.values if self.valid is None else np.where(self.valid, self.values, missing)


def folded(made: Agg, column: Column, windows: Spans, current: Current | None) -> Answer:
    """Return the value of the function `made` for each window."""
    return _FUNCTIONS[made.kind](column, windows, current)


def _count(column: Column, windows: Spans, current: Current | None) -> Answer:
    n = _counted(column, windows)
    return Answer(n if current is None else n + current.counts)


def _counted(column: Column, windows: Spans) -> Ints:
    return windows.lengths() if column.count is None else windows.sums(column.count)


def _total(column: Column, windows: Spans, current: Current | None) -> Floats:
    total = column.limbs.sums(windows)
    return total if current is None else total + current.values


def _sum(column: Column, windows: Spans, current: Current | None) -> Answer:
    return _number(_total(column, windows, current))


def _mean(column: Column, windows: Spans, current: Current | None) -> Answer:
    n, total = _count(column, windows, current).values, _total(column, windows, current)
    with np.errstate(invalid="ignore"):
        return _number(total / n)  # 0/0 is missing


def _std(column: Column, windows: Spans, current: Current | None) -> Answer:
    total, square = column.limbs.over(windows), column.squares.over(windows)
    if current is not None:
        total, square = total.plus(current.values), square.both(Total(*squared(current.values)))
    return _number(deviation(_count(column, windows, current).values, total, square))


def _number(values: Floats) -> Answer:
    return Answer(values, np.isnan(values))


def _least(column: Column, windows: Spans, current: Current | None) -> Answer:
    return _extreme(column, windows, current, pick=np.minimum)


def _greatest(column: Column, windows: Spans, current: Current | None) -> Answer:
    return _extreme(column, windows, current, pick=np.maximum)


def _extreme(column: Column, windows: Spans, current: Current | None, *, pick: Any) -> Answer:
    neutral = _neutral(column.values.dtype, pick)
    values, n = column.plain(neutral), _counted(column, windows)
    found = windows.over(lambda runs: extremes(values, runs, pick=pick, neutral=neutral))
    if current is None:
        return Answer(found, n == 0)
    return Answer(pick(found, np.where(current.counts, current.values, neutral)), n + current.counts == 0)


def _neutral(dtype: np.dtype[Any], pick: Any) -> Any:
    if dtype == np.bool_:
        return pick is np.minimum
    least, greatest = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return greatest if pick is np.minimum else least


def _last(column: Column, windows: Spans, current: Current | None) -> Answer:
    found = windows.over(lambda runs: newest(column.valid, runs))
    return _place(found if current is None else np.where(current.counts, -2, found))


def _first(column: Column, windows: Spans, current: Current | None) -> Answer:
    found = windows.over(lambda runs: oldest(column.valid, runs))
    return _place(found if current is None else np.where((found < 0) & current.counts, -2, found))


def _place(found: Ints) -> Answer:
    return Answer(found, found == -1)


def _streak(column: Column, windows: Spans, current: Current | None) -> Answer:
    true = column.plain(False)
    false = ~true if column.valid is None else column.valid & ~true
    total, after = running(true), np.append(column.edge, 0)
    found = windows.over(lambda runs: streaks(total, runs, last=newest(false, runs), after=after))
    if current is not None:
        own = current.values.astype(bool)
        found = np.where(current.counts, np.where(own, found + 1, 0), found)
    return Answer(np.minimum(found, LONGEST_STREAK))


def _distinct(column: Column, windows: Spans, current: Current | None) -> Answer:
    places, n = column.places, len(windows.start)
    found = distinct(places, windows.start, windows.end, own=column.edge, begin=windows.begin)
    kind = places.kind[windows.hole]
    holes, cut = np.unique(windows.window[kind >= 0] * (len(places.kind) + 1) + kind[kind >= 0], return_counts=True)
    at, kind = np.divmod(holes, len(places.kind) + 1)
    # A value goes with its holes, if no other event of the window has it.
    gone = places.between(kind, windows.start[at], windows.end[at]) == cut
    found = found - np.bincount(at[gone], minlength=n)
    if current is None:
        return Answer(found)
    own = np.arange(n) * (len(places.kind) + 1) + current.values
    place = np.minimum(np.searchsorted(holes, own), max(len(holes) - 1, 0))
    missing = np.where(holes[place] == own, cut[place], 0) if len(holes) else 0
    there = places.between(current.values, windows.start, windows.end) - missing
    return Answer(found + (current.counts & (there == 0)))


_FUNCTIONS = {
    "count": _count, "sum": _sum, "mean": _mean, "std": _std, "min": _least, "max": _greatest,
    "last": _last, "first": _first, "distinct": _distinct, "streak": _streak,
}  # fmt: skip
