"""From segments to the lake, in micro-batches: each accepted event once, then the segments are deleted.

As in `windrow.stores.committer`, whole segments of a worker are committed in their order, and each table remembers
the last one: Delta takes the same transaction twice, the check before it and the one applier do not.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.features.arrow import registered
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.engine import engine
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.events import Batch, Position, batches, forget, listing, parked
from windrow.stores.ingest.judge import Event, judge, to_table
from windrow.stores.ingest.marks import Marked, Marks
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.segments import DAMAGED, OPEN, SEALED, SegmentId, lock_if_dead, read_segment

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger("windrow.applier")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_BATCH_BYTES = 64 << 20  # of segments in one commit, so that memory stays bounded after a long stop


class Committed(NamedTuple):
    """Rows that one commit brought to a table of the lake; times in UTC microseconds."""

    stream: Stream
    rows: int
    first: int
    last: int
    known: int


class Refused(NamedTuple):
    """One row for the quarantine: when it came, why it is there, and what it says, as JSON or text."""

    received_at: int
    reasons: str
    row: str


class _Rows(NamedTuple):
    """What a worker's segments hold, each with its segment."""

    good: dict[str, list[tuple[SegmentId, Event]]]
    bad: dict[str, list[tuple[SegmentId, Refused]]]
    damaged: set[SegmentId]


class LakeCommitter:
    """Commits segments that are online already; one process per host at a time.

    Parameters
    ----------
    marks
        Say where this home's applier stands.
    folder
        Folder of all segments.
    lake
        Where tables ``sources/<name>``, ``features/<group>_vN`` and ``quarantine/<name>`` are.
    online
        Says up to where a worker's segments are online.
    find
        Returns the stream that is declared under a name, or None.
    """

    def __init__(
        self, marks: Marks, folder: Path, lake: Lake, *, online: Marked, find: Callable[[str], Stream | None]
    ) -> None:
        self._marks, self._folder, self._lake = marks, folder, lake
        self._online, self._find = online, find

    def commit(self) -> list[Committed]:
        """Commit every finished segment that is online, and delete it; return what was committed.

        Raises
        ------
        WindrowError
            If a commit fails; nothing of it is lost, the next call tries again. The other workers' segments,
            and the other tables of these, are committed all the same.
        """
        made, failed = list[Committed](), list[Exception]()
        for worker, own in groupby(listing(self._folder), key=lambda segment: segment.worker):
            for batch in self._finished(worker, list(own)):
                try:
                    made += self._commit(batch, failed)
                except OSError as error:
                    failed.append(error)
        if failed:
            raise failed[0]
        return made

    def _finished(self, worker: str, own: Sequence[SegmentId]) -> Iterator[dict[SegmentId, bytes]]:
        """Yield batches of segments that nobody writes any more and that are online as a whole."""
        batch, size, online = dict[SegmentId, bytes](), 0, self._marks.position(self._online, worker)
        for segment in own:
            lock = None
            if not segment.path(self._folder, SEALED).exists():
                lock = lock_if_dead(segment.path(self._folder, OPEN))
                if lock is None:
                    break
                os.close(lock)  # dead for ever: the name of a segment is never given again
            data = read_segment(self._folder, segment) or b""
            if not _is_online(segment, data, online):
                break
            batch[segment] = data
            size += len(data)
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = {}, 0
        if batch:
            yield batch

    def _commit(self, batch: dict[SegmentId, bytes], failed: list[Exception]) -> list[Committed]:
        rows, made, before = self._read(batch), list[Committed](), len(failed)
        last = next(reversed(batch))
        for name in sorted(rows.good):
            made += _tried(lambda name=name: self._commit_rows(rows.good[name], last), failed)  # type: ignore[misc]
        for name in sorted(rows.bad):
            _tried(lambda name=name: self._set_aside(name, rows.bad[name], last), failed)  # type: ignore[misc]
        for segment in batch if len(failed) == before else ():
            _remove(self._folder, segment, keep=segment in rows.damaged)
        return made

    def _read(self, batch: Mapping[SegmentId, bytes]) -> _Rows:
        rows = _Rows({}, {}, set())
        for segment, data in batch.items():
            aside = parked(self._folder, segment)
            for offset, made in batches(data):
                if made is None:
                    rows.damaged.add(segment)
                else:
                    self._sort_out(segment, offset, made, aside=aside, rows=rows)
        return rows

    def _sort_out(
        self, segment: SegmentId, offset: int, batch: Batch, *, aside: Mapping[tuple[int, int], str], rows: _Rows
    ) -> None:
        stream = self._find(batch.name)
        events, wrong = judge(batch, stream, (segment.number, offset))
        reasons = {one.row: one.reason for one in wrong}
        # What could not be applied online is parked, whatever is thought of it now.
        reasons |= {row: reason for (at, row), reason in aside.items() if at == offset}
        for event in events:
            if event.row not in reasons:
                rows.good.setdefault(event.stream.name, []).append((segment, event))
        bad = [(segment, _refused(batch, row, reason)) for row, reason in sorted(reasons.items())]
        bad += [(segment, Refused(batch.received_at, reason, text)) for text, reason in batch.refused]
        if bad:
            rows.bad.setdefault(stream.quarantine if stream else _quarantine(batch.name), []).extend(bad)

    def _commit_rows(self, rows: Sequence[tuple[SegmentId, Event]], last: SegmentId) -> list[Committed]:
        stream = rows[0][1].stream
        table = self._lake.table(stream.key)
        # Held against who reads a file into the table meanwhile, and who loads the online store from it.
        with table.locked():
            return self._append(table, stream, rows=rows, last=last)

    def _append(
        self, table: LakeTable, stream: Stream, *, rows: Sequence[tuple[SegmentId, Event]], last: SegmentId
    ) -> list[Committed]:
        fresh = _fresh(table, rows, self._marks.app(last.worker))
        if not fresh:
            return []
        rows_ = to_table(fresh)
        waves = [rows_] if stream.id is None else _without_copies(table, rows_, stream)
        order = [(name, "ascending") for name in (*stream.keys, EVENT_TIME)]
        for number, wave in enumerate(waves):
            # Only the last one ends the batch: after a crash between two, the first is found by its ids.
            done = (self._marks.app(last.worker), last.number) if number == len(waves) - 1 else None
            table.append(wave.sort_by(order), transaction=done)
        times, known = [event.event_time for event in fresh], max(event.known_at for event in fresh)
        return [Committed(stream, sum(wave.num_rows for wave in waves), min(times), max(times), known)]

    def _set_aside(self, key: str, rows: Sequence[tuple[SegmentId, Refused]], last: SegmentId) -> list[Committed]:
        table = self._lake.table(key)
        fresh = _fresh(table, rows, self._marks.app(last.worker))
        if fresh:
            table.append(_refusals(fresh), transaction=(self._marks.app(last.worker), last.number))
        return []


def _quarantine(name: str) -> str:
    return f"quarantine/{name}" if _NAME.fullmatch(name) else "quarantine/_other"


def _is_online(segment: SegmentId, data: bytes, online: Position) -> bool:
    if segment.number != online.number:
        return segment.number < online.number
    return all(offset < online.offset for offset, _ in batches(data))


def _fresh(table: LakeTable, rows: Sequence[tuple[SegmentId, Any]], app: str) -> list[Any]:
    """Return what the table does not have yet: all rows of a segment came to it together."""
    done = table.transaction_version(app)
    return [row for segment, row in rows if done is None or segment.number > done]


def _tried(work: Callable[[], list[Committed]], failed: list[Exception]) -> list[Committed]:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - told by the caller: one table's rows do not wait for another's
        failed.append(error)
        return []


def _without_copies(table: LakeTable, rows: pa.Table, stream: Stream) -> list[pa.Table]:
    """Leave out events that are there already; return the others, an event's later values in a later table."""
    import pyarrow as pa

    compared = [name for name in rows.column_names if name != KNOWN_AT]
    newest = _stored(table, rows, stream, compared) if table.exists else {}
    waves = list[list[int]]()
    kept: dict[Any, int] = {}
    for number, values in enumerate(_plain(rows.select(compared))):
        id = values[compared.index(stream.id)]
        if newest.get(id) != values:
            # Rows of one commit have one `_seq`: which of them is in force could not be told.
            wave = kept[id] = kept.get(id, -1) + 1
            waves += [[]] * (wave == len(waves))
            waves[wave].append(number)
        newest[id] = values
    return [rows.take(pa.array(wave, pa.int64())) for wave in waves]


def _stored(table: LakeTable, rows: pa.Table, stream: Stream, compared: Sequence[str]) -> dict[Any, tuple[Any, ...]]:
    if not set(compared) <= set(table.schema.names):
        return {}  # the append says what is wrong with it
    con = engine()
    with registered(con, rows.select([stream.id])) as ids:
        stored = table.scan(con).semi_join(ids, stream.id).select(*compared, SEQ).order_by(SEQ).to_pyarrow()
    place = compared.index(stream.id)
    return {values[place]: values for values in _plain(stored.select(compared))}


def _plain(rows: pa.Table) -> list[tuple[Any, ...]]:
    import pyarrow as pa

    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in rows.columns]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _refused(batch: Batch, row: int, reason: str) -> Refused:
    import msgspec

    values = batch.rows[row]
    given = dict(zip((*batch.fields, KNOWN_AT), values, strict=False)) if len(values) > 1 else {"values": values}
    return Refused(batch.received_at, reason, msgspec.json.encode(given).decode())


def _refusals(rows: Sequence[Refused]) -> pa.Table:
    import pyarrow as pa

    times = pa.array([row.received_at for row in rows], pa.int64()).cast(pa.timestamp("us", "UTC"))
    texts = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in ("reasons", "row")}
    return pa.table({"received_at": times, **texts})


def _remove(folder: Path, segment: SegmentId, *, keep: bool) -> None:
    if keep:
        _LOG.error("segment %s is damaged: what could be read is committed, the file is kept as %s", segment, DAMAGED)
        for ending in (OPEN, SEALED):
            path = segment.path(folder, ending)
            if path.exists():
                path.rename(segment.path(folder, DAMAGED))
    forget(folder, segment)
