"""The state of one entity: what its windows can be asked about from now on, bounded whatever the number of events.

Events are kept as they are while they are recent, so that a question about a moment ago, events of one moment and
events known later are answered exactly. Behind a watermark they are folded into tiles (`windrow.features.tile_rows`)
and traces (`windrow.features.traces`), whose number depends on the declared windows and not on the events. A state is
one bytes value; reading it needs NumPy and msgspec only.

Its parts, and the values of its events, stand in the order of names, whatever the order of the declaration: a release
that comes from a file has another one, and the fingerprint of a group knows of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from windrow.clock import SECOND
from windrow.errors import DataError, PastError
from windrow.features.agg import EXACT_EVENTS, Agg, Aggregate
from windrow.features.tile_rows import Level
from windrow.features.traces import Event, Firsts, Kinds, Newest, Series, Streaks, Trace, missing
from windrow.schema import Status

FORMAT = 2
_FLOOR = -(1 << 62)
SLACK = 60 * SECOND  # how long an event stays recent, measured by the newest one's event time
RECENT = 32  # recent events that a read goes through; above it older ones are folded sooner

_TILED = ("count", "sum", "mean", "std", "min", "max")


class _State(msgspec.Struct, array_like=True, gc=False):
    """Format, watermark, event time and known_at of the newest event, whether anything was folded, and the parts."""

    format: int
    watermark: int
    newest: int
    known: int
    folded: bool
    recent: list[Event]
    blocks: list[memoryview]


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_State).decode


class Tiles:
    """Reads and appends to the states of one aggregate group.

    Parameters
    ----------
    spec
        Of the whole group: a state holds all of its features.

    Examples
    --------
    >>> from windrow.features import agg
    >>> spec = Aggregate("sources/p", ("card",), "id", {"amount": "float64"}, {"sum": agg.sum("amount", "1h"), "n": agg.count("1h")})
    >>> tiles = Tiles(spec)
    >>> state = tiles.append(tiles.empty(), [Event(10, 10, 1, (2.5,)), Event(20, 20, 2, (1.0,))])
    >>> tiles.values(state, 21), tiles.values(state, 20), tiles.values(None, 20)
    (((3.5, 2), 0), ((2.5, 1), 0), ((0.0, 0), 2))
    """

    def __init__(self, spec: Aggregate) -> None:
        self._names = sorted(spec.columns)
        self._places = [list(spec.columns).index(name) for name in self._names]
        self._parts = _parts(spec, {name: spec.columns[name] for name in self._names})
        self._bools = [i for i, made in enumerate(spec.features.values()) if made.dtype(spec.columns) == "bool"]
        self._nothing = [0 if made.kind in ("count", "distinct", "streak") else 0.0 if made.kind == "sum" else None
                         for made in spec.features.values()]  # fmt: skip

    def empty(self) -> bytes:
        """Return the state of an entity without events."""
        return _encode((FORMAT, _FLOOR, _FLOOR, _FLOOR, False, [], [b""] * len(self._parts)))

    def append(self, state: bytes | None, events: Iterable[Event]) -> bytes:
        """Return the state with `events` added; those with an id that is recent count once, the first known one.

        Raises
        ------
        DataError
            If a function that keeps each event would have to keep more than 10,000.
        """
        made = self._read(state or self.empty())
        recent = {_identity(event, i): event for i, event in enumerate(made.recent)}
        for i, event in enumerate(events, len(recent)):
            given = event[3]
            values = tuple(None if missing(given[place]) else given[place] for place in self._places)
            clean = Event(event[0], event[1], event[2], values)
            _keep_first(recent, _identity(event, i), clean)
            made.newest, made.known = max(made.newest, event[0]), max(made.known, event[1])
        made.recent = sorted(recent.values(), key=lambda event: event.usable)
        self._fold(made)
        return _encode(made)

    def values(
        self, state: bytes | memoryview | None, t: int, current: Mapping[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], int]:
        """Return the group's features at `t`, in the order of the spec, and their `Status`.

        Parameters
        ----------
        state
            None where the entity is unknown.
        t
            UTC microseconds.
        current
            Columns of the request's own event, where a function includes it.

        Raises
        ------
        PastError
            If `t` lies before what the state still tells apart.
        """
        own = None if current is None else tuple(current.get(name) for name in self._names)
        own = None if own is None else tuple(None if missing(v) else v for v in own)
        made = self._read(state) if state is not None else self._read(self.empty())
        if t < made.watermark:
            raise PastError("An entity is asked about a time before the events that were summed up", next_step=_NEXT)
        recent = [event for event in made.recent if event[0] < t and event[1] <= t]
        answer = self._nothing.copy()
        for part, block in zip(self._parts, made.blocks, strict=True):
            part.read(block, t, recent, own, answer)
        for place in self._bools:
            answer[place] = None if answer[place] is None else bool(answer[place])
        return tuple(answer), int(Status.PRESENT if made.folded or recent else Status.NOT_FOUND)

    def newest(self, state: bytes) -> tuple[int, int]:
        """Return the greatest event time and known_at of the events appended."""
        made = self._read(state)
        return made.newest, made.known

    def watermark(self, state: bytes) -> int:
        """Return the first time that can be asked about."""
        return self._read(state).watermark

    def _fold(self, made: _State) -> None:
        """Move the watermark on and fold what nothing can be asked about any more without it."""
        watermark = max(made.watermark, made.newest - SLACK)
        if len(made.recent) > RECENT:
            # Never beyond the newest event: what is known later stays apart however much it is.
            watermark = max(watermark, min(made.recent[-RECENT - 1].usable, made.newest))
        count = sum(event.usable <= watermark for event in made.recent)
        if len(made.recent) - count > EXACT_EVENTS:
            raise DataError(
                f"An entity has more than {EXACT_EVENTS:,} events that are not known yet",
                next_step="push events when they are known",
            )
        if watermark > made.watermark:
            made.watermark = watermark
        if count:
            gone, made.folded = made.recent[:count], True
            made.blocks = [p.fold(b, gone, watermark) for p, b in zip(self._parts, made.blocks, strict=True)]
            made.recent = made.recent[count:]

    def _read(self, state: bytes | memoryview) -> _State:
        made = _decode(state)
        if made.format != FORMAT or len(made.blocks) != len(self._parts):
            raise DataError(
                "An entity's state was written by another definition of its group",
                next_step="raise the group's version, and materialize it again",
            )
        return made


_NEXT = "ask about now; the past is answered by training data and batch scoring"


def _identity(event: Event, number: int) -> Any:
    return ("", number) if event[2] is None else event[2]


def _keep_first(recent: dict[Any, Event], key: Any, event: Event) -> None:
    kept = recent.get(key)
    if kept is None or (max(event[0], event[1]), event[0]) < (max(kept[0], kept[1]), kept[0]):
        recent[key] = event


def _parts(spec: Aggregate, columns: Mapping[str, str]) -> list[Any]:
    """Put functions that share what they keep into one part each, in the order of their first one."""
    places = {name: place for place, name in enumerate(spec.features)}
    chosen: dict[Any, dict[int, Agg]] = {}
    for name in sorted(spec.features):
        made = spec.features[name]
        chosen.setdefault(_part_key(made), {})[places[name]] = made
    return [_part(key[0], functions, columns) for key, functions in chosen.items()]


def _part_key(made: Agg) -> tuple[Any, ...]:
    if made.kind in _TILED:
        return Level, made.hop
    kind = {"distinct": Kinds, "streak": Streaks, "last": Firsts if made.delay else Newest, "first": Firsts}[made.kind]
    by_tile = kind is Firsts or made.delay > 0
    return kind, made.kind, made.column, made.where, made.delay > 0, made.hop if by_tile else 0


def _part(kind: Any, functions: Mapping[int, Agg], columns: Mapping[str, str]) -> Level | Trace:
    made = next(iter(functions.values()))
    if kind is Level:
        return Level(made.hop, functions, columns)
    series = Series.of(made.column, made.where, list(columns))
    trace: Trace = kind(functions, series, columns[made.column or ""])
    return trace
