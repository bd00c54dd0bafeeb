"""Rewriting a table's files one by one or sorted: which of them hold some rows, and new files instead of them."""
# ruff: noqa: S608 - the statements hold quoted identifiers and paths; values are parameters

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.errors import SchemaError, StoreError, listed
from windrow.stores.delta import Overtaken

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERED = re.compile(r"(-x\d+)?\.parquet$")
ATTEMPTS = 20


def quoted(name: str) -> str:
    """Return an identifier in quotes.

    Examples
    --------
    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text in quotes.

    Examples
    --------
    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def same_row(left: str, right: str, columns: Sequence[str]) -> str:
    """Return the condition that two relations agree in `columns`, null with null.

    Examples
    --------
    >>> same_row("r", "g", ["k"])
    'r."k" IS NOT DISTINCT FROM g."k"'
    """
    return " AND ".join(f"{left}.{quoted(c)} IS NOT DISTINCT FROM {right}.{quoted(c)}" for c in columns)


def check_columns(key: str, rows: pa.Schema, stored: pa.Schema, columns: Sequence[str]) -> None:
    """Raise `SchemaError` unless `columns` are in both schemas, of one type."""
    for name in columns:
        for schema, whose in ((rows, "the given rows"), (stored, f"table {key!r}")):
            if name not in schema.names:
                raise SchemaError(
                    f"Table {key!r}: there is no column {name!r} in {whose}",
                    exists=f"There is {listed(schema.names)}",
                    next_step="compare columns that both have",
                )
        if rows.field(name).type != stored.field(name).type:
            raise SchemaError(
                f"Table {key!r}: column {name!r} is {stored.field(name).type}, given is {rows.field(name).type}",
                next_step="cast it to the stored type",
            )


def rewritten_name(path: str, seq: int) -> str:
    """Return the name of a file's next form: it sorts where the file itself does.

    Examples
    --------
    >>> rewritten_name("sorted-1-2.parquet", 7), rewritten_name("sorted-1-2-x7.parquet", 8)
    ('sorted-1-2-x7.parquet', 'sorted-1-2-x8.parquet')
    """
    return _NUMBERED.sub(f"-x{seq}.parquet", path)


def columns_of(file: Path) -> list[str]:
    """Return the columns that a file has: one from before a column was added lacks it."""
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(file).names
    return names


def copy(con: Any, query: str, parameters: Sequence[Any], target: Path) -> None:
    """Write the rows of a query to a Parquet file, in their order."""
    con.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION snappy)", list(parameters))


@contextmanager
def discarding(folder: str, key: str) -> Iterator[list[str]]:
    """Yield a list for the names of new files; if the block fails they are removed, and the engine's errors told."""
    import duckdb

    made: list[str] = []
    try:
        yield made
    except BaseException as error:  # whatever it was, no file stays that no commit names
        for name in made:
            with suppress(FileNotFoundError):
                (Path(folder) / name).unlink()
        if isinstance(error, duckdb.Error | OSError) and not isinstance(error, Overtaken):
            raise _unwritable(key, error) from error
        raise


def _unwritable(key: str, error: Exception) -> StoreError:
    reason = str(getattr(error, "strerror", None) or error).splitlines()[0][:200]
    return StoreError(
        f"Table {key!r} cannot be rewritten: {reason}",
        exists="It holds what it held before",
        next_step="free disk space or check the rights of the lake's folder, then try again",
    )
