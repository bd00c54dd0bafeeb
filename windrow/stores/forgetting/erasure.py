"""Erasing rows for good: from a table and all its history, from a Parquet file, from a DuckDB file.

Unlike a delete, which ``as_of`` still sees past, what is erased is gone from every version: files are written
again without the rows, old files go at once, and so does the part of the log that tells of them.
"""
# ruff: noqa: S608 - the statements hold quoted identifiers and paths; values are parameters

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.errors import StoreError
from windrow.stores.delta import Overtaken, commit_failed, files_of, pause, swap_files
from windrow.stores.engine import engine
from windrow.stores.rewriting import ATTEMPTS, copy, discarding, literal, quoted, rewritten_name
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    from windrow.stores.lake import LakeTable

Values = tuple[int | str, ...]

_VERSION = re.compile(r"(\d{20})\..+")
_LAST = "_last_checkpoint"
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")


class Rows(NamedTuple):
    """Which rows to erase: a condition of the engine over a table's columns, and its values."""

    condition: str
    values: list[Any]

    @property
    def kept(self) -> str:
        """The condition of the other rows; a comparison with null is not true, so such rows stay."""
        return f"coalesce(NOT ({self.condition}), true)"


class Erased(NamedTuple):
    """How many rows went, and from how many files."""

    rows: int
    files: int


def rows_of(key: Values, places: Sequence[Sequence[str]], types: Mapping[str, str]) -> Rows | None:
    """Return the rows that hold `key` in one of the `places`, or None where there is no such place.

    Parameters
    ----------
    key
        The entity's key, one value per part.
    places
        Each a choice of columns, one per part.
    types
        Column -> the engine's type, of the table in question.

    Examples
    --------
    >>> rows_of((7,), [["card_id"], ["other"]], {"card_id": "BIGINT", "x": "DOUBLE"})
    Rows(condition='("card_id" = ?)', values=[7])
    >>> rows_of((7,), [["card_id"]], {"card_id": "VARCHAR"}).values
    ['7']
    """
    found = [place for place in dict.fromkeys(map(tuple, places)) if set(place) <= set(types)]
    parts, values = list[str](), list[Any]()
    for place in found:
        same = [_compared(quoted(name), types[name], value) for name, value in zip(place, key, strict=True)]
        parts.append("(" + " AND ".join(condition for condition, _ in same) + ")")
        values += [value for _, value in same]
    return Rows(" OR ".join(parts), values) if parts else None


def fields_of(key: Values, places: Sequence[Sequence[str]], columns: Sequence[str]) -> Rows:
    """Return the rows whose JSON columns hold `key` in one of the `places`, as fields of an object.

    A text that is no JSON is wanted where every part of the key is in it.
    """
    parts, values = list[str](), list[Any]()
    for column in columns:
        for place in dict.fromkeys(map(tuple, places)):
            same = " AND ".join(f"json_extract_string({quoted(column)}, ?) = ?" for _ in place)
            text = " AND ".join(f"contains({quoted(column)}, ?)" for _ in place)
            # A condition that is not JSON's must not be asked of it, whatever order the engine chooses.
            parts.append(f"CASE WHEN json_valid({quoted(column)}) THEN {same} ELSE {text} END")
            values += [v for name, value in zip(place, key, strict=True) for v in (f'$."{name}"', str(value))]
            values += [str(value) for value in key]
    return Rows(" OR ".join(parts), values)


def erase_from_table(table: LakeTable, rows: Rows) -> Erased:
    """Erase rows from every version of a table, whether in force, corrected or deleted.

    Writers of the table wait; readers in flight may find their files gone.

    Raises
    ------
    StoreError
        If the table cannot be rewritten; then nothing is erased.
    """
    with table.still():
        done = _without(table, rows)
        _purge(table)
    return done


def count_in_table(table: LakeTable, rows: Rows) -> Erased:
    """Return what `erase_from_table` would erase."""
    hit = _hit([f"{table.path}/{file.path}" for file in files_of(table.open())], rows)
    return Erased(sum(hit.values()), len(hit))


def types_in_table(table: LakeTable) -> dict[str, str]:
    """Return column -> the engine's type over all files of a table."""
    return types_in([f"{table.path}/{file.path}" for file in files_of(table.open())])


def types_in(files: Sequence[str]) -> dict[str, str]:
    """Return column -> the engine's type over Parquet files."""
    if not files:
        return {}
    described = engine().con.execute("DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true)", [list(files)])
    return {name: dtype for name, dtype, *_ in described.fetchall()}


def erase_from_parquet(path: Path, rows: Rows) -> Erased:
    """Erase rows from a Parquet file of its own, which is replaced in one step."""
    hit = _hit([str(path)], rows)
    if not hit:
        return Erased(0, 0)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _copy_kept(path, beside, rows)
        beside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
    return Erased(sum(hit.values()), 1)


def count_in_parquet(path: Path, rows: Rows) -> Erased:
    """Return what `erase_from_parquet` would erase."""
    hit = _hit([str(path)], rows)
    return Erased(sum(hit.values()), len(hit))


def _compared(column: str, dtype: str, value: int | str) -> tuple[str, int | str]:
    fits = dtype in _WHOLE if isinstance(value, int) else dtype == "VARCHAR"
    return (f"{column} = ?", value) if fits else (f"CAST({column} AS VARCHAR) = ?", str(value))


def _without(table: LakeTable, rows: Rows) -> Erased:
    for number in range(ATTEMPTS):
        try:
            return _attempt(table, rows)
        except Overtaken:
            pause(number)  # by a compaction: it holds no lock while it rewrites
    raise StoreError(
        f"Table {table.key!r} is rewritten again and again", next_step="stop its maintenance, then try again"
    )


def _attempt(table: LakeTable, rows: Rows) -> Erased:
    hit, seq, folder = (
        _hit([f"{table.path}/{f.path}" for f in files_of(table.open())], rows),
        next_seq(),
        Path(table.path),
    )
    if not hit:
        return Erased(0, 0)
    with discarding(table.path, table.key) as made:
        for name in hit:
            made.append(rewritten_name(name, seq))
            _copy_kept(folder / name, folder / made[-1], rows)
        swap_files(table.key, table.path, old=list(hit), new=made, data_change=True)
    return Erased(sum(hit.values()), len(hit))


def _hit(files: Sequence[str], rows: Rows) -> dict[str, int]:
    """Return the names of the files that hold such rows, and how many each."""
    if not files:
        return {}
    every = "FROM read_parquet(?, union_by_name = true, filename = true)"
    query = f"SELECT filename, count(*) {every} WHERE {rows.condition} GROUP BY filename"
    found = engine().con.execute(query, [list(files), *rows.values]).fetchall()
    return {Path(name).name: count for name, count in found}


def _copy_kept(old: Path, new: Path, rows: Rows) -> None:
    query = (
        f"SELECT * EXCLUDE (file_row_number) FROM read_parquet({literal(str(old))}, file_row_number = true) "
        f"WHERE {rows.kept} ORDER BY file_row_number"
    )
    copy(engine().con, query, rows.values, new)


def _purge(table: LakeTable) -> None:
    """Remove every file that the newest version does not read, and the log before it; nobody writes meanwhile."""
    from deltalake.exceptions import DeltaError

    delta, folder = table.open(), Path(table.path)
    current = {file.path for file in files_of(delta)}
    try:
        delta.create_checkpoint()
        for entry in (folder / "_delta_log").iterdir():
            version = _VERSION.fullmatch(entry.name)
            if entry.name != _LAST and (not version or int(version[1]) < delta.version()):
                entry.unlink()
        for path in folder.iterdir():
            if path.is_file() and path.name not in current:
                path.unlink()
    except (DeltaError, OSError) as error:
        raise commit_failed(table.key, error) from error
