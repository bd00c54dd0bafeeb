"""Tiles: the sums of an entity's events per hop, as rows of eight-byte numbers in one piece of memory.

A tile's row is its start and, for each series (a column and a filter), what its functions need: a count, a sum, mean
and squared deviations (Welford 1962), extremes. Rows of tiles add up to the row of a window, and an event is added to
a tile's row as it is to a window's: the same code folds what is past and adds what is recent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from windrow.errors import DataError
from windrow.features.agg import EXACT_EVENTS, Agg
from windrow.features.traces import Event, Series

_ONES = np.ones(1024)
_FLOATS = ("float32", "float64")
_Row = list[Any]


class _Slots(NamedTuple):
    """Where a series' numbers stand in a row; 0 where no function needs them."""

    series: Series
    n: int
    sum: int
    mean: int
    m2: int
    min: int
    max: int

    def add(self, row: _Row, value: Any) -> None:
        row[self.n] += 1
        if self.sum:
            row[self.sum] += value
        if self.mean:
            step = value - row[self.mean]
            row[self.mean] += step / row[self.n]
            row[self.m2] += step * (value - row[self.mean])
        if self.min and value < row[self.min]:
            row[self.min] = value
        if self.max and value > row[self.max]:
            row[self.max] = value


class _Frame(NamedTuple):
    """A window, and the functions over it: place in the answer, how to tell it from a row, with the current event."""

    made: Agg
    tells: list[tuple[int, Callable[[_Row], Any], bool]]
    current: bool


class Level:
    """All tiles of one hop.

    Parameters
    ----------
    hop
        Microseconds; None keeps one tile per moment (10,000 at most).
    functions
        Place in the answer -> function; count, sum, mean, std, min and max of this hop.
    columns
        The values of an event, with dtypes.
    """

    def __init__(self, hop: int | None, functions: Mapping[int, Agg], columns: Mapping[str, str]) -> None:
        self.hop, self._exact = hop or 1, hop is None
        self._keep = max(made.window + made.delay for made in functions.values())
        self._slots, self._layout = _slots(functions.values(), columns)
        self._pack = Struct("<" + self._layout.text)
        self._frames = _frames(functions, self._slots)

    def fold(self, block: bytes | memoryview, events: Sequence[Event], watermark: int) -> bytes | memoryview:
        """Return the tiles with `events` added, without those that no time from `watermark` on can ask for."""
        touched: dict[int, tuple[int, bool, _Row]] = {}
        oldest = watermark - self._keep
        oldest -= oldest % self.hop
        for event in events:
            start = event[0] - event[0] % self.hop
            if start >= oldest:
                if start not in touched:
                    touched[start] = self._row(block, start)
                self._add(touched[start][2], event[3])
        return self._joined(block, touched, oldest)

    def read(self, block: memoryview, t: int, recent: Sequence[Event], own: tuple[Any, ...] | None, into: _Row) -> None:
        """Put the functions' values at `t` into their places; `recent` are the events usable at t that are not folded."""
        size, rows = self._pack.size, len(block) // self._pack.size
        numbers = block.cast("q")
        for made, tells, current in self._frames:
            tail, head = made.tail(t), made.head(t) if made.delay else t
            first = _find(numbers, tail, self.hop, size >> 3, rows)
            last = _find(numbers, head, self.hop, size >> 3, rows) if made.delay else rows
            row = self._layout.merged(block, first * size, last * size)
            for event in recent:
                if tail <= event[0] < head:
                    self._add(row, event[3])
            whole = row
            if current and own is not None:
                whole = row.copy()
                self._add(whole, own)
            for place, tell, with_own in tells:
                into[place] = tell(whole if with_own else row)

    def _add(self, row: _Row, values: tuple[Any, ...]) -> None:
        for slots in self._slots:
            value = slots.series.value(values)
            if value is not None:
                slots.add(row, value)

    def _row(self, block: bytes | memoryview, start: int) -> tuple[int, bool, _Row]:
        """Return the place of a tile, whether it is there, and its row."""
        size, rows = self._pack.size, len(block) // self._pack.size
        at = _find(memoryview(block).cast("B").cast("q"), start, self.hop, size >> 3, rows)
        if at < rows:
            row = list(self._pack.unpack_from(block, at * size))
            if row[0] == start:
                return at, True, row
        return at, False, [start, *self._layout.empty]

    def _joined(
        self, block: bytes | memoryview, touched: Mapping[int, tuple[int, bool, _Row]], oldest: int
    ) -> bytes | memoryview:
        size, rows = self._pack.size, len(block) // self._pack.size
        done = _find(memoryview(block).cast("B").cast("q"), oldest, self.hop, size >> 3, rows)
        if not touched and not done:
            return block
        parts: list[Any] = []
        for start in sorted(touched):
            at, there, row = touched[start]
            parts += [block[done * size : at * size], self._pack.pack(*row)]
            done = at + there
        made = b"".join([*parts, block[done * size :]])
        if self._exact and len(made) > EXACT_EVENTS * size:
            raise DataError(
                f"An entity has more than {EXACT_EVENTS:,} events in the window of a feature with hop=None",
                next_step="declare the feature with a hop, such as the default one",
            )
        return made


class _Layout(NamedTuple):
    """The columns of a row: the start, numbers that add up, (mean, squares) pairs, extremes as float64 and as int64."""

    text: str
    empty: tuple[Any, ...]
    adds: int
    pairs: tuple[tuple[int, int, int], ...]
    extremes: tuple[tuple[int, Any, Any], ...]

    def merged(self, block: memoryview, begin: int, end: int) -> _Row:
        """Return the row of a window from the rows of its tiles."""
        if begin >= end:
            return [0, *self.empty]
        width = len(self.text)
        tiles: Any = np.ndarray(((end - begin) // (8 * width), width), np.float64, block, begin)
        # A product with ones adds all columns up at once, several times quicker than a sum over the rows.
        ones = _ONES[: len(tiles)] if len(tiles) <= len(_ONES) else np.ones(len(tiles))
        row: _Row = [0, *(ones @ tiles[:, 1 : self.adds + 1]).tolist(), *self.empty[self.adds :]]
        for n, mean, m2 in self.pairs:
            row[mean], row[m2] = _spread(tiles[:, n], tiles[:, mean], tiles[:, m2])
        for at, pick, dtype in self.extremes:
            row[at] = pick.reduce(tiles[:, at].view(dtype) if dtype is np.int64 else tiles[:, at]).item()
        return row


def _spread(n: Any, mean: Any, m2: Any) -> tuple[float, float]:
    """Join means and squared deviations of tiles (Chan, Golub and LeVeque 1979)."""
    total = np.add.reduce(n)
    if not total:
        return 0.0, 0.0
    # Differences to one of the means, so that large values far from zero cost no digits.
    origin = mean[n.argmax()]
    step = mean - origin
    shift = np.dot(n, step) / total
    return float(origin + shift), float(np.add.reduce(m2) + np.dot(n, (step - shift) ** 2))


def _find(numbers: memoryview, start: int, hop: int, width: int, rows: int) -> int:
    """Return the place of the first tile at or after `start`, among rows of `width` numbers."""
    if not rows or start > numbers[(rows - 1) * width]:
        return rows
    low, high = 0, rows - 1
    guess = (start - numbers[0]) // hop  # where it is if no tile is missing
    if guess <= 0:
        return 0
    if guess < rows and numbers[guess * width] == start:
        return int(guess)
    high = min(high, guess)  # tiles are missing, never too many
    while low < high:
        middle = (low + high) // 2
        if numbers[middle * width] < start:
            low = middle + 1
        else:
            high = middle
    return low


def _slots(functions: Iterable[Agg], columns: Mapping[str, str]) -> tuple[list[_Slots], _Layout]:
    """Give each series the numbers that its functions need, those of a kind side by side."""
    needs: dict[tuple[str | None, str | None], set[str]] = {}
    for made in functions:
        needs.setdefault((made.column, made.where), set()).add("sum" if made.kind == "mean" else made.kind)
    at: dict[tuple[Any, str], int] = {}
    order = [(s, "n") for s in needs] + [(s, "sum") for s in needs if "sum" in needs[s]]
    adds = len(order)
    order += [(s, part) for s in needs if "std" in needs[s] for part in ("mean", "m2")]
    order += [(s, kind) for kind in ("min", "max") for s in needs if kind in needs[s]]
    at = {slot: 1 + place for place, slot in enumerate(order)}
    whole = {s: s[0] is not None and columns[s[0]] not in _FLOATS for s in needs}
    text = "q" + "".join("q" if kind in ("min", "max") and whole[s] else "d" for s, kind in order)
    empty = tuple(_neutral(kind, whole[s]) for s, kind in order)
    pairs = tuple((at[s, "n"], at[s, "mean"], at[s, "m2"]) for s in needs if "std" in needs[s])
    picks = {"min": np.minimum, "max": np.maximum}
    extremes = tuple(
        (at[s, k], picks[k], np.int64 if whole[s] else np.float64) for s, k in order if k in picks
    )  # fmt: skip
    slots = [
        _Slots(
            Series.of(*s, list(columns)), *(at.get((s, part), 0) for part in ("n", "sum", "mean", "m2", "min", "max"))
        )
        for s in needs
    ]
    return slots, _Layout(text, empty, adds, pairs, extremes)


def _neutral(kind: str, whole: bool) -> Any:
    if kind not in ("min", "max"):
        return 0.0
    limits = (np.iinfo(np.int64).max, np.iinfo(np.int64).min) if whole else (np.inf, -np.inf)
    return limits[kind == "max"]


def _frames(functions: Mapping[int, Agg], slots: Sequence[_Slots]) -> list[_Frame]:
    frames: dict[tuple[int, int], _Frame] = {}
    for place, made in functions.items():
        key = made.window, made.delay
        own = next(s for s in slots if s.series.names == (made.column, made.where))
        frame = frames.get(key, _Frame(made, [], False))
        frame.tells.append((place, _tell(made.kind, own), made.include_current))
        frames[key] = frame._replace(current=frame.current or made.include_current)
    return list(frames.values())


def _tell(kind: str, at: _Slots) -> Callable[[_Row], Any]:
    """Return what reads a function's value from the row of a window."""
    n = at.n
    if kind == "count":
        return lambda row: int(row[n])
    if kind == "sum":
        return lambda row: float(row[at.sum])
    if kind == "mean":
        return lambda row: row[at.sum] / row[n] if row[n] else None
    if kind == "std":
        return lambda row: sqrt(max(row[at.m2], 0.0) / (row[n] - 1)) if row[n] > 1 else None
    place = at.min if kind == "min" else at.max
    return lambda row: row[place] if row[n] else None
