"""Rows of a PostgreSQL table as Arrow: only the keys, times and columns that are asked for, in one read-only query.

The answer comes as CSV by ``COPY``, which Arrow reads several times faster than Python reads rows, and which tells
a null from an empty text. The server's address is taken from the environment for each connection; no message,
representation or log holds any part of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.errors import SchemaError, UnknownNameError
from windrow.features.exact import exactly
from windrow.features.place import External, Postgres
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.postgres_server import column_types, connected

if TYPE_CHECKING:
    import pyarrow as pa

_WHOLE, _NUMBERS = ("smallint", "integer", "bigint"), ("numeric", "real", "double precision")
_AWARE, _NAIVE = "timestamp with time zone", ("timestamp without time zone", "date")
_FITS = {
    "bool": ("boolean",), "timestamp": (_AWARE, *_NAIVE),
    **dict.fromkeys(("int32", "int64", "float32", "float64"), (*_WHOLE, *_NUMBERS)),
}  # fmt: skip


class Asked(NamedTuple):
    """What is asked: keys (key -> values without null, one row per entity), and the first and last time (UTC microseconds)."""

    keys: Mapping[str, Sequence[Any]]
    first: int
    until: int


def fetch(external: External, asked: Asked | None) -> pa.Table:
    """Return rows of the table, in declared dtypes: keys, features, ``event_time``, ``known_at``, ``_seq``.

    Parameters
    ----------
    asked
        With it, of the asked keys only: rows known after `first` up to `until`, and the newest one known
        before. That is all that a point-in-time join at times in [first, until] can find. None: every row.

    Raises
    ------
    SettingsError
        If the variable with the address is not set.
    StoreError
        If psycopg is not installed, the server does not answer, or the query fails.
    UnknownNameError, SchemaError
        If the table, a column or a dtype is not as declared.
    """
    place = external.place
    assert isinstance(place, Postgres)
    with _connected(place) as con:
        types = _types(con, place)
        _check(external, place, types)
        text = _copied(con, *_query(external, types, asked))
    return _arrow(text, external, types)


@contextmanager
def _connected(place: Postgres) -> Iterator[Any]:
    url = os.environ.get(place.url_env, "")
    with connected(url, variable=place.url_env, failing=f"{place} cannot be read") as con:
        con.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        yield con


def _types(con: Any, place: Postgres) -> dict[str, str]:
    types = column_types(con, *place.table.split("."))
    if not types:
        tables = "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        known = [name.removeprefix("public.") for (name,) in con.execute(tables).fetchall()]
        raise UnknownNameError("table", place.table, known, where=f"the server that {place.url_env} names")
    return types


def _check(external: External, place: Postgres, types: Mapping[str, str]) -> None:
    for column in external.wanted:
        if column not in types:
            raise UnknownNameError("column", column, list(types), where=str(place))
    times = [external.event_time, *([external.known_at] if external.known_at else [])]
    dtypes = [(external.columns[name], dtype) for name, dtype in external.dtypes.items()]
    dtypes += [(column, "timestamp") for column in times] + ([(external.seq, "int64")] if external.seq else [])
    for column, dtype in dtypes:
        if types[column] not in _FITS.get(dtype, (types[column],)):
            raise SchemaError(
                f"{place}: column {column!r} is {types[column]}, declared is {dtype}",
                next_step="declare its dtype, or cast it in a view there",
            )
        if dtype == "timestamp" and types[column] in _NAIVE and not external.utc:
            raise SchemaError(
                f"{place}: column {column!r} is {types[column]}, a time without zone",
                next_step='declare timezone="UTC" if that is what it holds, or make it timestamptz in a view there',
            )


def _query(external: External, types: Mapping[str, str], asked: Asked | None) -> tuple[Any, dict[str, Any]]:
    from psycopg import sql

    place, keys = external.place, list(asked.keys) if asked else []
    assert isinstance(place, Postgres)
    rows = sql.SQL("SELECT {columns} FROM {table} WHERE {when}").format(
        columns=sql.SQL(", ").join(_columns(external, types)),
        table=sql.Identifier(*place.table.split(".")),
        when=sql.SQL(" AND ").join(_conditions(external, types, asked)),
    )
    if asked is None:
        return sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(rows), {}
    names = sql.SQL(", ").join(map(sql.Identifier, keys)) if keys else sql.SQL("true")
    entities = _storable(list(zip(*asked.keys.values(), strict=True)))
    query = sql.SQL(
        "COPY (WITH r AS ({rows}) SELECT * FROM r WHERE greatest({e}, {k}) > %(first)s UNION ALL "
        "(SELECT DISTINCT ON ({keys}) * FROM r WHERE greatest({e}, {k}) <= %(first)s "
        "ORDER BY {keys}, {e} DESC, {k} DESC, {ties})) TO STDOUT (FORMAT csv)"
    ).format(rows=rows, keys=names, e=sql.Identifier(EVENT_TIME), k=sql.Identifier(KNOWN_AT), ties=_ties(external))
    values = {f"key_{i}": [entity[i] for entity in entities] for i in range(len(keys))}
    return query, {**values, "first": asked.first, "until": asked.until}


def _storable(entities: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Leave out entities whose keys hold a NUL, as a request's may: no row there does, and the server would refuse all."""
    return [entity for entity in entities if not any(isinstance(value, str) and "\0" in value for value in entity)]


def _ties(external: External) -> Any:
    """What decides between equal times: the declared order of writes, else the values, as `numbered` orders them."""
    from psycopg import sql

    if external.seq:
        return sql.SQL("{} DESC").format(sql.Identifier(SEQ))
    parts = []
    for name, dtype in external.dtypes.items():
        # Text by its bytes, which is the same on every server, and here.
        shape = '{} COLLATE "C" DESC' if dtype == "string" else "{} DESC"
        parts.append(sql.SQL(shape).format(sql.Identifier(name)))
    return sql.SQL(", ").join(parts)


def numbered(rows: pa.Table) -> pa.Table:
    """Give rows without an order of writes one by their values (``_seq``), so that no order of storage decides."""
    import pyarrow as pa

    ordered = rows.sort_by([(name, "ascending") for name in rows.column_names])
    return ordered.append_column(SEQ, pa.array(range(ordered.num_rows), pa.int64()))


def _columns(external: External, types: Mapping[str, str]) -> list[Any]:
    """The declared columns under their own names; times as microseconds."""
    from psycopg import sql

    made = [(_value(external.columns[n], d, types), n) for n, d in external.dtypes.items()]
    event = _micros(external.event_time)
    known = (
        _micros(external.known_at)
        if external.known_at
        else sql.SQL("{} + {}").format(event, sql.Literal(external.delay))
    )
    made += [(event, EVENT_TIME), (known, KNOWN_AT)]
    made += [(sql.SQL("{}::bigint").format(sql.Identifier(external.seq)), SEQ)] if external.seq else []
    return [sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for value, name in made]


def _value(column: str, dtype: str, types: Mapping[str, str]) -> Any:
    from psycopg import sql

    name, kind = sql.Identifier(column), types[column]
    if dtype == "timestamp":
        return _micros(column)
    if dtype == "string":
        return sql.SQL("{}::text").format(name)
    if kind == "numeric":
        shape = "trim_scale({})" if dtype.startswith("int") else "({})::float8"
        return sql.SQL(shape).format(name)
    return name


def _micros(column: str) -> Any:
    from psycopg import sql

    return sql.SQL("round(extract(epoch FROM {}) * 1000000)::bigint").format(sql.Identifier(column))


def _conditions(external: External, types: Mapping[str, str], asked: Asked | None) -> list[Any]:
    """What the server can decide by its indexes: keys and times of the columns as they are there."""
    from psycopg import sql

    keys = list(asked.keys) if asked else []

    times = [external.event_time, *([external.known_at] if external.known_at else [])]
    made = [sql.SQL("{} IS NOT NULL").format(sql.Identifier(column)) for column in times]
    if asked is not None:
        made += [_until(column, types, external) for column in times]
    if keys:
        columns = sql.SQL(", ").join(_key(external.columns[key], types) for key in keys)
        arrays = [
            f"%(key_{i})s::{'text' if external.dtypes[key] == 'string' else 'bigint'}[]" for i, key in enumerate(keys)
        ]
        # A semi-join: Postgres looks through an array in a condition from its beginning for every row.
        listed = sql.SQL(", ".join(arrays))
        made.append(sql.SQL("({}) IN (SELECT * FROM unnest({}))").format(columns, listed))
    return made


def _until(column: str, types: Mapping[str, str], external: External) -> Any:
    from psycopg import sql

    epoch = "timestamptz" if types[column] == _AWARE else "timestamp"
    delay = external.delay if column == external.event_time and not external.known_at else 0
    moment = sql.SQL(f"'epoch'::{epoch} + (%(until)s - {{}}) * interval '1 microsecond'")
    return sql.SQL("{} <= {}").format(sql.Identifier(column), moment.format(sql.Literal(delay)))


def _key(column: str, types: Mapping[str, str]) -> Any:
    from psycopg import sql

    # Only these are compared with text and whole numbers as they are, so that an index of the table serves.
    plain = types[column] in ("text", "character varying", *_WHOLE, "numeric")
    return sql.Identifier(column) if plain else sql.SQL("{}::text").format(sql.Identifier(column))


def _copied(con: Any, query: Any, values: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    with con.cursor() as cursor, cursor.copy(query, values) as copy:
        for part in copy:
            made.write(part)
    return made.getvalue()


def _arrow(text: bytes, external: External, types: Mapping[str, str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    place = external.place
    dtypes = {**external.dtypes, EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}
    dtypes |= {SEQ: "int64"} if external.seq else {}
    given = {n: _given(d, types[external.columns[n]] if n in external.columns else "") for n, d in dtypes.items()}
    if not text:
        rows = pa.table({n: pa.chunked_array([], t) for n, t in given.items()})
        return _exact(rows, dtypes, external)
    try:
        rows = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=list(given)),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=given, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
                true_values=["t"], false_values=["f"],
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"{place} holds a value that is not of its declared dtype: {str(error)[:200]}",
            next_step="declare a wider dtype, or cast it in a view there",
        ) from None
    return _exact(rows, dtypes, external)


def _exact(rows: pa.Table, dtypes: Mapping[str, str], external: External) -> pa.Table:
    import pyarrow as pa

    where = f"{external.place}, column"
    made = pa.table({n: exactly(rows[n], dtype, place=f"{where} {n!r}") for n, dtype in dtypes.items()})
    return made if external.seq else numbered(made)


def _given(dtype: str, kind: str) -> pa.DataType:
    import pyarrow as pa

    if dtype.startswith("int") and kind in ("real", "double precision"):
        return pa.float64()
    plain = {"bool": pa.bool_(), "string": pa.string(), "float32": pa.float64(), "float64": pa.float64()}
    return plain.get(dtype, pa.int64())
