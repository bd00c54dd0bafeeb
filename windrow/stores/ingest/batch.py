"""A source that takes events in may be read from a file too: what came as an event is not stored twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windrow.features.source import Source
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.difference import missing
from windrow.stores.ingest.declared import merged, streamed
from windrow.stores.metadata import Metadata, Span
from windrow.stores.reader import span

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa


def has_events(source: Source, metadata: Metadata) -> bool:
    """Return whether the source's table has rows that came as events."""
    return metadata.definition(streamed(source.key)) is not None


def nothing_to_read(source: Source, data: Path) -> bool:
    """Return whether a source has neither a file nor a simulator: its rows come as events only."""
    return source.simulator is None and not (source.file and (data / source.file.name).is_file())


def not_streamed(rows: pa.Table, source: Source, stored: ir.Table) -> pa.Table:
    """Return the rows that are not stored, compared without when they were known.

    An event is known when it arrives; a file says only when it could have been known. What is stored
    already stays as it is, however much later it arrived.

    Examples
    --------
    >>> import ibis
    >>> import pyarrow as pa
    >>> sales = Source("sales", id="n", event_time="at", columns={"n": "int64"})
    >>> at = lambda *times: pa.array(times, pa.timestamp("us", "UTC"))
    >>> stored = ibis.memtable(pa.table({"n": [1], "at": at(5), "event_time": at(5), "known_at": at(9)}))
    >>> rows = pa.table({"n": [1, 2], "at": at(5, 6), "event_time": at(5, 6), "known_at": at(5, 6)})
    >>> not_streamed(rows, sales, stored).column("n").to_pylist()
    [2]
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    every = source.id is None
    if source.known_at is not None:
        return missing(rows, stored, every=every)
    left = missing(rows.drop_columns([KNOWN_AT]), stored, every=every)
    known = pc.add(left.column(EVENT_TIME), pa.scalar(source.delay, pa.duration("us")))
    return left.append_column(KNOWN_AT, known).select(rows.column_names)


def joint_span(source: Source, rows: pa.Table, metadata: Metadata) -> dict[str, int]:
    """Return the span of what was read together with what came as events."""
    found = Span(**span(rows))
    before = metadata.spans().get(source.name)
    return merged(before, found._replace(rows=0) if before else found)._asdict()
