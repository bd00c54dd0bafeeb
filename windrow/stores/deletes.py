"""Deletes: rows that end at a point in write order, so that ``as_of`` before it still shows them.

A delete writes the files that hold its rows again, with its ``_seq`` in the column ``_deleted`` of each. The
mark is part of the row, so that reading costs a filter and no join, and every rewrite keeps it.
"""
# ruff: noqa: S608 - the statements hold quoted identifiers and whole numbers; values are parameters

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from windrow.errors import StoreError
from windrow.stores.delta import (
    DELETED,
    Overtaken,
    arrow_schema,
    files_of,
    pause,
    swap_files,
    user_schema,
    with_retries,
)
from windrow.stores.engine import engine
from windrow.stores.rewriting import (
    ATTEMPTS,
    check_columns,
    columns_of,
    copy,
    discarding,
    quoted,
    rewritten_name,
    same_row,
)
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.lake import LakeTable


_PATIENT = 3


class Deletion(NamedTuple):
    """A delete: its place in write order, and how many rows it ended."""

    seq: int
    rows: int


def delete_rows(table: LakeTable, rows: pa.Table, on: Sequence[str]) -> Deletion:
    """Do what `LakeTable.delete` says."""
    check_columns(table.key, rows.schema, user_schema(table.open()), on)
    if not rows.num_rows:
        return Deletion(next_seq(), 0)
    con, name = engine().con, f"gone_{uuid4().hex}"
    con.register(name, rows.select(list(on)))
    try:
        for number in range(ATTEMPTS):
            try:
                # Somebody who is overtaken again and again by compactions has them wait.
                with table.writing() if number < _PATIENT else table.still():
                    return _attempt(con, table, f"SELECT 1 FROM {name} g WHERE {same_row('r', 'g', on)}")
            except Overtaken:
                pause(number)
        raise StoreError(
            f"Table {table.key!r} is rewritten by another host again and again",
            exists="Every row is as it was",
            next_step="let its maintenance finish, then delete again",
        )
    finally:
        con.unregister(name)


def _attempt(con: Any, table: LakeTable, chosen: str) -> Deletion:
    _add_column(table)
    paths = [file.path for file in files_of(table.open())]
    seq, hit = next_seq(), _hit(con, table, paths, chosen)
    if not hit:
        return Deletion(seq, 0)
    with discarding(table.path, table.key) as made:
        for path in hit:
            made.append(rewritten_name(path, seq))
            _mark(con, Path(table.path) / path, Path(table.path) / made[-1], chosen=chosen, seq=seq)
        swap_files(table.key, table.path, old=list(hit), new=made, data_change=True)
    return Deletion(seq, sum(hit.values()))


def _add_column(table: LakeTable) -> None:
    from deltalake import Field
    from deltalake.schema import PrimitiveType

    def attempt() -> None:
        delta = table.open()
        if DELETED not in arrow_schema(delta).names:
            delta.alter.add_columns([Field(DELETED, PrimitiveType("long"), nullable=True)])

    with_retries(table.key, attempt)


def _hit(con: Any, table: LakeTable, paths: Sequence[str], chosen: str) -> dict[str, int]:
    """Return the files that hold chosen rows in force, and how many each."""
    if not paths:
        return {}
    files = [f"{table.path}/{path}" for path in paths]
    every = "FROM read_parquet(?, union_by_name = true, filename = true) r"
    known = [column for column, *_ in con.execute(f"DESCRIBE SELECT * {every}", [files]).fetchall()]
    alive = f"r.{quoted(DELETED)} IS NULL" if DELETED in known else "true"
    query = f"SELECT filename, count(*) {every} WHERE {alive} AND EXISTS ({chosen}) GROUP BY filename"
    rows = con.execute(query, [files]).fetchall()
    return {Path(name).name: count for name, count in rows}


def _mark(con: Any, old: Path, new: Path, *, chosen: str, seq: int) -> None:
    columns = columns_of(old)
    before = quoted(DELETED) if DELETED in columns else "NULL::BIGINT"
    kept = ", ".join(quoted(c) for c in columns if c != DELETED)
    # A query with a condition may hand out rows in another order than the file's.
    query = (
        f"SELECT {kept}, coalesce({before}, CASE WHEN EXISTS ({chosen}) THEN {seq} END)::BIGINT AS {quoted(DELETED)} "
        "FROM read_parquet(?, file_row_number = true) r ORDER BY file_row_number"
    )
    copy(con, query, [[str(old)]], new)
