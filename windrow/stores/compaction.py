"""Sorted compaction: many small files become few, sorted by key and time, with every row of every ``as_of``.

The rows are written again range by range, so that memory holds one range; ranges follow a sample of the
rows, so that they are of one size whatever the keys are. The commit takes exactly the files away that were
read: what is appended meanwhile stays beside them, and readers in flight keep the old files until `vacuum`.
"""
# ruff: noqa: S608 - the statements hold quoted identifiers and whole numbers; values are parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.errors import SchemaError, StoreError, listed
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.delta import File, Overtaken, files_of, pause, swap_files, user_schema
from windrow.stores.engine import engine
from windrow.stores.rewriting import ATTEMPTS, copy, discarding, quoted
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.lake import LakeTable

SMALL = 32 << 20  # bytes: smaller files are what a table has too many of
RANGE_ROWS, RANGE_BYTES = 1_000_000, 128 << 20  # of one range, which is sorted in memory and becomes one file
_SAMPLE = 50_000
# Rewriting all of a large table for few new rows costs more than one more sorted run does on reading.
_WORTH = 4


class Compaction(NamedTuple):
    """What was rewritten: files and bytes taken away and put in their place; none where there was nothing to gain."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rows: int


class _Order(NamedTuple):
    """What rows are sorted by: quoted columns, and the same as plain values that a boundary can hold."""

    columns: list[str]
    values: list[str]

    def from_bound(self, bound: Sequence[Any]) -> tuple[str, list[Any]]:
        """Return the condition, and its values, that a row is `bound` or comes after it; null comes last."""
        condition = "true"
        for value in reversed(self.values):
            condition = f"({value} > ? OR {value} IS NULL OR ({value} = ? AND {condition}))"
        return condition, [part for part in bound for _ in range(2)]

    def first(self, comparison: str) -> str:
        """Compare the first column alone, in the form that lets the engine skip row groups."""
        timed = self.values[0] != self.columns[0]
        return f"{self.columns[0]} {comparison} {'make_timestamptz(?::BIGINT)' if timed else '?'}"


def sort_columns(names: Sequence[str], keys: Sequence[str] = ()) -> list[str]:
    """Return what a table is sorted by: its entity's keys, its times, its write order.

    Examples
    --------
    >>> sort_columns(["card_id", "limit", "event_time", "known_at", "_seq"], ["card_id"])
    ['card_id', 'event_time', 'known_at', '_seq']
    """
    return [*keys, *(c for c in (EVENT_TIME, KNOWN_AT, SEQ) if c in names and c not in keys)]


def compact(
    table: LakeTable, *, keys: Sequence[str] = (), everything: bool = False, range_rows: int = RANGE_ROWS
) -> Compaction:
    """Rewrite the small files of a table as sorted ones, or all files once the small ones are a quarter of it.

    Parameters
    ----------
    table
        Any table of the lake.
    keys
        The entity's keys, which the rows are sorted by before time; none for a table of events.
    everything
        Rewrite every file, whatever its size.
    range_rows
        Most rows that are sorted at once; what memory has to hold.

    Returns
    -------
    Compaction
        Zeros where there was nothing to gain.

    Raises
    ------
    NotFoundError
        If nothing was written yet.
    SchemaError
        If a key is not a column.
    StoreError
        If the disk is full, or other rewrites of the same files are quicker every time.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> from windrow.stores.lake import Lake
    >>> table = Lake(tempfile.mkdtemp()).table("features/card_v1")
    >>> _ = [table.append(pa.table({"card_id": [card]})) for card in (3, 1, 2)]
    >>> compact(table, keys=["card_id"])[:2], table.scan(engine()).card_id.to_pyarrow().to_pylist()
    ((3, 1), [1, 2, 3])
    """
    for number in range(ATTEMPTS):
        try:
            with table.writing():
                delta = table.open()
                chosen = _chosen(files_of(delta), everything=everything)
                if not chosen:
                    return Compaction(0, 0, 0, 0, 0)
                return _rewrite(table, chosen, _order(table, user_schema(delta), keys), range_rows=range_rows)
        except Overtaken:
            pause(number)
    raise StoreError(
        f"Table {table.key!r} is rewritten by somebody else again and again",
        exists="It holds what it held before",
        next_step="let one maintenance run at a time",
    )


def small_files(table: LakeTable) -> int:
    """Return how many files of a table are small; 0 where nothing was written yet."""
    return sum(file.bytes < SMALL for file in files_of(table.open())) if table.exists else 0


def _chosen(files: Sequence[File], *, everything: bool) -> list[File]:
    if everything:
        return list(files)
    small = [file for file in files if file.bytes < SMALL]
    large = sum(file.bytes for file in files) - sum(file.bytes for file in small)
    chosen = list(files) if sum(file.bytes for file in small) * _WORTH >= large else small
    return chosen if len(small) > 1 else []


def _order(table: LakeTable, schema: pa.Schema, keys: Sequence[str]) -> _Order:
    import pyarrow as pa

    missing = [name for name in keys if name not in schema.names]
    if missing:
        raise SchemaError(
            f"Table {table.key!r} cannot be sorted by {listed(missing)}",
            exists=f"It has {listed(schema.names)}",
            next_step="give the entity's keys as they are stored",
        )
    names = sort_columns(schema.names, keys)
    times = [pa.types.is_timestamp(schema.field(name).type) for name in names]
    columns = [quoted(name) for name in names]
    return _Order(columns, [f"epoch_us({c})" if time else c for c, time in zip(columns, times, strict=True)])


def _rewrite(table: LakeTable, chosen: Sequence[File], order: _Order, *, range_rows: int) -> Compaction:
    con, seq = engine().con, next_seq()
    files = [f"{table.path}/{file.path}" for file in chosen]
    size, total = sum(file.bytes for file in chosen), _count(con, files)
    per_range = max(1, min(range_rows, total * RANGE_BYTES // max(size, 1)))
    with discarding(table.path, table.key) as made:
        for number, (condition, bounds) in enumerate(_ranges(con, files, order, count=-(-total // per_range))):
            made.append(f"sorted-{seq}-{number:05d}.parquet")
            _write(con, files, order, condition=condition, bounds=bounds, target=Path(table.path) / made[-1])
        _check_count(table, total, made)
        swap_files(table.key, table.path, old=[file.path for file in chosen], new=made)
    after = sum((Path(table.path) / name).stat().st_size for name in made)
    return Compaction(len(chosen), len(made), size, after, total)


def _count(con: Any, files: Sequence[str]) -> int:
    found: int = con.execute("SELECT count(*) FROM read_parquet(?)", [list(files)]).fetchone()[0]
    return found


def _ranges(con: Any, files: Sequence[str], order: _Order, *, count: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield conditions, and their values, that each row meets exactly one of; rows compare as rows, null last."""
    ends = _boundaries(con, files, order, count=count) if count > 1 else []
    for low, high in zip([None, *ends], [*ends, None], strict=True):
        parts, values = ["true"], list[Any]()
        if low is not None:
            after, bound = order.from_bound(low)
            parts, values = [after], bound
        if high is not None:
            after, bound = order.from_bound(high)
            parts, values = [*parts, f"NOT {after}", order.first("<=")], [*values, *bound, high[0]]
        if low is not None and high is not None:
            # Rows without a value in the first column belong to the last range, which must not skip them.
            parts, values = [*parts, order.first(">=")], [*values, low[0]]
        yield " AND ".join(parts), values


def _boundaries(con: Any, files: Sequence[str], order: _Order, *, count: int) -> list[tuple[Any, ...]]:
    """Return at most ``count - 1`` different rows that cut a sample into parts of one size."""
    names = ", ".join(f"{value} AS b{i}" for i, value in enumerate(order.values))
    sample = f"SELECT {names} FROM read_parquet(?, union_by_name = true) USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (7)"
    rows = con.execute(f"SELECT * FROM ({sample}) ORDER BY ALL", [list(files)]).fetchall()
    cuts = [rows[i * len(rows) // count] for i in range(1, count)]
    # A boundary with a null compares in its own way: the range below it takes those rows too.
    return sorted({cut for cut in cuts if None not in cut})


def _write(
    con: Any, files: Sequence[str], order: _Order, *, condition: str, bounds: Sequence[Any], target: Path
) -> None:
    by = ", ".join(f"{c} NULLS LAST" for c in order.columns)
    query = f"SELECT * FROM read_parquet(?, union_by_name = true) WHERE {condition} ORDER BY {by}"
    copy(con, query, [list(files), *bounds], target)


def _check_count(table: LakeTable, total: int, made: Sequence[str]) -> None:
    written = _count(engine().con, [f"{table.path}/{name}" for name in made])
    if written != total:
        raise StoreError(
            f"Table {table.key!r}: compaction wrote {written} of {total} rows, so nothing was changed",
            next_step="report it: it must never happen",
        )
