"""What an event does to the online store: a group's row replaces an older one, a source's event enters its entities' states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from windrow.errors import WindrowError
from windrow.features.agg import Aggregate
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.events import Parked
from windrow.stores.ingest.judge import Event
from windrow.stores.online.store import Key, OnlineStore, Row
from windrow.stores.online.transaction import Transaction
from windrow.stores.segments import SegmentId
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    from windrow.features.tiles import Tiles

STATE = ("state",)  # the one column of an entity's state


class Unfit(Exception):  # noqa: N818 - not an error of the caller: these events go aside, and the others go on
    """Some events cannot be applied.

    Attributes
    ----------
    events, reason
        Which, and why.
    """

    def __init__(self, events: Sequence[Event], reason: str) -> None:
        self.events, self.reason = list(events), reason
        super().__init__(reason)

    def parked(self, worker: str) -> dict[SegmentId, list[Parked]]:
        """Return them as parked rows, by segment."""
        found: dict[SegmentId, list[Parked]] = {}
        for event in self.events:
            row = Parked(event.offset, event.row, self.reason)
            found.setdefault(SegmentId(worker, event.number), []).append(row)
        return found


def declare(online: OnlineStore, stream: Stream, known: set[tuple[str, tuple[str, ...]]]) -> str:
    """Make the groups that a stream's events go to, once; return why that cannot be, or ``""``."""
    groups = [(stream.online, stream.features)] if stream.online else []
    groups += [(name, STATE) for name in stream.aggregates]
    for name, columns in groups:
        if name is not None and (name, columns) not in known:
            if online.columns(name) not in (None, columns):
                return f"group {name} is online with other columns: raise its version"
            online.write(name, columns, [])
            known.add((name, columns))
    return ""


def put(txn: Transaction, events: Sequence[Event]) -> int:
    """Store rows of a feature group, unless a newer one is there; return how many rows were looked at.

    Raises
    ------
    Unfit
        If keys have other types than those that are online.
    """
    stream = events[0].stream
    if stream.online is None:
        return 0
    _check_keys(txn, stream.online, events, stream.keys)
    txn.read([(stream.online, event.pick(stream.keys)) for event in events])  # one trip to the store for all
    for event in events:
        row = Row(event.event_time, event.known_at, next_seq(), event.pick(stream.features))
        txn.put(stream.online, event.pick(stream.keys), row)
    return len(events)


def fold(txn: Transaction, events: Sequence[Event]) -> int:
    """Bring events of a source into the states of its entities; of one id the first that came counts.

    Raises
    ------
    Unfit
        If an entity's state cannot take an event.
    """
    stream = events[0].stream
    if not stream.aggregates:
        return 0
    if stream.id is not None:
        txn.expect(stream.name, [event.value(stream.id) for event in events])  # one trip to the store for all
    fresh = events if stream.id is None else [e for e in events if not _seen(txn, e)]
    for group, spec in stream.aggregates.items():
        append(txn, group, spec, fresh)
    return len(fresh)


def append(txn: Transaction, group: str, spec: Aggregate, events: Sequence[Event]) -> None:
    """Append events to the states of one aggregate group, whether or not they were seen before."""
    found: dict[Key, list[Event]] = {}
    for event in events:
        key = event.pick(spec.keys)
        if None not in key:
            found.setdefault(key, []).append(event)
    _check_keys(txn, group, [own[0] for own in found.values()], spec.keys)
    rows = txn.read([(group, key) for key in found])
    for (key, own), row in zip(found.items(), rows, strict=True):
        txn.set(group, key, _appended(tiles(group, spec), row, own, columns=tuple(spec.columns)))


def _check_keys(txn: Transaction, group: str, events: Sequence[Event], keys: tuple[str, ...]) -> None:
    # Asked before the store refuses: what it raises may be its own failure, and then nobody is to blame.
    types = txn.entry(group).key
    wrong = [e for e in events if types and tuple(type(part).__name__ for part in e.pick(keys)) != types]
    if wrong:
        raise Unfit(wrong, f"group {group} is online with keys of other types: raise its version")


def _seen(txn: Transaction, event: Event) -> bool:
    stream = event.stream
    return txn.seen(stream.name, event.value(stream.id or ""), until=event.event_time + stream.remembered)


def _appended(made: Tiles, row: Row | None, own: Sequence[Event], *, columns: tuple[str, ...]) -> Row:
    state = row.values[0] if row is not None else made.empty()
    entered = [_entered(event, columns) for event in own]
    try:
        state = made.append(state, entered)
    except Exception as error:  # noqa: BLE001 - whatever an event does to its state, the others go on
        raise Unfit(_guilty(made, state, own, entered=entered), _told(error)) from error
    newest = max((event.event_time, event.known_at) for event in own)
    event_time, known_at = newest if row is None else max(newest, (row.event_time, row.known_at))
    return Row(event_time, known_at, next_seq(), (state,))


def _guilty(made: Tiles, state: bytes, own: Sequence[Event], *, entered: Sequence[Any]) -> list[Event]:
    """Return the events that a state does not take, each after the ones it does."""
    guilty = []
    for event, one in zip(own, entered, strict=True):
        try:
            state = made.append(state, [one])
        except Exception:  # noqa: BLE001 - as above
            guilty.append(event)
    return guilty or list(own)


def _told(error: Exception) -> str:
    return error.what if isinstance(error, WindrowError) else f"{type(error).__name__}: {error}"[:300]


def _entered(event: Event, columns: tuple[str, ...]) -> Any:
    from windrow.features.traces import Event as Entered

    # Without an id each event is one: what was applied is never read again.
    id_ = event.value(event.stream.id) if event.stream.id else None
    return Entered(event.event_time, event.known_at, id_, event.pick(columns))


def tiles(group: str, spec: Aggregate) -> Tiles:
    """Return what keeps the states of an aggregate group; made once."""
    found = _tiles.get(group)
    if found is None or found[0] != spec:
        from windrow.features.tiles import Tiles

        found = _tiles[group] = (spec, Tiles(spec))
    return found[1]


_tiles: dict[str, tuple[Aggregate, Tiles]] = {}
