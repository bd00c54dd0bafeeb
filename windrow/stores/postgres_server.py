"""A connection to a PostgreSQL server whose address no message, representation or log holds any part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from windrow.errors import SettingsError, StoreError

_CONNECT_SECONDS = 10
_REASONS = {
    "password authentication failed": "it refuses the password",
    "Connection refused": "nothing listens there",
    "timeout": f"no answer within {_CONNECT_SECONDS} seconds",
    "does not exist": "it has no such user or database",
}


@contextmanager
def connected(url: str, *, variable: str, failing: str) -> Iterator[Any]:
    """Yield a connection in UTC that commits each statement by itself.

    Parameters
    ----------
    url
        With ``?schema=NAME`` tables are looked for and made in that schema, which is made by `make_schema`.
    variable
        Of the environment, that holds `url`: what messages call it.
    failing
        What is not done if this goes wrong, such as ``"table fx of PostgreSQL cannot be read"``.

    Raises
    ------
    SettingsError
        If `url` is empty.
    StoreError
        If psycopg is not installed, the server does not answer, or a statement fails.
    """
    try:
        import psycopg
    except ImportError:
        raise StoreError("psycopg is not installed", next_step='pip install "windrow[postgres]"') from None
    if not url:
        raise SettingsError(
            f"{variable} is not set", next_step=f"export {variable}=postgresql://user:password@host/database"
        )
    address, schema = parted(url)
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=_CONNECT_SECONDS) as con:
            con.execute("SET TIME ZONE 'UTC'")
            if schema:
                con.execute(psycopg.sql.SQL("SET search_path TO {}").format(psycopg.sql.Identifier(schema)))
            yield con
    except psycopg.Error as error:
        # The driver's own text may repeat the address; what the server says about a query does not.
        told = error.diag.message_primary or next((said for part, said in _REASONS.items() if part in str(error)), "")
        raise StoreError(
            f"{failing}: {told or type(error).__name__}", next_step=f"check {variable} and the rights of its user"
        ) from None


def parted(url: str) -> tuple[str, str]:
    """Take ``schema=NAME`` out of a URL; "" where it names none.

    Examples
    --------
    >>> parted("postgresql://host/db?schema=windrow_prod&sslmode=require")
    ('postgresql://host/db?sslmode=require', 'windrow_prod')
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # the driver says what is wrong with it, and we do not show what it says
        return url, ""
    query = dict(parse_qsl(parts.query))
    schema = query.pop("schema", "")
    return (urlunsplit(parts._replace(query=urlencode(query))), schema) if schema else (url, "")


def make_schema(con: Any, url: str) -> None:
    """Make the schema that a URL names, unless it is there or none is named."""
    from psycopg import sql

    schema = parted(url)[1]
    if schema:
        con.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))


def column_types(con: Any, *table: str) -> dict[str, str]:
    """Return column -> the server's type of a table (with its schema, if that is given); nothing if there is none."""
    from psycopg import sql

    query = (
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return dict(con.execute(query, [sql.Identifier(*table).as_string(con)]).fetchall())
