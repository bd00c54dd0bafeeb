"""What single events leave behind in an entity's state: the newest value, the first of each tile, the different ones, runs.

Each trace holds what its functions can still be asked about from the watermark on, in one piece of memory, and is
read together with the recent events, which are not folded into it yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

import msgspec
import numpy as np

from windrow.errors import DataError
from windrow.features.agg import EXACT_EVENTS, LONGEST_STREAK, Agg

Block = bytes | memoryview

_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
_WORD = Struct("<q")


class Event(NamedTuple):
    """One event of an entity; `values` in the order of `Aggregate.columns`, times as UTC microseconds."""

    event_time: int
    known_at: int
    id: int | str | None
    values: tuple[Any, ...]

    @property
    def usable(self) -> int:
        """The first time that can count it: it was known, and had happened before."""
        return max(self.event_time + 1, self.known_at)


class Series(NamedTuple):
    """One column of the events that a filter lets through."""

    names: tuple[str | None, str | None]
    column: int
    where: int

    @classmethod
    def of(cls, column: str | None, where: str | None, columns: Sequence[str]) -> Series:
        """Find a column and a filter among an event's values."""
        at = [-1 if name is None else columns.index(name) for name in (column, where)]
        return cls((column, where), *at)

    def value(self, values: tuple[Any, ...]) -> Any:
        """Return an event's value, None where it does not count; True where events are counted."""
        if self.where >= 0 and not values[self.where]:
            return None
        return values[self.column] if self.column >= 0 else True


_Order = tuple[int, int, int, Any, Any]


def order(event: Event, value: Any) -> _Order:
    """Return what events are ordered by: event time, known_at, id, and the value where nothing else differs."""
    id = event[2]  # noqa: A001 - the field's own word
    return event[0], event[1], 0 if id is None else 1, 0 if id is None else id, value


class Trace:
    """What all functions of one kind over one series (and, with a delay, one hop) keep.

    Parameters
    ----------
    functions
        Place in the answer -> function.
    series
        What they are functions of.
    dtype
        Of the column.
    """

    def __init__(self, functions: Mapping[int, Agg], series: Series, dtype: str) -> None:
        self.functions = dict(functions)
        self.series = series
        self.text = dtype == "string"
        made = next(iter(functions.values()))
        self.hop, self.delayed = made.hop or 1, made.delay > 0
        self._keep = max(made.window + made.delay for made in functions.values())

    def oldest(self, watermark: int) -> int:
        """Return the first moment that anybody can ask about from `watermark` on."""
        return watermark - self._keep - max((made.hop or 1) for made in self.functions.values())

    def valued(self, events: Iterable[Event]) -> list[tuple[Event, Any]]:
        """Return the events that count, with their values."""
        found = [(event, self.series.value(event[3])) for event in events]
        return [(event, value) for event, value in found if value is not None]

    def own(self, made: Agg, own: tuple[Any, ...] | None) -> Any:
        """Return the value of the request's own event, None where it does not count."""
        return self.series.value(own) if made.include_current and own is not None else None


class Newest(Trace):
    """``last`` without a delay: the newest event that counts is the last one of every window that reaches it."""

    def fold(self, block: Block, events: Sequence[Event], watermark: int) -> Block:
        """Return the newest of what was kept and `events`."""
        found = [order(event, value) for event, value in self.valued(events)]
        if len(block):
            found.append(tuple(_unpack(block)))
        return _pack(max(found)) if found else b""

    def read(self, block: Block, t: int, recent: Sequence[Event], own: tuple[Any, ...] | None, into: list[Any]) -> None:
        """Put the functions' values into their places."""
        found = [order(event, value) for event, value in self.valued(recent)]
        if len(block):
            found.append(tuple(_unpack(block)))
        newest = max(found) if found else None
        for place, made in self.functions.items():
            mine = self.own(made, own)
            if mine is not None:
                into[place] = mine
            elif newest is not None and newest[0] >= made.tail(t):
                into[place] = newest[4]


class Firsts(Trace):
    """``first``, and ``last`` with a delay: one event per tile, found without reading the others.

    A block is the number of tiles, a row (tile, event time, offset, length) for each, and the events themselves.
    """

    _HEAD, _ROW = Struct("<q"), Struct("<qqqq")

    def __init__(self, functions: Mapping[int, Agg], series: Series, dtype: str) -> None:
        super().__init__(functions, series, dtype)
        self._exact = any(made.hop is None for made in functions.values())
        self._last = next(iter(functions.values())).kind == "last"

    def fold(self, block: Block, events: Sequence[Event], watermark: int) -> Block:
        """Return the tiles with `events`, without those that nobody can ask for."""
        found, oldest = self.valued(events), self.oldest(watermark)
        if len(found) < 2 and len(block) and self._HEAD.unpack_from(block, self._HEAD.size)[0] >= oldest:
            made = self._at_the_end(block, *found[0]) if found else block
            if made is not None:
                return made
        tiles = self._tiles(block)
        for event, value in found:
            tile = event[0] - event[0] % self.hop
            if tile >= oldest and (tile not in tiles or self._better(order(event, value), tiles[tile])):
                tiles[tile] = event[0], _pack(order(event, value))
        kept = {tile: tiles[tile] for tile in sorted(tiles) if tile >= oldest}
        if self._exact:
            _check_exact(len(kept))
        return self._joined(kept)

    def read(self, block: Block, t: int, recent: Sequence[Event], own: tuple[Any, ...] | None, into: list[Any]) -> None:
        """Put the functions' values into their places."""
        for place, made in self.functions.items():
            tail, head = made.tail(t), made.head(t)
            found = [order(event, value) for event, value in self.valued(recent) if tail <= event[0] < head]
            kept = self._kept(block, tail, head)
            found += [] if kept is None else [kept]
            mine = self.own(made, own)
            into[place] = (max(found) if self._last else min(found))[4] if found else mine

    def _at_the_end(self, block: Block, event: Event, value: Any) -> Block | None:
        """Add an event to the last tile or behind it, as most are, without reading the others; None if it is earlier."""
        (n,) = self._HEAD.unpack_from(block)
        rows = self._HEAD.size + (n - 1) * self._ROW.size
        text = rows + self._ROW.size
        tile, time, at, length = self._ROW.unpack_from(block, rows)
        mine = event[0] - event[0] % self.hop
        if mine < tile or (self._exact and n >= EXACT_EVENTS):
            return None
        if mine == tile:
            if not self._better(order(event, value), (time, bytes(block[text + at : text + at + length]))):
                return block
            n, kept, length = n - 1, block[self._HEAD.size : rows], 0
        else:
            kept = block[self._HEAD.size : text]
        new, end = _pack(order(event, value)), at + length
        row = self._ROW.pack(mine, event[0], end, len(new))
        return b"".join([self._HEAD.pack(n + 1), kept, row, block[text : text + end], new])

    def _better(self, new: _Order, old: tuple[int, bytes]) -> bool:
        if new[0] != old[0]:
            return (new[0] > old[0]) == self._last
        kept: _Order = tuple(_unpack(old[1]))
        return new > kept if self._last else new < kept

    def _tiles(self, block: Block) -> dict[int, tuple[int, bytes]]:
        if not len(block):
            return {}
        (n,) = self._HEAD.unpack_from(block)
        text = self._HEAD.size + n * self._ROW.size
        rows = self._ROW.iter_unpack(block[self._HEAD.size : text])
        return {tile: (time, bytes(block[text + at : text + at + length])) for tile, time, at, length in rows}

    def _joined(self, tiles: Mapping[int, tuple[int, bytes]]) -> bytes:
        if not tiles:
            return b""
        rows, at = [self._HEAD.pack(len(tiles))], 0
        for tile, (time, text) in tiles.items():
            rows.append(self._ROW.pack(tile, time, at, len(text)))
            at += len(text)
        return b"".join([*rows, *(text for _, text in tiles.values())])

    def _kept(self, block: Block, tail: int, head: int) -> _Order | None:
        if not len(block):
            return None
        (n,) = self._HEAD.unpack_from(block)
        text = self._HEAD.size + n * self._ROW.size
        starts = np.frombuffer(block[self._HEAD.size : text], np.int64)[::4]
        begin, end = np.searchsorted(starts, (tail, head)) if self.delayed else (np.searchsorted(starts, tail), n)
        if begin >= end:
            return None
        row = end - 1 if self._last else begin
        _, _, at, length = self._ROW.unpack_from(block, self._HEAD.size + int(row) * self._ROW.size)
        return tuple(_unpack(block[text + at : text + at + length]))


class Kinds(Trace):
    """``distinct``: when each value occurred last, or with a delay in which tiles; rows of (time, value) as int64."""

    def fold(self, block: Block, events: Sequence[Event], watermark: int) -> Block:
        """Return the values with those of `events`, without what nobody can ask for."""
        oldest, found = self.oldest(watermark), np.frombuffer(block, np.int64).reshape(-1, 2)
        fresh = [(self._time(event), word(value)) for event, value in self.valued(events) if event[0] >= oldest]
        if len(found) and found[:, 0].min() < oldest:
            found = found[found[:, 0] >= oldest]
        for time, value in fresh:
            same = np.flatnonzero(found[:, 1] == value)
            if self.delayed:
                same = same[found[same, 0] == time]
            if not len(same):
                found = np.append(found, [(time, value)], axis=0)
            elif time > found[same[0], 0]:
                found = found.copy()
                found[same[0], 0] = time
        if self.delayed and self.hop == 1:
            _check_exact(len(found))
        return found.tobytes()

    def read(self, block: Block, t: int, recent: Sequence[Event], own: tuple[Any, ...] | None, into: list[Any]) -> None:
        """Put the functions' values into their places."""
        kept = np.frombuffer(block, np.int64).reshape(-1, 2)
        near = [(event[0], word(value)) for event, value in self.valued(recent)]
        for place, made in self.functions.items():
            tail, head = made.tail(t), made.head(t)
            inside = kept[kept[:, 0] >= tail, 1]
            if self.delayed:
                inside = np.unique(kept[(kept[:, 0] >= tail) & (kept[:, 0] < head), 1])
            fresh = {value for time, value in near if tail <= time < head}
            mine = self.own(made, own)
            if mine is not None:
                fresh.add(word(mine))
            into[place] = len(inside) + sum(not (inside == value).any() for value in fresh)

    def _time(self, event: Event) -> int:
        return event[0] - event[0] % self.hop if self.delayed else event[0]


class Streaks(Trace):
    """``streak``: times in order, doubled, odd where the event was false, so that of one moment the false one is last."""

    def fold(self, block: Block, events: Sequence[Event], watermark: int) -> Block:
        """Return the times with those of `events`, without what no streak can reach."""
        oldest = self.oldest(watermark)
        fresh = [2 * event[0] + (not value) for event, value in self.valued(events) if event[0] >= oldest]
        kept = _in_order(block, fresh) if fresh else np.frombuffer(block, np.int64)
        kept = kept[kept.searchsorted(2 * oldest) :]
        false = (kept & 1).nonzero()[0]
        if not self.delayed:
            run = kept[false[-1] if len(false) else 0 :]
            return bytes(run[-LONGEST_STREAK - 1 :])
        # With a delay a window may end at any tile: what precedes the last false one of its tile is over.
        tiles = (kept >> 1) // self.hop
        last = np.flatnonzero(np.append(tiles[false][1:] != tiles[false][:-1], True))[: len(false)]
        ends = np.append(np.searchsorted(tiles[false[last]], tiles), 0)[:-1]
        places = np.append(false[last], -1)[ends]
        over = (places > np.arange(len(kept))) & (np.append(tiles[false[last]], -1)[ends] == tiles)
        kept = kept[~over]
        _check_exact(len(kept))
        return bytes(kept)

    def read(self, block: Block, t: int, recent: Sequence[Event], own: tuple[Any, ...] | None, into: list[Any]) -> None:
        """Put the functions' values into their places."""
        near = [2 * event[0] + (not value) for event, value in self.valued(recent)]
        kept = _in_order(block, near) if near else np.frombuffer(block, np.int64)
        for place, made in self.functions.items():
            begin, end = kept.searchsorted((2 * made.tail(t), 2 * made.head(t))).tolist()
            false = (kept[begin:end] & 1).nonzero()[0]
            run = end - begin if not len(false) else end - begin - false[-1] - 1
            mine = self.own(made, own)
            into[place] = min(int(run) + (mine is not None), LONGEST_STREAK) if mine is not False else 0


def _in_order(block: Block, times: list[int]) -> Any:
    """Return the times of a block and others, in order: most come behind."""
    times.sort()
    kept = np.frombuffer(b"".join([block, Struct(f"<{len(times)}q").pack(*times)]), np.int64)
    return kept if len(kept) == len(times) or kept[-len(times) - 1] <= times[0] else np.sort(kept)


def word(value: Any) -> int:
    """Return eight bytes that tell values of one dtype apart: a number's own, 64 bits of a text's BLAKE2.

    Examples
    --------
    >>> word(7), word(0.0) == word(-0.0), word("a") == word("b")
    (7, True, False)
    """
    if isinstance(value, str):
        return int(_WORD.unpack(blake2b(value.encode(), digest_size=8).digest())[0])
    if isinstance(value, float):
        return int(_WORD.unpack(Struct("<d").pack(value + 0.0))[0])
    return int(value)


def missing(value: Any) -> bool:
    """Return whether a value is none: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_exact(n: int) -> None:
    if n > EXACT_EVENTS:
        raise DataError(
            f"An entity has more than {EXACT_EVENTS:,} events in the window of a feature that keeps each of them",
            next_step="declare the feature with a hop, or without its delay",
        )
