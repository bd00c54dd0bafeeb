"""One look-up of one group at many times: which row was the newest known one, and its values.

Few rows are asked of the engine, in two steps, so that sorting touches only keys and times:

1. ASOF join of the spine's (keys, t) with the table's (keys, eff), ``eff = max(event_time, known_at)``.
   Where a row can become known after a later event of its key (`known_at` is not event time plus
   one fixed delay), rows that a row with smaller or equal eff surpasses are dropped first: a RANGE
   frame over eff, peers included, keeps the rows whose event time is the greatest so far.
2. Hash join of what was found with the table for the values. Rows of a key that share their eff come
   back together; the greatest by (event_time, known_at, _seq) is taken. Equal event times need no other
   care: the one with the greater eff is the one with the greater known_at.

Many rows are found in one pass over the stored ones (`windrow.features.merge`), unless these lie in no order.
Either way the result is a place per spine row, so the spine's order costs no sort.
"""
# ruff: noqa: S608 - the statements hold quoted identifiers, names made here and whole numbers, no values of others

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from windrow.errors import SchemaError, TimeError, UnknownNameError
from windrow.features.merge import Matched, Needles, match
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, Status

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

_ROW, _TIME = "_row", "_t"
_EFF = f"epoch_us(greatest({EVENT_TIME}, {KNOWN_AT}))"
# Below this many spine rows it pays to look only at the keys that are wanted.
_FEW = 100_000
_BATCH = 250_000


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


@dataclass(frozen=True)
class Spine:
    """The rows asked about: key fields as Arrow, `times` as int64 UTC microseconds of shape (n,), both in a table of the engine."""

    name: str
    keys: pa.Table
    times: NDArray[np.int64]
    _needles: dict[tuple[str, ...], Needles] = field(default_factory=dict)

    def needles(self, fields: tuple[str, ...]) -> Needles:
        """Return what is asked by `fields`, sorted; once for all groups that are read by them."""
        if fields not in self._needles:
            self._needles[fields] = Needles.of([self.keys.column(f) for f in fields], self.times)
        return self._needles[fields]


@contextmanager
def spine_in_engine(con: Backend, rows: pa.Table, fields: Sequence[str]) -> Iterator[Spine]:
    """Copy times and key `fields` of the spine into a temporary table for as long as the block runs.

    A copy, because DuckDB 1.5 takes a registered Arrow table for one row and plans a nested-loop join.

    Raises
    ------
    SchemaError, TimeError, UnknownNameError
        If the spine lacks its event time or a key field, or has naive or missing times.
    """
    times = _times(rows)
    for name in fields:
        if name not in rows.column_names:
            raise UnknownNameError("column", name, rows.column_names, where="the spine")
    name, keys = f"spine_{uuid4().hex}", rows.select(list(fields))
    narrow = keys.append_column(_ROW, pa.array(np.arange(len(times)))).append_column(_TIME, pa.array(times))
    con.con.register(f"{name}_arrow", narrow)
    try:
        con.con.execute(f'CREATE TEMP TABLE {name} AS SELECT * FROM "{name}_arrow"')
    finally:
        con.con.unregister(f"{name}_arrow")
    try:
        yield Spine(name, keys, times)
    finally:
        con.con.execute(f"DROP TABLE IF EXISTS {name}")


def _times(spine: pa.Table) -> NDArray[np.int64]:
    if EVENT_TIME not in spine.column_names:
        raise SchemaError("The spine has no column 'event_time'", next_step="add one: timestamp[us, tz=UTC]")
    column = spine.column(EVENT_TIME)
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise TimeError(f"The spine's event_time is {column.type}", next_step="make it timestamp[us, tz=UTC]")
    if column.null_count:
        raise TimeError(f"{column.null_count} rows of the spine have no event_time", next_step="give each row its time")
    return _micros(column.cast(pa.timestamp("us", "UTC")))


def find(con: Backend, read: Read, *, table: Any, spine: Spine) -> Found:
    """Return what `read` knows at every spine row.

    Parameters
    ----------
    con
        A DuckDB backend whose session time zone is UTC.
    table
        Every row of the group, as an Ibis table of `con`.
    spine
        As `spine_in_engine` gives it, with the fields of the read.
    """
    # Also shows in-memory tables to the engine, which compiling alone does not.
    schema = con.to_pyarrow(table.limit(0)).schema
    _check_columns(read, schema, spine.keys.schema)
    rows, matched = _rows_until(con.compile(table), spine.times.max(initial=0)), None
    if len(spine.times) > _FEW and _comparable(read, schema, spine):
        matched = merged(con, read, rows=rows, spine=spine)
    matched = matched or joined(con, read, rows=rows, spine=spine)
    return Found(matched.rows, matched.place, _expired(matched, spine.times, ttl=read.ttl))


def merged(con: Backend, read: Read, *, rows: str, spine: Spine) -> Matched | None:
    """Match in one pass over the relation `rows`; None where they lie in no order."""
    columns = _unique(*read.columns, EVENT_TIME)
    names = ", ".join(map(_quoted, _unique(*read.keys, *columns, KNOWN_AT, SEQ)))
    # A plain scan keeps the order of the files; a join would not.
    reader = con.con.execute(f"SELECT {names} FROM {rows}").to_arrow_reader(_BATCH)
    needles = spine.needles(tuple(read.keys.values()))
    with closing(reader):
        schema = pa.schema([reader.schema.field(c) for c in columns])
        return match(reader, needles, keys=list(read.keys), schema=schema, n=len(spine.times))


def joined(con: Backend, read: Read, *, rows: str, spine: Spine) -> Matched:
    """Match by an ASOF join of the engine."""
    into = f"{spine.name}_found"
    try:
        count = _match(con, read, rows=rows, spine=spine.name, into=into, few=len(spine.times) <= _FEW)
        fetched = _fetch(con, read, rows=rows, matched=into)
    finally:
        con.con.execute(f"DROP TABLE IF EXISTS {into}")
    return Matched(
        fetched.select(_unique(*read.columns, EVENT_TIME)), _places(fetched, len(spine.times), matched=count)
    )


def _comparable(read: Read, table: pa.Schema, spine: Spine) -> bool:
    return all(table.field(key).type == spine.keys.schema.field(name).type for key, name in read.keys.items())


def _rows_until(relation: str, last: int) -> str:
    # Nothing that happened later can be known at any spine row; a plain bound reaches the files' statistics.
    return f"(SELECT * FROM ({relation}) WHERE {EVENT_TIME} <= make_timestamptz({last}::BIGINT))"


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
    columns = _unique(*read.columns, EVENT_TIME, KNOWN_AT, SEQ)
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


def _expired(matched: Matched, times: NDArray[np.int64], *, ttl: int | None) -> NDArray[np.bool_]:
    expired = np.zeros(len(times), dtype=np.bool_)
    if ttl is not None:
        found = np.flatnonzero(matched.place >= 0)
        age = times[found] - _micros(matched.rows.column(EVENT_TIME))[matched.place[found]]
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
    for key, name in read.keys.items():
        have, want = spine.field(name).type, table.field(key).type
        if pa.types.is_integer(have) != pa.types.is_integer(want):
            raise SchemaError(
                f"Spine column {name!r} is {have}, but key {key!r} of table {read.name!r} is {want}",
                next_step="give both one dtype",
            )


def _same(keys: Mapping[str, str], spine: str) -> str:
    return " AND ".join(f"{spine}.{_quoted(name)} = r.{_quoted(key)}" for key, name in keys.items())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _unique(*names: str) -> list[str]:
    return list(dict.fromkeys(names))
