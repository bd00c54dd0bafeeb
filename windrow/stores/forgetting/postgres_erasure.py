"""Erasing rows from the PostgreSQL sink: the table is written again without them, because a deleted row stays in its page."""

from __future__ import annotations

from collections.abc import Sequence

from windrow.stores.forgetting.erasure import Values, rows_of
from windrow.stores.postgres_server import column_types, connected
from windrow.stores.postgres_sink import VARIABLE, table_name

_ENGINE = {"text": "VARCHAR", **{kind: kind.upper() for kind in ("smallint", "integer", "bigint")}}


def rows_in_postgres(url: str, service: str, key: Values, places: Sequence[Sequence[str]], *, erase: bool) -> int:
    """Return how many rows of a service's table hold `key`, after erasing them if that is asked.

    Parameters
    ----------
    places
        Choices of columns, as for `windrow.stores.forgetting.erasure.rows_of`.
    """
    from psycopg import sql

    name = sql.Identifier(table_name(service))
    failing = f"the sink postgres of service {service!r} cannot be searched"
    with connected(url, variable=VARIABLE, failing=failing) as con:
        types = {column: _ENGINE.get(kind, kind) for column, kind in column_types(con, table_name(service)).items()}
        wanted = rows_of(key, places, types)
        if wanted is None or any("\0" in str(part) for part in key):  # a text with a NUL is in no table of that server
            return 0
        where = sql.SQL(wanted.condition.replace("?", "%s"))  # quoted names and placeholders
        shape = "DELETE FROM {} WHERE {}" if erase else "SELECT 1 FROM {} WHERE {}"
        count = int(con.execute(sql.SQL(shape).format(name, where), wanted.values).rowcount)
        if erase and count:
            con.execute(sql.SQL("VACUUM (FULL) {}").format(name))
    return count
