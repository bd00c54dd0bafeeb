"""One look-up of one group at many times: which row was the newest known one, and its values.

Two steps, so that sorting touches only keys and times, and wide rows are read once:

1. ASOF join of the spine's (keys, t) with the table's (keys, eff), ``eff = max(event_time, known_at)``.
   Where a row can become known after a later event of its key (`known_at` is not event time plus
   one fixed delay), rows that a row with smaller or equal eff surpasses are dropped first: a RANGE
   frame over eff, peers included, keeps the rows whose event time is the greatest so far.
2. Hash join of what was found with the table for the values. Rows of a key that share their eff come
   back together; the greatest by (event_time, known_at, _seq) is taken. Equal event times need no other
   care: the one with the greater eff is the one with the greater known_at.

The result is a row number per spine row, so the spine's order costs no sort.
"""
# ruff: noqa: S608 - the statements hold quoted identifiers, names made here and whole numbers, no values of others

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow.errors import SchemaError, TimeError, UnknownNameError
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, Status

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

_ROW, _TIME = "_row", "_t"
_EFF = f"epoch_us(greatest({EVENT_TIME}, {KNOWN_AT}))"
# Below this many spine rows it pays to look first which keys are wanted at all.
_FEW = 100_000


@dataclass(frozen=True)
class Read:
    """One group read by one choice of keys.

    Attributes
    ----------
    name
        Key of the table, for errors.
    keys
        Key of the table -> field of the spine.
    columns
        Columns of the table to fetch.
    ttl
        Microseconds, or None.
    """

    name: str
    keys: dict[str, str]
    columns: tuple[str, ...]
    ttl: int | None


@dataclass(frozen=True)
class Found:
    """What a read found for n spine rows.

    Attributes
    ----------
    rows
        The rows fetched: the read's columns and ``event_time``.
    place
        int64 of shape (n,): position in `rows`, -1 where nothing was known yet.
    expired
        bool of shape (n,): found, but older than the read's TTL.
    """

    rows: pa.Table
    place: NDArray[np.int64]
    expired: NDArray[np.bool_]

    def values(self, column: str) -> pa.ChunkedArray:
        """Return `column` for every spine row; null where nothing was found or it has expired."""
        return self._take(column, (self.place < 0) | self.expired)

    def event_times(self) -> pa.ChunkedArray:
        """Return the event time of the row found, expired or not; null where nothing was found."""
        return self._take(EVENT_TIME, self.place < 0)

    def statuses(self) -> pa.Array:
        """Return the `Status` of every spine row as int8: PRESENT, NOT_FOUND or EXPIRED."""
        found = np.where(self.expired, Status.EXPIRED, Status.PRESENT)
        return pa.array(np.where(self.place < 0, Status.NOT_FOUND, found).astype(np.int8))

    def _take(self, column: str, missing: NDArray[np.bool_]) -> pa.ChunkedArray:
        return self.rows.column(column).take(pa.array(self.place, mask=missing))


@contextmanager
def spine_in_engine(con: Backend, spine: pa.Table, fields: Sequence[str]) -> Iterator[str]:
    """Copy times and key `fields` of the spine into a temporary table for as long as the block runs.

    A copy, because DuckDB 1.5 takes a registered Arrow table for one row and plans a nested-loop join.

    Raises
    ------
    SchemaError
        If the spine lacks its event time or a key field, or has naive times.
    """
    narrow = {_ROW: pa.array(np.arange(spine.num_rows)), _TIME: spine_times(spine)}
    for field in fields:
        if field not in spine.column_names:
            raise UnknownNameError("column", field, spine.column_names, where="the spine")
        narrow[field] = spine.column(field)
    name = f"spine_{uuid4().hex}"
    con.con.register(f"{name}_arrow", pa.table(narrow))
    try:
        con.con.execute(f'CREATE TEMP TABLE {name} AS SELECT * FROM "{name}_arrow"')
    finally:
        con.con.unregister(f"{name}_arrow")
    try:
        yield name
    finally:
        con.con.execute(f"DROP TABLE IF EXISTS {name}")


def spine_times(spine: pa.Table) -> pa.ChunkedArray:
    """Return the spine's event times as int64 UTC microseconds."""
    if EVENT_TIME not in spine.column_names:
        raise SchemaError("The spine has no column 'event_time'", next_step="add one: timestamp[us, tz=UTC]")
    column = spine.column(EVENT_TIME)
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise TimeError(f"The spine's event_time is {column.type}", next_step="make it timestamp[us, tz=UTC]")
    return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def find(con: Backend, read: Read, *, table: Any, spine: str, times: pa.ChunkedArray) -> Found:
    """Return what `read` knows at every spine row.

    Parameters
    ----------
    con
        A DuckDB backend whose session time zone is UTC.
    table
        Every row of the group, as an Ibis table of `con`.
    spine
        Name of the temporary table made by `spine_in_engine`.
    times
        The spine's event times, int64 of length n.
    """
    # Also shows in-memory tables to the engine, which compiling alone does not.
    schema = con.to_pyarrow(table.limit(0)).schema
    _check_columns(read, schema, con.con.execute(f"SELECT * FROM {spine} LIMIT 0").to_arrow_table().schema)
    rows = _rows_until(con.compile(table), pc.max(times).as_py())
    matched = f"{spine}_found"
    try:
        count = _match(con, read, rows=rows, spine=spine, into=matched, few=len(times) <= _FEW)
        fetched = _fetch(con, read, rows=rows, matched=matched)
    finally:
        con.con.execute(f"DROP TABLE IF EXISTS {matched}")
    place = _places(fetched, len(times), matched=count)
    kept = fetched.select([*read.columns, EVENT_TIME] if EVENT_TIME not in read.columns else list(read.columns))
    return Found(kept, place, _expired(fetched, place, times=times, ttl=read.ttl))


def _rows_until(relation: str, last: int | None) -> str:
    # Nothing that happened later can be known at any spine row; a plain bound reaches the files' statistics.
    bound = "" if last is None else f" WHERE {EVENT_TIME} <= make_timestamptz({last}::BIGINT)"
    return f"(SELECT * FROM ({relation}){bound})"


def _match(con: Backend, read: Read, *, rows: str, spine: str, into: str, few: bool) -> int:
    keys = ", ".join(map(_quoted, read.keys))
    wanted = f"WHERE EXISTS (SELECT 1 FROM {spine} s WHERE {_same(read.keys, 's')})" if few else ""
    narrow = f"SELECT {keys}, {_EFF} AS _eff, epoch_us({EVENT_TIME}) AS _e FROM {rows} r {wanted}"
    if _can_be_late(con, rows):
        window = f"PARTITION BY {keys} ORDER BY _eff RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        narrow = f"SELECT * FROM ({narrow}) QUALIFY _e >= max(_e) OVER ({window})"
    query = (
        f"CREATE TEMP TABLE {into} AS SELECT s.{_ROW}, {', '.join('r.' + _quoted(k) for k in read.keys)}, r._eff "
        f"FROM {spine} s ASOF JOIN ({narrow}) r ON {_same(read.keys, 's')} AND s.{_TIME} >= r._eff"
    )
    return int(con.con.execute(query).fetchone()[0])


def _can_be_late(con: Backend, rows: str) -> bool:
    delay = f"{_EFF} - epoch_us({EVENT_TIME})"
    same = con.con.execute(f"SELECT max({delay}) = min({delay}) FROM {rows}").fetchone()[0]
    return same is False


def _fetch(con: Backend, read: Read, *, rows: str, matched: str) -> pa.Table:
    columns = dict.fromkeys((*read.columns, EVENT_TIME, KNOWN_AT, SEQ))
    same = " AND ".join(f"m.{_quoted(k)} = r.{_quoted(k)}" for k in read.keys)
    selected = ", ".join("r." + _quoted(c) for c in columns)
    return con.con.execute(
        f"SELECT m.{_ROW}, {selected} FROM (SELECT *, {_EFF} AS _eff FROM {rows}) r "
        f"JOIN {matched} m ON {same} AND m._eff = r._eff"
    ).to_arrow_table()


def _places(fetched: pa.Table, n: int, *, matched: int) -> NDArray[np.int64]:
    place = np.full(n, -1, dtype=np.int64)
    row = fetched.column(_ROW).to_numpy()
    if fetched.num_rows == matched:
        place[row] = np.arange(matched)
        return place
    # Rows of a key that became known in the same microsecond: the last assignment is the greatest one.
    rank = [_micros(fetched.column(c)) for c in (SEQ, KNOWN_AT, EVENT_TIME)]
    order = np.lexsort(rank)
    place[row[order]] = order
    return place


def _expired(
    fetched: pa.Table, place: NDArray[np.int64], *, times: pa.ChunkedArray, ttl: int | None
) -> NDArray[np.bool_]:
    expired = np.zeros(len(place), dtype=np.bool_)
    if ttl is None:
        return expired
    found = np.flatnonzero(place >= 0)
    age = times.to_numpy()[found] - _micros(fetched.column(EVENT_TIME))[place[found]]
    expired[found] = age > ttl
    return expired


def _micros(column: pa.ChunkedArray) -> NDArray[np.int64]:
    values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values


def _check_columns(read: Read, table: pa.Schema, spine: pa.Schema) -> None:
    for column in (*read.keys, *read.columns, EVENT_TIME, KNOWN_AT, SEQ):
        if column not in table.names:
            raise SchemaError(
                f"Table {read.name!r} has no column {column!r}",
                exists=f"It has {', '.join(map(repr, table.names))}",
                next_step="raise the group's version and materialize it again",
            )
    for key, field in read.keys.items():
        have, want = spine.field(field).type, table.field(key).type
        if pa.types.is_integer(have) != pa.types.is_integer(want):
            raise SchemaError(
                f"Spine column {field!r} is {have}, but key {key!r} of table {read.name!r} is {want}",
                next_step="give both one dtype",
            )


def _same(keys: Mapping[str, str], spine: str) -> str:
    return " AND ".join(f"{spine}.{_quoted(field)} = r.{_quoted(key)}" for key, field in keys.items())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
