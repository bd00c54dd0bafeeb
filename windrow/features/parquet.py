"""Answers too large for memory: the point-in-time join and the frame of a view, written to a Parquet file.

The spine goes through in stretches, and in each one group after the other is read: what a group gives is put
aside on disk at once, and in the end the columns of all groups are laid side by side, row group by row group.
So every group is read once per stretch, and memory holds what one group gives for one stretch, however many
groups there are and however long the spine is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from windrow.errors import StoreError
from windrow.features.asof import Found
from windrow.features.contract import Contract, Lookup
from windrow.features.history import Question
from windrow.features.join import Part, Table, features_of, parts

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

    Spine: TypeAlias = "pa.Table | ir.Table | pa.RecordBatchReader"
    # Rows of the spine, stored values and facts of the same rows -> columns to write.
    Finish = Callable[[pa.Table, Mapping[str, Any], Mapping[str, Any]], pa.Table]

MEMORY = 512 << 20
_BYTES = {"bool": 1, "int32": 4, "float32": 4, "string": 32}  # the others: 8


def point_in_time_to_parquet(
    con: Backend,
    spine: Spine,
    lookups: Sequence[Lookup],
    tables: Mapping[str, Table],
    into: Path,
    *,
    statuses: bool = True,
    as_of: int | None = None,
    memory: int = MEMORY,
) -> int:
    """Write what `windrow.features.join.point_in_time` returns to the Parquet file `into`.

    Parameters
    ----------
    con, lookups, tables, statuses, as_of
        As for `windrow.features.join.point_in_time`.
    spine
        Also a reader of record batches, so that the spine itself need not fit in memory.
    into
        The file, which appears when it is whole; the space beside it is needed twice.
    memory
        Bytes that one group's values for a stretch of the spine may take; the process takes a small multiple.

    Returns
    -------
    int
        Rows written: those of the spine, in its order.

    Raises
    ------
    StoreError
        If the file cannot be written, or is a folder; nothing is left behind.

    Examples
    --------
    >>> from windrow.stores.engine import engine
    >>> from windrow.testing import MemoryTable, times
    >>> rows = MemoryTable("profile_v1", pa.table({"card": [1], "limit": [10], "event_time": times(100)}))
    >>> spine = pa.table({"card": [2, 1], "event_time": times(150, 150)})
    >>> lookup = Lookup("profile_v1", "", {"card": "card"}, {"limit": "limit"}, {"limit": "int64"})
    >>> path = Path(tempfile.mkdtemp()) / "answer.parquet"
    >>> point_in_time_to_parquet(engine(), spine, [lookup], {"profile_v1": rows}, path)
    2
    >>> pq.read_table(path)["limit"].to_pylist()
    [None, 10]
    """

    def finish(rows: pa.Table, stored: Mapping[str, Any], facts: Mapping[str, Any]) -> pa.Table:
        columns = {name: rows.column(name) for name in rows.column_names}
        values = {value: stored[value] for lookup in lookups for value in lookup.columns}
        return pa.table(columns | values | (dict(facts) if statuses else {}))

    return _write(con, spine, lookups, tables, into=into, finish=finish, as_of=as_of, memory=memory)


def view_frame_to_parquet(
    con: Backend,
    contract: Contract,
    spine: Spine,
    tables: Mapping[str, Table],
    into: Path,
    *,
    functions: Mapping[str, Callable[..., Any]],
    as_of: int | None = None,
    memory: int = MEMORY,
) -> int:
    """Write what `windrow.features.join.view_frame` returns to the Parquet file `into`; return its rows.

    Parameters and errors are those of `view_frame` and of `point_in_time_to_parquet`.
    """

    def finish(rows: pa.Table, stored: Mapping[str, Any], facts: Mapping[str, Any]) -> pa.Table:
        return features_of(contract, rows, stored, facts=facts, functions=functions)

    return _write(con, spine, contract.lookups, tables, into=into, finish=finish, as_of=as_of, memory=memory)


def answer_to_parquet(
    con: Backend, question: Question, tables: Mapping[str, Table], into: Path, *, memory: int = MEMORY
) -> int:
    """Write what a `windrow.features.history.Question` is answered to the Parquet file `into`; return its rows.

    Parameters and errors are those of `point_in_time_to_parquet`.
    """
    spine, lookups, finish = question
    return _write(con, spine, lookups, tables, into=into, finish=finish, as_of=None, memory=memory)


def _write(
    con: Backend, spine: Spine, lookups: Sequence[Lookup], tables: Mapping[str, Table],
    *, into: Path, finish: Finish, as_of: int | None, memory: int,
) -> int:  # fmt: skip
    widths = [_width(lookup.dtypes.values()) for lookup in lookups]
    stretch = max(1, memory // max(widths, default=1))
    group = max(1, memory // 8 // max(1, sum(widths)))
    count = 0
    with _whole_file(into) as (beside, aside):
        writer: pq.ParquetWriter | None = None
        try:
            for rows in _stretches(con, spine, stretch):
                for made in _joined(con, rows, lookups, tables, finish=finish, aside=aside, group=group, as_of=as_of):
                    writer = writer or _writer(beside, made.schema)
                    writer.write_table(made, row_group_size=max(1, made.num_rows))
                    count += made.num_rows
        finally:
            if writer is not None:
                writer.close()
    return count


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Measurements hardly repeat: to look for repeats takes more time than all the rest of the writing.
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
    return pq.ParquetWriter(path, schema, use_dictionary=repeating or False)


def _joined(
    con: Backend, rows: pa.Table, lookups: Sequence[Lookup], tables: Mapping[str, Table],
    *, finish: Finish, aside: Path, group: int, as_of: int | None,
) -> Iterator[pa.Table]:  # fmt: skip
    """One stretch of the spine with all that was found for it, a row group at a time; no rows are one, of none."""
    pieces = [slice(begin, begin + group) for begin in range(0, max(rows.num_rows, 1), group)]
    kept = []
    for number, part in enumerate(parts(con, rows, lookups, tables=tables, as_of=as_of)):
        kept.append(_put_aside(part, pieces, aside / f"{number}.arrow"))
        del part  # before the next group is read, not after it
    readers = [(pa.ipc.open_file(path), values) for path, values in kept]
    for i, piece in enumerate(pieces):
        stored, facts = dict[str, Any](), dict[str, Any]()
        for reader, values in readers:
            batch = reader.get_batch(i)
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            stored |= {name: columns[name] for name in values}
            facts |= {name: column for name, column in columns.items() if name not in values}
        yield finish(rows.slice(piece.start, group), stored, facts)


def _put_aside(part: Part, pieces: Sequence[slice], path: Path) -> tuple[Path, list[str]]:
    """Write what a group gives, one batch per piece; return where, and which of its columns are values."""
    # Taking from many chunks puts them together again for every piece.
    if isinstance(part.found, Found):
        part = part._replace(found=replace(part.found, rows=part.found.rows.combine_chunks()))
    names, writer = list(part.values(slice(0, 0))), None
    for piece in pieces:
        made = pa.table(part.values(piece) | part.facts(piece))
        writer = writer or pa.ipc.new_file(path, made.schema)
        (batch,) = made.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], made.schema)]
        writer.write_batch(batch)
    if writer is not None:
        writer.close()
    return path, names


def _stretches(con: Backend, spine: Spine, rows: int) -> Iterator[pa.Table]:
    if isinstance(spine, pa.RecordBatchReader):
        yield from _gathered(spine, rows)
        return
    whole = spine if isinstance(spine, pa.Table) else con.to_pyarrow(spine)
    for begin in range(0, max(whole.num_rows, 1), rows):
        yield whole.slice(begin, rows)


def _gathered(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    held, count, any_rows = [], 0, False
    for batch in reader:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield pa.Table.from_batches(held, reader.schema)
            held, count, any_rows = [], 0, True
    if count or not any_rows:
        yield pa.Table.from_batches(held, reader.schema)


def _width(dtypes: Iterable[str]) -> int:
    return sum(_BYTES.get(dtype, 8) for dtype in dtypes)


@contextmanager
def _whole_file(into: Path) -> Iterator[tuple[Path, Path]]:
    """Give a file to write and a folder for what is put aside, both beside `into`; the file takes its place in the end."""
    if into.is_dir():
        raise StoreError(
            f"{into.name} cannot be written to {into.parent}: there is a folder of that name",
            next_step=f"name a file, such as {into.name}/rows.parquet",
        )
    aside = None
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
        yield aside / into.name, aside
        os.replace(aside / into.name, into)
    except OSError as error:
        raise StoreError(
            f"{into.name} cannot be written to {into.parent}: {error.strerror or error}",
            next_step="free space there, or choose another folder",
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
