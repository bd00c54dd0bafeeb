"""Batch predictions in a PostgreSQL table: a day is replaced in one transaction, so that nobody ever reads half of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windrow.errors import DataError, SchemaError, listed
from windrow.schema import EVENT_TIME
from windrow.stores.postgres_server import column_types, connected, make_schema

if TYPE_CHECKING:
    import pyarrow as pa

VARIABLE = "WINDROW_SINK_POSTGRES"
_TYPES = {
    "bool": "boolean", "int8": "smallint", "int16": "smallint", "int32": "integer", "int64": "bigint",
    "float": "real", "double": "double precision", "string": "text", "timestamp[us, tz=UTC]": "timestamp with time zone",
}  # fmt: skip
_LONGEST = 63  # bytes of a name; a longer one would be cut without a word
_CHUNK = 65_536  # rows sent at once


def table_name(service: str) -> str:
    """Return the table of a service's predictions, in the schema that the connection has by default.

    Examples
    --------
    >>> table_name("churn")
    'predictions_churn'
    """
    return f"predictions_{service}"


def write_postgres(url: str, service: str, rows: pa.Table, day: tuple[int, int] | None) -> str:
    """Replace a day of a service's predictions, or all of them; return the table's name.

    The first write makes the table. Writers of one service wait for each other, readers for nobody.

    Parameters
    ----------
    rows
        With ``event_time``; the same columns each time, unless everything is replaced.
    day
        First and past-the-last UTC microsecond that is replaced, or None for everything.

    Raises
    ------
    SettingsError
        If `url` is empty.
    SchemaError
        If the columns are not those of the earlier days, or have a type or name that the server has not.
    DataError
        If a text has a NUL character, which the server cannot keep.
    StoreError
        If the server does not answer or refuses; the table holds what it held before.
    """
    _check_texts(service, rows)
    table = table_name(service)
    failing = f"the sink postgres of service {service!r} cannot be written, and holds what it held before"
    with connected(url, variable=VARIABLE, failing=failing) as con, con.transaction():
        con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [table])
        make_schema(con, url)
        _prepare(con, service, _types_of(service, rows.schema), anew=day is None)
        _delete(con, table, day)
        _copy(con, table, rows)
    return table


def _check_texts(service: str, rows: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for field in rows.schema:
        if pa.types.is_string(field.type) and pc.any(pc.match_substring(rows[field.name], "\0")).as_py():
            raise DataError(
                f"predictions of {service!r} cannot be stored in PostgreSQL: a text of {field.name!r} has a NUL character",
                next_step="take it out in the spine's source",
            )


def _types_of(service: str, schema: pa.Schema) -> dict[str, str]:
    unknown = [f"{field.name} ({field.type})" for field in schema if str(field.type) not in _TYPES]
    long = [name for name in (table_name(service), *schema.names) if len(name.encode()) > _LONGEST]
    if unknown or long:
        raise SchemaError(
            f"predictions of {service!r} cannot be stored in PostgreSQL: {listed(unknown or long)}",
            exists=f"Types are {listed(_TYPES)}; names have {_LONGEST} bytes at most",
            next_step="rename or cast it in the spine's source",
        )
    return {field.name: _TYPES[str(field.type)] for field in schema}


def _prepare(con: Any, service: str, types: dict[str, str], *, anew: bool) -> None:
    from psycopg import sql

    stored = column_types(con, table_name(service))
    if stored == types:
        return
    if stored and not anew:
        changed = [name for name in {**stored, **types} if stored.get(name) != types.get(name)]
        raise SchemaError(
            f"predictions of {service!r} have other columns than the earlier days: {listed(changed)}",
            exists=f"The table has {listed(stored)}",
            next_step="score all days again (day=None), which makes the table anew",
        )
    table = sql.Identifier(table_name(service))
    if stored:
        con.execute(sql.SQL("DROP TABLE {}").format(table))
    columns = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in types.items()]
    con.execute(sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(columns)))
    con.execute(sql.SQL("CREATE INDEX ON {} ({})").format(table, sql.Identifier(EVENT_TIME)))
    told = f"Predictions of the service {service}, written by windrow: a day is replaced as a whole"
    con.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(told)))


def _delete(con: Any, table: str, day: tuple[int, int] | None) -> None:
    from psycopg import sql

    # DELETE and not TRUNCATE, which takes the rows away from readers that have begun already.
    statement = sql.SQL("DELETE FROM {}").format(sql.Identifier(table))
    if day is None:
        con.execute(statement)
        return
    moment = "'epoch'::timestamptz + %s * interval '1 microsecond'"
    inside = sql.SQL(f" WHERE {{time}} >= {moment} AND {{time}} < {moment}").format(time=sql.Identifier(EVENT_TIME))
    con.execute(statement + inside, day)


def _copy(con: Any, table: str, rows: pa.Table) -> None:
    from psycopg import sql

    columns = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(table), columns)
    with con.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, rows.num_rows, _CHUNK):
            copy.write(_csv(rows.slice(start, _CHUNK)))


def _csv(rows: pa.Table) -> bytes:
    """Return rows as PostgreSQL reads them: a null is nothing, an empty text two quotes."""
    import pyarrow as pa
    from pyarrow import csv

    made = pa.BufferOutputStream()
    csv.write_csv(rows, made, csv.WriteOptions(include_header=False, quoting_style="needed"))
    text: bytes = made.getvalue().to_pybytes()
    return text
