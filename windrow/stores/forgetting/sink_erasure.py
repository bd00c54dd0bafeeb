"""Erasing rows from a sink: the DuckDB file is written again without them, because a deleted row stays in its blocks."""
# ruff: noqa: S608 - the statements hold quoted identifiers and paths; values are parameters

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from windrow.errors import StoreError
from windrow.stores.forgetting.erasure import Values, rows_of
from windrow.stores.rewriting import literal, quoted
from windrow.stores.sinks import alone

if TYPE_CHECKING:
    import duckdb


def rows_in_sink(path: Path, key: Values, places: Sequence[Sequence[str]], *, erase: bool) -> int:
    """Return how many rows of a DuckDB file hold `key`, after erasing them if that is asked.

    Parameters
    ----------
    places
        Choices of columns, as for `windrow.stores.forgetting.erasure.rows_of`.

    Raises
    ------
    StoreError
        If the file cannot be read, or not be written again; then it is as it was.
    """
    import duckdb

    following = path.with_suffix(".next")
    try:
        with alone(path):
            for leftover in (following, Path(f"{following}.wal")) if erase else ():
                leftover.unlink(missing_ok=True)
            # The new file is the one that is open, so that nothing is ever written to the old one.
            with duckdb.connect(str(following) if erase else ":memory:", config=_CONFIG) as connection:
                connection.execute(f"ATTACH {literal(str(path))} AS before (READ_ONLY)")
                count = sum(_table(connection, name, key, places, erase=erase) for name in _names(connection))
                connection.execute("DETACH before")
            if erase and count:
                following.replace(path)
    except (duckdb.Error, OSError) as error:
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0][:200]
        raise StoreError(
            f"the sink {path} cannot be written again: {reason}",
            exists="It holds what it held before",
            next_step="close programs that have it open, check space and rights, then try again",
        ) from error
    finally:
        with suppress(FileNotFoundError):
            following.unlink()
    return count


_CONFIG: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": False, "threads": 1}


def _names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'before'"
    return [name for (name,) in connection.execute(query).fetchall()]


def _table(
    connection: duckdb.DuckDBPyConnection, name: str, key: Values, places: Sequence[Sequence[str]], *, erase: bool
) -> int:
    old = f"before.{quoted(name)}"
    types = {column: dtype for column, dtype, *_ in connection.execute(f"DESCRIBE {old}").fetchall()}
    rows = rows_of(key, places, types)
    condition, values = (rows.condition, rows.values) if rows else ("false", [])
    if erase:
        kept = rows.kept if rows else "true"
        connection.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM {old} WHERE {kept}", values)
    found = connection.execute(f"SELECT count(*) FROM {old} WHERE {condition}", values).fetchone()
    return int(found[0]) if found else 0
