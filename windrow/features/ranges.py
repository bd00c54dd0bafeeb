"""What stretches of ordered events hold: counts, sums, extremes, newest values, streaks, all windows at once.

A window is one stretch [start, end) of the events of its key, or several where events inside it were not yet
known. Each function is one pass of NumPy over all windows; none grows with the length of the windows.

Sums are taken from running totals of whole numbers (limbs of 61 bits, as many as the values span, mostly two), so that
a window's sum depends neither on what lies before it nor on how great another key's values are. Squares are kept with
their rounding errors (Dekker 1971), so that a deviation is right even where it is tiny beside the values. Extremes come from doubled blocks (a sparse table), distinct values from a
wavelet matrix over "where was this value last" (Claude, Navarro and Ordonez 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

_LIMB = 61  # bits of a running total


class Runs(NamedTuple):
    """The stretches of m windows over n ordered events.

    Attributes
    ----------
    start, end
        int64 of shape (r,): each stretch is [start, end).
    first
        int64 of shape (m,): a window's first stretch; None where each window is one.
    """

    start: Ints
    end: Ints
    first: Ints | None = None

    @classmethod
    def without(cls, start: Ints, end: Ints, window: Ints, hole: Ints) -> Runs:
        """Cut events out of windows: `hole` is a place inside of `window`; pairs are in order.

        Examples
        --------
        >>> made = Runs.without(np.array([0, 4]), np.array([4, 6]), np.array([0, 0]), np.array([1, 3]))
        >>> made.start.tolist(), made.end.tolist(), made.first.tolist()
        ([0, 2, 4, 4], [1, 3, 4, 6], [0, 3])
        """
        each = np.bincount(window, minlength=len(start)) + 1
        first = np.cumsum(each) - each
        at = np.arange(len(window)) + window  # the stretch that a hole ends
        begins, ends = np.empty(each.sum(), np.int64), np.empty(each.sum(), np.int64)
        begins[first], begins[at + 1] = start, hole + 1
        ends[first + each - 1], ends[at] = end, hole
        return cls(begins, ends, first)

    def together(self, parts: NDArray[Any], join: Any = np.add) -> NDArray[Any]:
        """Join the values of each window's stretches, oldest first."""
        return parts if self.first is None else join.reduceat(parts, self.first)


@dataclass(frozen=True)
class Spans:
    """m windows over n ordered events.

    Attributes
    ----------
    start, end
        int64 of shape (m,): each window is [start, end).
    window, hole
        Events that are cut out of it, as pairs in order; few.
    begin
        Where the events of each window's key begin.
    """

    start: Ints
    end: Ints
    window: Ints
    hole: Ints
    begin: Ints

    @cached_property
    def _cut(self) -> tuple[Ints, Runs]:
        """The windows with holes, and their stretches."""
        chosen, which = np.unique(self.window, return_inverse=True)
        return chosen, Runs.without(self.start[chosen], self.end[chosen], which, self.hole)

    def sums(self, total: Ints) -> Ints:
        """Return the sum over each window of what `total` is the running total of; whole numbers, so it is exact."""
        made = total[self.end] - total[self.start]
        if len(self.hole):
            np.subtract.at(made, self.window, total[self.hole + 1] - total[self.hole])
        return made

    def over(self, function: Callable[[Runs], NDArray[Any]]) -> NDArray[Any]:
        """Return what `function` says of each window's stretches."""
        made = function(Runs(self.start, self.end))
        if len(self.hole):
            chosen, runs = self._cut
            made[chosen] = function(runs)
        return made

    def lengths(self) -> Ints:
        """Return how many events each window holds."""
        return self.end - self.start - (np.bincount(self.window, minlength=len(self.start)) if len(self.hole) else 0)


def running(values: NDArray[Any]) -> Ints:
    """Return the totals before each event and after the last one, int64 of shape (n + 1,)."""
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=total[1:])
    return total


class Total(NamedTuple):
    """Sums as unevaluated pairs: `high` is the sum rounded to float64, `low` what is missing from it."""

    high: Floats
    low: Floats

    def plus(self, value: Floats) -> Total:
        """Add a float64 to each."""
        return _two_sum(self.high, value, self.low)

    def both(self, other: Total) -> Total:
        """Add two totals."""
        return _two_sum(self.high, other.high, self.low + other.low)


class Limbs(NamedTuple):
    """Running totals of n values as whole multiples of powers of two, from which any window's sum is a difference."""

    parts: tuple[tuple[Ints, int], ...]
    infinite: tuple[Ints, Ints] | None  # running counts of +inf and -inf

    @classmethod
    def of(cls, values: Floats) -> Limbs:
        """Prepare `values`, 0 where an event does not count."""
        finite = np.isfinite(values)
        if finite.all():
            return cls(_limbs(values), None)
        both = running(values == np.inf), running(values == -np.inf)
        return cls(_limbs(np.where(finite, values, 0.0)), both)

    def sums(self, windows: Spans) -> Floats:
        """Return the sum of each window; infinite, or NaN, where values of it are."""
        made = np.zeros(len(windows.start))
        # The least part first: nothing is lost before the last addition.
        for total, scale in reversed(self.parts):
            made += np.ldexp(windows.sums(total).astype(np.float64), scale)
        made += self._odd(windows)
        return made

    def over(self, windows: Spans) -> Total:
        """Return the sum of each window, with what float64 cannot hold of it."""
        made = Total(np.zeros(1), np.zeros(1))
        for total, scale in self.parts:
            whole = windows.sums(total)
            high = whole.astype(np.float64)
            low = (whole - high.astype(np.int64)).astype(np.float64)
            made = made.both(Total(np.ldexp(high, scale), np.ldexp(low, scale)))
        odd = self._odd(windows)
        return Total(made.high + odd, np.where(odd == 0.0, made.low, 0.0))

    def _odd(self, windows: Spans) -> Any:
        if self.infinite is None:
            return 0.0
        up, down = (windows.sums(total) > 0 for total in self.infinite)
        return np.where(up & down, np.nan, np.where(up, np.inf, np.where(down, -np.inf, 0.0)))


def _limbs(values: Floats) -> tuple[tuple[Ints, int], ...]:
    bits, rest = len(values).bit_length(), values
    parts: list[tuple[Ints, int]] = []
    while rest.any() or not parts:
        # Whole multiples of a power of two, small enough that no running total overflows.
        _, exponent = np.frexp(np.abs(rest).max(initial=0.0))
        scale = int(exponent) - (_LIMB - bits)
        limbs = np.rint(np.ldexp(rest, -scale))
        rest = rest - np.ldexp(limbs, scale)
        parts.append((running(limbs.astype(np.int64)), scale))
    return tuple(parts)


class Squares(NamedTuple):
    """The same of squares, with what float64 cannot hold of each."""

    rounded: Limbs
    error: Limbs

    @classmethod
    def of(cls, values: Floats) -> Squares:
        """Prepare `values`, 0 where an event does not count."""
        square, error = squared(values)
        return cls(Limbs.of(square), Limbs.of(error))

    def over(self, windows: Spans) -> Total:
        """Return the sum of squares of each window."""
        return self.rounded.over(windows).both(self.error.over(windows))


def deviation(n: Ints, total: Total, square: Total) -> Floats:
    """Return the sample standard deviation of n values from their sum and sum of squares; NaN below two."""
    many = np.maximum(n, 1).astype(np.float64)
    high, error = squared(total.high)
    product = _two_sum(high, error, 2.0 * total.high * total.low)
    # (sum of squares * n - square of the sum) / n / (n - 1), the difference taken before it is rounded.
    left, left_error = _multiplied(square.high, many)
    left_error = left_error + square.low * many
    spread = (left - product.high) + (left_error - product.low)
    with np.errstate(invalid="ignore", divide="ignore"):
        made = np.sqrt(np.maximum(spread, 0.0) / many / (many - 1.0))
    return np.where(n > 1, made, np.nan)


def extremes(values: NDArray[Any], runs: Runs, *, pick: Any, neutral: Any) -> NDArray[Any]:
    """Return the least or greatest of `values` in each window; `neutral` stands for none.

    Parameters
    ----------
    values
        Of shape (n,), `neutral` where an event does not count.
    pick
        `numpy.minimum` or `numpy.maximum`.
    """
    length = runs.end - runs.start
    made = np.full(len(length), neutral, values.dtype)
    level = np.frexp(length.astype(np.float64))[1] - 1
    block = values
    for k in range(int(length.max(initial=0)).bit_length()):
        asked = np.flatnonzero(level == k)
        made[asked] = pick(block[runs.start[asked]], block[runs.end[asked] - (1 << k)])
        if len(block) > 1 << k:
            block = pick(block[: -(1 << k)], block[1 << k :])
    return runs.together(made, pick)


def newest(valid: Bools | None, runs: Runs) -> Ints:
    """Return the place of the last valid event of each window, -1 where there is none."""
    if valid is None:
        found = np.where(runs.end > runs.start, runs.end - 1, -1)
        return runs.together(found, np.maximum)
    before = np.maximum.accumulate(np.append(-1, np.where(valid, np.arange(len(valid)), -1)))[runs.end]
    return runs.together(np.where(before >= runs.start, before, -1), np.maximum)


def oldest(valid: Bools | None, runs: Runs) -> Ints:
    """Return the place of the first valid event of each window, -1 where there is none."""
    n = np.iinfo(np.int64).max
    if valid is None:
        found = np.where(runs.end > runs.start, runs.start, n)
    else:
        places = np.append(np.where(valid, np.arange(len(valid)), n), n)
        after = np.minimum.accumulate(places[::-1])[::-1][runs.start]
        found = np.where(after < runs.end, after, n)
    made = runs.together(found, np.minimum)
    return np.where(made == n, -1, made)


def streaks(true: Ints, runs: Runs, *, last: Ints, after: Ints) -> Ints:
    """Return how many events are true since the moment of the last false one of each window.

    Parameters
    ----------
    true
        Running count of the true ones.
    last
        int64 of shape (m,): place of the last false one of each window, -1 for none.
    after
        int64 of shape (n + 1,): for each event the place of the first one of a later moment; the last entry is 0.
    """
    if runs.first is not None:
        last = np.repeat(last, np.diff(np.append(runs.first, len(runs.start))))
    begin = np.minimum(np.maximum(runs.start, after[last]), runs.end)
    return runs.together(true[runs.end] - true[begin])


class Places(NamedTuple):
    """Where each value of each key occurs, so that occurrences in a window can be counted.

    Attributes
    ----------
    kind
        int64 of shape (n,): number of (key, value), or -1 where an event does not count.
    order
        ``kind * (n + 1) + place`` of those that count, in order.
    """

    kind: Ints
    order: Ints

    @classmethod
    def of(cls, kind: Ints) -> Places:
        """Sort what counts."""
        at = np.flatnonzero(kind >= 0)
        return cls(kind, np.sort(kind[at] * (len(kind) + 1) + at))

    def between(self, kind: Ints, start: Ints, end: Ints) -> Ints:
        """Return how often each of `kind` occurs in [start, end)."""
        width = len(self.kind) + 1
        below = np.searchsorted(self.order, kind * width + start)
        return np.where(kind >= 0, np.searchsorted(self.order, kind * width + end) - below, 0)

    def before(self) -> Ints:
        """Return the place where the same kind occurred before each event, -1 for none."""
        kind, place = np.divmod(self.order, len(self.kind) + 1)
        made = np.full(len(self.kind), -1, np.int64)
        same = kind[1:] == kind[:-1]
        made[place[1:][same]] = place[:-1][same]
        return made


def distinct(places: Places, start: Ints, end: Ints, *, own: Ints, begin: Ints) -> Ints:
    """Return how many kinds occur in each window [start, end).

    Parameters
    ----------
    own
        int64 of shape (n,): where the events of each event's key begin.
    begin
        int64 of shape (m,): where the events of each window's key begin.
    """
    chosen = places.kind >= 0
    rank = running(chosen)
    # Among those that count: the ones whose like lies before the window are its first of their kind.
    before = places.before()[chosen]
    earlier = np.where(before < 0, 0, rank[before] - rank[own[chosen]] + 1)
    return _less(earlier, rank[start] - rank[begin] + 1, rank[start], rank[end])


def _less(values: Ints, bound: Ints, start: Ints, end: Ints) -> Ints:
    """Return how many of ``values[start:end]`` are less than `bound`, by a wavelet matrix."""
    made = np.zeros(len(bound), np.int64)
    start, end = start.copy(), end.copy()
    for bit in range(int(max(values.max(initial=0), bound.max(initial=0))).bit_length() - 1, -1, -1):
        zero = (values >> bit) & 1 == 0
        zeros = running(zero)
        left, right = zeros[start], zeros[end]
        up = (bound >> bit) & 1 == 1
        made += np.where(up, right - left, 0)
        start = np.where(up, zeros[-1] + start - left, left)
        end = np.where(up, zeros[-1] + end - right, right)
        values = np.concatenate([values[zero], values[~zero]])
    return made


def _two_sum(a: Floats, b: Floats, rest: Floats) -> Total:
    total = a + b
    with np.errstate(invalid="ignore"):
        part = total - a
        error = (a - (total - part)) + (b - part)
    error = np.where(np.isfinite(error), error, 0.0) + rest
    high = total + error
    with np.errstate(invalid="ignore"):
        low = error - (high - total)
    return Total(high, np.where(np.isfinite(low), low, 0.0))


def _multiplied(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    product = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    with np.errstate(invalid="ignore"):
        error = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    return product, np.where(np.isfinite(error), error, 0.0)


def squared(a: Floats) -> tuple[Floats, Floats]:
    """Return squares and their rounding errors."""
    return _multiplied(a, a)


def _split(a: Floats) -> tuple[Floats, Floats]:
    scaled = a * 134217729.0  # 2**27 + 1
    with np.errstate(invalid="ignore", over="ignore"):
        high = scaled - (scaled - a)
    return high, a - high
