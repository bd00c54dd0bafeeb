"""One look-up of one group at many times: which row was the newest known one, and its values.

Four forms say the same; `find` chooses by what the engine can do, how much is asked and how the rows lie:

- ``asof``, for few rows, in two steps, so that sorting touches only keys and times:
  1. ASOF join of the spine's (keys, t) with the table's (keys, eff), ``eff = max(event_time, known_at)``.
  2. Hash join of what was found with the table for the values. Rows of a key that share their eff come
     back together; the greatest by (event_time, known_at, _seq) is taken. Equal event times need no other
     care: the one with the greater eff is the one with the greater known_at.
- ``late``, where a row can become known after a later event of its key (`known_at` is not event time plus one
  fixed delay): the same, but rows that a row with smaller or equal eff surpasses are dropped first. A RANGE
  frame over eff, peers included, keeps the rows whose event time is the greatest so far.
- ``merge``, for many rows: one pass over the stored ones (`windrow.features.merge`), unless these lie in no order.
- ``window``, for engines without an ASOF join (`windrow.features.windowed`).

Each result is a place per spine row, so the spine's order costs no sort.
"""
# ruff: noqa: S608 - the statements hold quoted identifiers, names made here and whole numbers, no values of others

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow.errors import SchemaError, TimeError
from windrow.features.ahead import ahead
from windrow.features.merge import Matched, Needles, match
from windrow.features.windowed import windowed
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, Status

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

_ROW, _TIME = "_row", "_t"
_ALL = slice(None)
_EFF = f"epoch_us(greatest({EVENT_TIME}, {KNOWN_AT}))"
# Below this many spine rows it pays to look only at the keys that are wanted.
_FEW = 100_000
# Rows read at a time: fewer cost calls, more cost memory and a longer wait for the first.
_BATCH = 120_000
# Engines, by Ibis's name, whose SQL has an ASOF join and that take Arrow tables in place.
_ASOF = ("duckdb",)

Form = Literal["auto", "asof", "late", "merge", "window"]


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

    def values(self, column: str, rows: slice = _ALL) -> pa.ChunkedArray:
        """Return `column` for the spine's `rows`; null where nothing was found or it has expired."""
        return self._take(column, rows, (self.place[rows] < 0) | self.expired[rows])

    def event_times(self, rows: slice = _ALL) -> pa.ChunkedArray:
        """Return the event time of the row found, expired or not; null where nothing was found."""
        return self._take(EVENT_TIME, rows, self.place[rows] < 0)

    def statuses(self, rows: slice = _ALL) -> pa.Array:
        """Return the `Status` of the spine's `rows` as int8: PRESENT, NOT_FOUND or EXPIRED."""
        found = np.where(self.expired[rows], Status.EXPIRED, Status.PRESENT)
        return pa.array(np.where(self.place[rows] < 0, Status.NOT_FOUND, found).astype(np.int8))

    def _take(self, column: str, rows: slice, missing: NDArray[np.bool_]) -> pa.ChunkedArray:
        values, place = self.rows.column(column), self.place[rows]
        if not missing.any():
            return values.take(pa.array(place))
        if not len(values) or not pa.types.is_primitive(values.type):
            return values.take(pa.array(place, mask=missing))
        # Places with nulls among them take several times as long.
        taken = values.take(pa.array(np.where(missing, 0, place)))
        return pc.if_else(pa.array(missing), pa.scalar(None, values.type), taken)


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
    SchemaError, TimeError
        If the spine lacks its event time, or has naive or missing times.
    """
    times, keys = _times(rows), rows.select(list(fields))
    name = f"spine_{uuid4().hex}"
    if con.name not in _ASOF:
        yield Spine("", keys, times)
        return
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


def find(con: Backend, read: Read, *, table: ir.Table, spine: Spine, form: Form = "auto") -> Found:
    """Return what `read` knows at every spine row.

    Parameters
    ----------
    con
        A backend of Ibis whose session time zone is UTC.
    table
        Every row of the group, as an Ibis table of `con`.
    spine
        As `spine_in_engine` gives it, with the fields of the read.
    form
        How to find it; ``auto`` chooses. All forms say the same.
    """
    # Also shows in-memory tables to the engine, which compiling alone does not. In batches: Ibis imports pandas else.
    schema = con.to_pyarrow_batches(table.limit(0)).schema
    _check_columns(read, schema, spine.keys.schema)
    if form == "auto":
        form = _form(con, read, schema, spine)
    matched = _matched(con, read, table=table, spine=spine, form=form)
    return Found(matched.rows, matched.place, _expired(matched, spine.times, ttl=read.ttl))


def _form(con: Backend, read: Read, schema: pa.Schema, spine: Spine) -> Form:
    if con.name not in _ASOF:
        return "window"
    return "merge" if len(spine.times) > _FEW and _comparable(read, schema, spine) else "asof"


def _matched(con: Backend, read: Read, *, table: ir.Table, spine: Spine, form: Form) -> Matched:
    if form == "window":
        asked = spine.keys.append_column(EVENT_TIME, pa.array(spine.times).cast(pa.timestamp("us", "UTC")))
        columns = _unique(*read.columns, EVENT_TIME)
        return windowed(con, table, asked, keys=read.keys, columns=columns)
    rows = _rows_until(con.compile(table), int(spine.times.max(initial=0)))
    found = merged(con, read, rows=rows, spine=spine) if form == "merge" else None
    return found or joined(con, read, rows=rows, spine=spine, late=form == "late")


def merged(con: Backend, read: Read, *, rows: str, spine: Spine) -> Matched | None:
    """Match in one pass over the relation `rows`; None where they lie in no order."""
    columns = _unique(*read.columns, EVENT_TIME)
    names = ", ".join(map(_quoted, _unique(*read.keys, *columns, KNOWN_AT, SEQ)))
    # A plain scan keeps the order of the files; a join would not.
    reader = con.con.execute(f"SELECT {names} FROM {rows}").to_arrow_reader(_BATCH)
    needles = spine.needles(tuple(read.keys.values()))
    with closing(reader), closing(ahead(reader)) as batches:
        schema = pa.schema([reader.schema.field(c) for c in columns])
        return match(batches, needles, keys=list(read.keys), schema=schema, n=len(spine.times))


def joined(con: Backend, read: Read, *, rows: str, spine: Spine, late: bool = False) -> Matched:
    """Match by an ASOF join of the engine; `late` says that rows can be known after later ones without looking."""
    into = f"{spine.name}_found"
    late = late or _can_be_late(con, rows)
    try:
        count = _match(con, read, rows=rows, spine=spine, into=into, late=late)
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


def _match(con: Backend, read: Read, *, rows: str, spine: Spine, into: str, late: bool) -> int:
    keys, same = [_quoted(key) for key in read.keys], _same(read.keys)
    narrow = f"SELECT {', '.join([*keys, f'{_EFF} AS _eff', f'epoch_us({EVENT_TIME}) AS _e'])} FROM {rows} r"
    if len(spine.times) <= _FEW and keys:
        narrow += f" WHERE EXISTS (SELECT 1 FROM {spine.name} s WHERE {' AND '.join(same)})"
    if late:
        by = f"PARTITION BY {', '.join(keys)} " if keys else ""
        window = f"{by}ORDER BY _eff RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        narrow = f"SELECT * FROM ({narrow}) QUALIFY _e >= max(_e) OVER ({window})"
    found = ", ".join(["s." + _ROW, *("r." + key for key in keys), "r._eff"])
    on = " AND ".join([*same, f"s.{_TIME} >= r._eff"])
    query = f"CREATE TEMP TABLE {into} AS SELECT {found} FROM {spine.name} s ASOF JOIN ({narrow}) r ON {on}"
    return int(con.con.execute(query).fetchone()[0])


def _can_be_late(con: Backend, rows: str) -> bool:
    delay = f"{_EFF} - epoch_us({EVENT_TIME})"
    same = con.con.execute(f"SELECT max({delay}) = min({delay}) FROM {rows}").fetchone()[0]
    return same is False


def _fetch(con: Backend, read: Read, *, rows: str, matched: str) -> pa.Table:
    columns = _unique(*read.columns, EVENT_TIME, KNOWN_AT, SEQ)
    same = " AND ".join([*(f"m.{_quoted(k)} = r.{_quoted(k)}" for k in read.keys), "m._eff = r._eff"])
    selected = ", ".join("r." + _quoted(c) for c in columns)
    return con.con.execute(
        f"SELECT m.{_ROW}, {selected} FROM (SELECT *, {_EFF} AS _eff FROM {rows}) r JOIN {matched} m ON {same}"
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


def _same(keys: Mapping[str, str]) -> list[str]:
    return [f"s.{_quoted(name)} = r.{_quoted(key)}" for key, name in keys.items()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _unique(*names: str) -> list[str]:
    return list(dict.fromkeys(names))
