"""What came by stream while the states of an aggregate group were made anew from the lake: added in the step that shows them.

replay = Replay(stream, group.table_name, lake, folder)          # before the rows are read
rows = lake.table(group.source.key).scan(con, as_of=replay.seq)
publish_states(group, online, states(group, visible(rows, replay.until(now))), before=replay)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.clock import duration, from_micros
from windrow.features.arrow import registered
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.engine import engine
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.events import Position, batches, listing, parked
from windrow.stores.ingest.fold import append
from windrow.stores.ingest.judge import Event, judge
from windrow.stores.ingest.later import LATER, earliest
from windrow.stores.ingest.marks import Marks
from windrow.stores.lake import Lake
from windrow.stores.online.load import attempt
from windrow.stores.online.store import TXN_ROWS, OnlineStore
from windrow.stores.online.transaction import Transaction
from windrow.stores.segments import MAGIC, SegmentId, read_segment

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

_REMEMBERED = duration("200d")  # twice the longest window, because other groups read the same ids


class Replay:
    """Adds to freshly loaded states the events that are online and that the load did not see.

    Parameters
    ----------
    stream
        Of the source.
    group
        The aggregate group in the online store.
    lake, folder
        Where the source's rows are, and the segments.

    Attributes
    ----------
    seq
        The load reads rows with ``_seq`` up to this one, no others.
    """

    def __init__(self, stream: Stream, group: str, lake: Lake, folder: Path) -> None:
        self._stream, self._group, self._folder = stream, group, folder
        self._table, self._marks = lake.table(stream.key), Marks(folder)
        self._until: int | None = None
        with self._table.locked():
            # Nothing is on its way into the table now: whatever comes later has a greater `_seq`.
            self.seq = self._table.stats().seq if self._table.exists else 0

    def until(self, moment: int) -> int:
        """Return the time, `moment` at most, after which the load leaves rows out: later ones are held back still.

        Without this call the load has all rows, whenever they can be known.
        """
        held = earliest(self._folder / LATER, self._stream.name)
        self._until = moment if held is None else min(moment, held - 1)
        return self._until

    def remember(self, online: OnlineStore, *, now: int) -> int:
        """Let the ids of the rows that the load reads be known, so that such an event is not counted again.

        Returns
        -------
        int
            How many ids; of events so old that no window asks for them none.
        """
        stream = self._stream
        if stream.id is None or not self._table.exists:
            return 0
        rows = self._table.scan(engine(), as_of=self.seq)
        # What is held back is not in the load: its id is known when its time has come.
        loaded = rows if self._until is None else rows.filter(_usable(rows, self._until))
        rows = loaded.select(stream.id, EVENT_TIME).to_pyarrow()
        found = zip(_plain(rows.column(stream.id)), _plain(rows.column(EVENT_TIME)), strict=True)
        kept = [(id_, time) for id_, time in found if id_ is not None and time > now - _REMEMBERED]
        for start in range(0, len(kept), TXN_ROWS):
            chunk = kept[start : start + TXN_ROWS]
            attempt(online, partial(_remember, stream=stream, items=chunk))
        return len(kept)

    def __call__(self, txn: Transaction) -> None:
        """Append what the load did not see to the states; in the transaction that switches to them."""
        shown = self._marks.shown(txn)
        with self._table.locked():
            events = [*self._stored(shown), *self._waiting(txn, shown)]
            missed = self._first_ones(events)
        append(txn, self._group, self._stream.aggregates[self._group], missed)

    def _stored(self, shown: int | None) -> list[Event]:
        """Return the events in the lake that the load left out and that are online."""
        if not self._table.exists:
            return []
        rows = self._table.scan(engine())
        missed = rows[SEQ] > self.seq
        if self._until is not None:
            missed = missed | ~_usable(rows, self._until)
        wanted = rows.filter(missed if shown is None else missed & _usable(rows, shown))
        names = [*self._stream.names, KNOWN_AT]
        found = wanted.order_by(SEQ).select(list(dict.fromkeys(names))).to_pyarrow()
        return [self._event(values) for values in zip(*(_plain(found.column(name)) for name in names), strict=True)]

    def _event(self, values: Sequence[Any]) -> Event:
        event = values[self._stream.names.index(self._stream.event_time)]
        return Event(0, 0, 0, self._stream, tuple(values[:-1]), event, values[-1])

    def _waiting(self, txn: Transaction, shown: int | None) -> Iterator[Event]:
        """Yield the events that are online and not in the lake yet."""
        done: dict[str, int] = {}
        for segment in listing(self._folder):
            if segment.worker not in done:
                version = self._table.transaction_version(self._marks.app(segment.worker))
                done[segment.worker] = -1 if version is None else version
            if segment.number > done[segment.worker]:
                for event in self._of_segment(segment, self._marks.position(txn, segment.worker)):
                    if shown is None or max(event.event_time, event.known_at) <= shown:
                        yield event

    def _of_segment(self, segment: SegmentId, online: Position) -> Iterator[Event]:
        aside = parked(self._folder, segment)
        for offset, batch in batches(read_segment(self._folder, segment) or MAGIC):
            if batch is None or batch.name != self._stream.name or Position(segment.number, offset) >= online:
                continue
            for event in judge(batch, self._stream, (segment.number, offset))[0]:
                if (offset, event.row) not in aside:
                    yield event

    def _first_ones(self, events: Sequence[Event]) -> list[Event]:
        """Leave out events of an id that the load has seen, and all but the first of one id."""
        id = self._stream.id  # noqa: A001 - the field's own word
        if id is None or not events:
            return list(events)
        known = self._loaded([event.value(id) for event in events])
        first: dict[Any, Event] = {}
        for event in events:
            if event.value(id) not in known:
                first.setdefault(event.value(id), event)
        return list(first.values())

    def _loaded(self, ids: Sequence[Any]) -> set[Any]:
        import pyarrow as pa

        id = self._stream.id or ""  # noqa: A001 - the field's own word
        if not self._table.exists:
            return set()
        con = engine()
        with registered(con, pa.table({id: pa.array(ids, self._table.schema.field(id).type)})) as wanted:
            rows = self._table.scan(con, as_of=self.seq)
            if self._until is not None:
                rows = rows.filter(_usable(rows, self._until))
            return set(rows.semi_join(wanted, id)[id].to_pyarrow().to_pylist())


def _usable(rows: ir.Table, moment: int) -> Any:
    """Return whether each row has happened and is known at `moment`."""
    import ibis

    time = ibis.literal(from_micros(moment), type=rows[EVENT_TIME].type())
    return (rows[EVENT_TIME] <= time) & (rows[KNOWN_AT] <= time)


def _plain(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values


def _remember(txn: Transaction, stream: Stream, items: Sequence[tuple[Any, int]]) -> None:
    for id_, time in items:
        txn.seen(stream.name, id_, until=time + _REMEMBERED)
