"""Rows in memory where stored ones are expected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from windrow.clock import parse_time, to_micros
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa


@dataclass(frozen=True)
class MemoryTable:
    """Group rows in memory, for the point-in-time join; satisfies `windrow.features.join.Table`.

    Parameters
    ----------
    key
        Its name in errors.
    rows
        Keys, features and ``event_time``; ``known_at`` defaults to it, ``_seq`` to the row's number.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from windrow.stores.engine import engine
    >>> table = MemoryTable("profile_v1", pa.table({"card": [7], "event_time": times("2026-01-01")}))
    >>> table.scan(engine()).columns
    ('card', 'event_time', 'known_at', '_seq')
    """

    key: str
    rows: pa.Table

    def scan(self, con: Any, *, as_of: int | None = None) -> ir.Table:
        """Return every row (with ``_seq <= as_of``) as an Ibis table."""
        import ibis
        import pyarrow as pa

        rows = self.rows
        if KNOWN_AT not in rows.column_names:
            rows = rows.append_column(KNOWN_AT, rows.column(EVENT_TIME))
        if SEQ not in rows.column_names:
            rows = rows.append_column(SEQ, pa.array(range(rows.num_rows), pa.int64()))
        table = ibis.memtable(rows)
        return table if as_of is None else table.filter(table[SEQ] <= as_of)


def times(*moments: int | str | datetime) -> pa.Array:
    """Return a column of times: UTC microseconds, ISO text or aware datetimes.

    Examples
    --------
    >>> str(times(0, "1970-01-02")[1])
    '1970-01-02 00:00:00+00:00'
    """
    import pyarrow as pa

    return pa.array([micros(m) for m in moments], pa.timestamp("us", "UTC"))


def micros(moment: int | str | datetime) -> int:
    """Return UTC microseconds of a time in any of the forms that `times` takes."""
    if isinstance(moment, str):
        return parse_time(moment)
    return to_micros(moment) if isinstance(moment, datetime) else int(moment)
