"""What a run of a source means for the rows that are stored: a part of them, all of them, or what came since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windrow.features.arrow import registered
from windrow.stores.engine import engine
from windrow.stores.metadata import Metadata
from windrow.stores.reader import span

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

    from windrow.features.source import Source
    from windrow.stores.lake import LakeTable


def watermark(source: Source, table: LakeTable, metadata: Metadata) -> int | None:
    """Return the newest known-at that is stored (UTC microseconds) if only later rows are to be read, else None."""
    if source.load != "incremental" or not table.exists:
        return None
    span = metadata.spans().get(source.name)
    return span.known if span else None


def delete_vanished(source: Source, table: LakeTable, rows: pa.Table, stored: ir.Table) -> int:
    """Delete what a full load does not have any more; return how many rows.

    Rows vanish by their id. Without one they count: of three equal rows two may vanish. All three are
    deleted then, and the caller appends the one that is left.

    Parameters
    ----------
    rows
        All there is.
    stored
        The rows in force, on this thread's engine.
    """
    import pyarrow as pa

    columns = [source.id] if source.id else rows.column_names
    with registered(engine(), rows) as given:
        gone = stored.select(columns).difference(given.select(columns), distinct=source.id is not None).to_pyarrow()
    if gone.num_rows:
        table.delete(gone.cast(pa.schema([rows.schema.field(name) for name in columns])), on=columns)
    return int(gone.num_rows)


def joined_span(source: Source, rows: pa.Table, metadata: Metadata, since: int | None) -> dict[str, int]:
    """Return what the source holds: `rows`, or where only those after `since` were read these and the earlier ones."""
    before = metadata.spans().get(source.name)
    if before is None or since is None:
        return span(rows)
    if not rows.num_rows:
        return before._asdict()
    new = span(rows)
    return {
        "first": min(before.first, new["first"]),
        "last": max(before.last, new["last"]),
        "known": max(before.known, new["known"]),
        "rows": before.rows + new["rows"],
    }
