"""Aggregates at many times at once: one scan of the events, and each window as a stretch of them.

The engine reads the events of the keys that are asked about. Ordered by (key, event time), the events of a window
lie side by side, between two places that binary search finds for all rows at once. What was not known yet at t is
cut out. From some place on nothing was known, which costs nothing, however late everything is; before it there are
only events that a later one overtook. They become holes, so that a window is several stretches. Then
`windrow.features.ranges` evaluates each function over all windows.

Of the events with one id the first by (known, event time, write order) counts. Ties are ordered by (event time,
known_at, id) and then by the value.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from windrow.features.agg import Agg, Aggregate
from windrow.features.arrow import arrow_type
from windrow.features.events import Events, Kinds, plain, read_events
from windrow.features.folding import Answer, Current, folded
from windrow.features.ranges import Spans, newest
from windrow.schema import Status

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends import BaseBackend
    from numpy.typing import NDArray

    from windrow.features.asof import Spine
    from windrow.features.merge import Needles

    Ints = NDArray[np.int64]

_ALL = slice(None)
_NEVER = np.iinfo(np.int64).min
_CHUNK = 500_000  # events and rows that a thread works on at a time: what fits into caches
_HOLES = 10_000_000  # holes that a thread works on at a time
_BITS = 62


def windows(
    con: BaseBackend,
    spec: Aggregate,
    names: Sequence[str],
    *,
    table: ir.Table,
    spine: Spine,
    fields: Sequence[str],
    current: pa.Table | None = None,
) -> Windows:
    """Return the features `names` at every spine row.

    Parameters
    ----------
    con
        Any backend of Ibis.
    table
        Every row of the source of events, with both times and ``_seq``.
    spine
        What is asked about: n rows.
    fields
        The spine's columns that hold the keys, in the order of the entity's.
    current
        The spine's rows with `Aggregate.current`, where a function includes the request's own event.
    """
    made = {name: spec.features[name] for name in names}
    columns = dict.fromkeys(c for one in made.values() for c in one.columns)
    asked = spine.keys.select(list(fields)).rename_columns(list(spec.keys))
    rows = read_events(con, spec, list(columns), table=table, asked=asked, until=int(spine.times.max(initial=0)))
    needles = spine.needles(tuple(fields))
    chunks = _chunks(Events.of(rows, spec, needles), needles, spine.times, reach=_reach(made.values()))
    return Windows.of(chunks, made, spec=spec, rows=rows, current=current, n=len(spine.times))


def _reach(functions: Iterable[Agg]) -> int:
    return max(made.window + made.delay + 2 * (made.hop or 0) for made in functions)


@dataclass(frozen=True)
class Windows:
    """What the functions are at n spine rows; read like `windrow.features.asof.Found`."""

    spec: Aggregate
    rows: pa.Table
    current: pa.Table | None
    newest: Ints
    found: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        chunks: Iterable[Chunk],
        made: Mapping[str, Agg],
        *,
        spec: Aggregate,
        rows: pa.Table,
        current: pa.Table | None,
        n: int,
    ) -> Windows:
        """Evaluate the functions `made` for the n rows of all `chunks`, on all cores."""
        answer = cls(spec, rows, current, np.full(n, _NEVER))
        for name, one in made.items():
            answer.found[name] = np.zeros(n, _held(one, spec)), np.zeros(n, np.bool_)
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool:
            # A few chunks ahead: each holds its own share of the events.
            waiting: list[Any] = []
            for chunk in chunks:
                waiting.append(pool.submit(answer.fill, chunk, made))
                if len(waiting) > 2 * cores:
                    waiting.pop(0).result()
            for one_chunk in waiting:
                one_chunk.result()
        return answer

    def fill(self, chunk: Chunk, made: Mapping[str, Agg]) -> None:
        """Evaluate the functions for the rows of `chunk`."""
        self.newest[chunk.row] = chunk.newest()
        for name, one in made.items():
            answer = chunk.value(one, self.current)
            values, missing = self.found[name]
            values[chunk.row] = answer.values
            if answer.missing is not None:
                missing[chunk.row] = answer.missing

    def values(self, name: str, rows: slice = _ALL) -> pa.ChunkedArray:
        """Return a feature for the spine's `rows`; null where the window holds nothing to tell."""
        made, (values, missing) = self.spec.features[name], self.found[name]
        wanted = arrow_type(made.dtype(self.spec.columns))
        if made.kind in ("last", "first"):
            return self._taken(made, values[rows], missing[rows], rows).cast(wanted)
        return pa.chunked_array([pa.array(values[rows], mask=missing[rows]).cast(wanted)])

    def event_times(self, rows: slice = _ALL) -> pa.ChunkedArray:
        """Return the time of the newest event known before t, in the window or not; null where there is none."""
        known = pa.array(self.newest[rows], mask=self.newest[rows] == _NEVER)
        return pa.chunked_array([known.cast(pa.timestamp("us", "UTC"))])

    def statuses(self, rows: slice = _ALL) -> pa.Array:
        """Return the `Status` of the spine's `rows` as int8: PRESENT, or NOT_FOUND where no event was known."""
        status = np.where(self.newest[rows] == _NEVER, Status.NOT_FOUND, Status.PRESENT)
        return pa.array(status.astype(np.int8))

    def _taken(self, made: Agg, places: Ints, missing: NDArray[np.bool_], rows: slice) -> pa.ChunkedArray:
        stored = self.rows.column(made.column)
        if self.current is not None and made.include_current:
            own = self.current.column(made.column).cast(stored.type)
            places = np.where(places == -2, len(stored) + np.arange(len(self.newest))[rows], places)
            stored = pa.chunked_array([*stored.chunks, *own.chunks], stored.type)
        return stored.take(pa.array(places, mask=missing))


def _held(made: Agg, spec: Aggregate) -> Any:
    """Return the type in which values are held: places of events for last and first."""
    if made.kind in ("last", "first"):
        return np.int64
    return np.float64 if made.dtype(spec.columns) in ("float32", "float64") else np.int64


class Numbers(NamedTuple):
    """One number for a key and a moment of [low, low + width): ``(code - first) * width + moment - low``."""

    first: int
    low: int
    width: int

    def base(self, code: Ints) -> Ints:
        """Return what a moment is added to."""
        return (code - self.first) * self.width - self.low


@dataclass(frozen=True)
class Chunk:
    """Some spine rows and the events of their keys, both in the order of (key, time).

    Attributes
    ----------
    row, code, time
        Of the rows asked about.
    stored
        Key and event time of the events.
    known
        From which place on no event was known, for each row; None where all that happened was known.
    window, hole
        Events before that which were not known either: row and place, in order.
    """

    row: Ints
    code: Ints
    time: Ints
    events: Events
    numbers: Numbers
    stored: Ints
    known: Ints | None
    window: Ints
    hole: Ints
    _frames: dict[Any, Spans] = field(default_factory=dict)
    _places: dict[Any, Ints] = field(default_factory=dict)

    def newest(self) -> Ints:
        """Return the time of the newest event known before t; the least integer where there is none."""
        spans = self._cut(self._begin, self._place((0, 0), self.time))
        times: Ints = np.append(self.events.event, _NEVER)
        found: Ints = times[spans.over(lambda runs: newest(None, runs))]
        return found

    def value(self, made: Agg, current: pa.Table | None) -> Answer:
        """Return the function `made` at each row; what last and first say are rows of the table of events."""
        column, kinds = self.events.column(made)
        own = self._current(made, current, kinds) if made.include_current and current is not None else None
        values, missing = folded(made, column, self._frame(made), own)
        if made.kind in ("last", "first"):
            values = np.append(self.events.places(made), [-2, -1])[values]
        return Answer(values, missing)

    def _frame(self, made: Agg) -> Spans:
        key = made.window, made.delay, made.hop
        if key not in self._frames:
            head = self._place((made.delay, made.hop if made.delay else 0), made.head(self.time))
            self._frames[key] = self._cut(self._place((made.window + made.delay, made.hop), made.tail(self.time)), head)
        return self._frames[key]

    def _cut(self, start: Ints, end: Ints) -> Spans:
        if self.known is None:
            return Spans(start, end, self.window, self.hole, self._begin)
        end = np.maximum(np.minimum(end, self.known), start)
        inside = (self.hole >= start[self.window]) & (self.hole < end[self.window])
        return Spans(start, end, self.window[inside], self.hole[inside], self._begin)

    @cached_property
    def _begin(self) -> Ints:
        return np.searchsorted(self.events.code, self.code)

    @cached_property
    def _base(self) -> Ints:
        return self.numbers.base(self.code)

    def _place(self, key: tuple[int, int | None], moment: Ints) -> Ints:
        """Return where each row's events begin that happened at its `moment` or later; once for each `key`."""
        if key not in self._places:
            self._places[key] = np.searchsorted(self.stored, self._base + moment)
        return self._places[key]

    def _current(self, made: Agg, spine: pa.Table, kinds: Kinds | None) -> Current:
        rows = spine.select(list(made.columns)).take(pa.array(self.row))
        there = np.ones(len(self.row), np.bool_) if made.where is None else plain(rows.column(made.where))[0]
        if made.column is None:
            return Current(there, there)
        values, valid = plain(rows.column(made.column))
        there = there if valid is None else there & valid
        if kinds is not None:
            return Current(there, kinds.number(self.code, rows.column(made.column)))
        return Current(there, np.where(there, values, 0) if len(values) else there)


def _chunks(events: Events, needles: Needles, times: Ints, *, reach: int) -> Iterator[Chunk]:
    without_key = np.ones(len(times), np.bool_)
    without_key[needles.row] = False
    rest = np.flatnonzero(without_key)
    if len(rest):
        yield from _some_rows(events.part(0, 0), rest, np.zeros(len(rest), np.int64), times[rest], Numbers(0, 0, 1))
    if not len(needles.row):
        return
    # From before any window to one moment after the last one asked about, which stands for all later ones.
    low = min([int(times.min()) - reach, *([int(events.event.min())] if len(events.event) else [])])
    width = int(times.max()) - low + 2
    for first, last in _stretches(events.code, needles.code, most=max((1 << _BITS) // width, 1)):
        stored = slice(*np.searchsorted(events.code, [first, last]))
        asked = slice(*np.searchsorted(needles.code, [first, last]))
        part, row, code = events.part(stored.start, stored.stop), needles.row[asked], needles.code[asked]
        yield from _some_rows(part, row, code, needles.time[asked], Numbers(first, low, width))


def _stretches(stored: Ints, asked: Ints, *, most: int) -> Iterator[tuple[int, int]]:
    """Cut the keys into stretches [first, last) of at most `most` keys and about `_CHUNK` events and rows."""
    n = int(asked[-1]) + 1 if len(asked) else 0
    load = np.cumsum(np.bincount(stored, minlength=n) + np.bincount(asked, minlength=n))
    first = 0
    while first < n:
        before = load[first - 1] if first else 0
        last = min(int(np.searchsorted(load, before + _CHUNK, "right")), first + most)
        last = max(last, first + 1)
        yield first, last
        first = last


def _some_rows(events: Events, row: Ints, code: Ints, time: Ints, numbers: Numbers) -> Iterator[Chunk]:
    """Find what was not known; rows with many holes are worked on in parts."""
    base = numbers.base(events.code)
    stored = base + events.event
    if (events.eff == events.event).all():
        none = np.zeros(0, np.int64)
        yield Chunk(row, code, time, events, numbers, stored, None, none, none)
        return
    asked, eff = numbers.base(code) + time, base + np.minimum(events.eff, numbers.low + numbers.width - 1)
    # Events of later keys have greater numbers, so what comes first among those behind is of the same key.
    soonest = np.minimum.accumulate(eff[::-1])[::-1]
    known = np.searchsorted(soonest, asked, "right")
    late = np.flatnonzero(soonest < eff)
    begin = np.searchsorted(asked, np.maximum(soonest[late], stored[late] + 1))
    end = np.maximum(np.searchsorted(asked, eff[late]), begin)
    parts = int((end - begin).sum()) // _HOLES + 1
    for rows in np.array_split(np.arange(len(row)), parts):
        part = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)
        window, hole = _pairs(late, np.clip(begin, part.start, part.stop), np.clip(end, part.start, part.stop))
        where = row[part], code[part], time[part]
        yield Chunk(*where, events, numbers, stored, known[part], window - part.start, hole)


def _pairs(hole: Ints, begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return (row, hole) for each row in [begin, end) of each hole, in order."""
    length = end - begin
    skipped = np.repeat(np.cumsum(length) - length, length)
    window = np.repeat(begin, length) + np.arange(length.sum()) - skipped
    holes = np.repeat(hole, length)
    order = np.lexsort((holes, window))
    return window[order], holes[order]
