"""Delta itself: what it stores unchanged, and commits that lose nothing to whoever else is writing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from windrow.errors import SchemaError, StoreError, listed
from windrow.schema import EVENT_TIME, SEQ

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction, RemoveAction

# The `_seq` of the delete that ended a row; null, or not there at all, while the row is in force.
DELETED = "_deleted"
# Eight processes with fifty appends each lost six of them at deltalake's default of 15 (measured).
COMMIT_RETRIES = 200
_ATTEMPTS = 8
# Whoever opens a table reads every entry since the last checkpoint: a third of a millisecond each (measured).
CHECKPOINT_EVERY = 20
LOG_DAYS = 7  # entries of the log stay as long after a checkpoint has taken them in
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25
# Both make the Parquet files alone an incomplete answer, and the engine reads the files alone.
_UNREADABLE = {"deletionVectors": "deletion vectors", "columnMapping": "column mapping"}
_NARROWED = {"large_string": "string", "string_view": "string", "large_binary": "binary"}
_TIMES = "timestamp[us, tz=UTC]"
_STORED = ("bool", "int8", "int16", "int32", "int64", "float", "double", "string", "binary", "date32[day]", _TIMES)

_T = TypeVar("_T")


class File(NamedTuple):
    """A Parquet file of a table: its path in the table's folder, and its size in bytes."""

    path: str
    bytes: int


class Overtaken(Exception):  # noqa: N818 - not a failure: somebody else was quicker, and the work is done again
    """Another commit took away a file that was to be replaced."""


def open_delta(path: str) -> DeltaTable | None:
    """Return the table in a folder as it is now, or None if there is none."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(path)
    except TableNotFoundError:
        return None


def configuration(schema: pa.Schema) -> dict[str, str | None]:
    """Return the properties of a new table: how long its log is kept, how often summed up, and of which columns it holds least and greatest.

    Only of the event time: values of other columns would stay readable in the log when their rows are long gone.
    """
    told = EVENT_TIME if EVENT_TIME in schema.names else SEQ
    return {
        "delta.logRetentionDuration": f"interval {LOG_DAYS} days",
        "delta.checkpointInterval": str(CHECKPOINT_EVERY),
        "delta.dataSkippingStatsColumns": told,
    }


def files_of(delta: DeltaTable) -> list[File]:
    """Return the files of the version that `delta` holds, those of sorted rewrites in their order."""
    import pyarrow as pa

    actions = pa.table(delta.get_add_actions())
    found = zip(actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True)
    return sorted(File(path, size) for path, size in found)


def swap_files(key: str, path: str, *, old: Sequence[str], new: Sequence[str], data_change: bool = False) -> DeltaTable:
    """Commit the files `new` in the place of `old`, whatever else was committed since `old` were read.

    A commit is tried for exactly the version after the one in which all of `old` were seen, so that
    no other can slip in between: deltalake alone would let two writers replace one file by two.

    Parameters
    ----------
    key, path
        The table's name for errors, and its folder.
    old, new
        Paths in the folder; the new ones are written already.
    data_change
        Whether rows changed, or only their arrangement.

    Raises
    ------
    Overtaken
        If one of `old` is gone: its rows are in other files now.
    StoreError
        If the commit fails for another reason, or still meets others after 200 attempts.
    """
    from deltalake import CommitProperties
    from deltalake.exceptions import CommitFailedError

    alone = CommitProperties(max_commit_retries=0)
    for number in range(COMMIT_RETRIES):
        delta = _current(key, path, old)
        try:
            actions: list[AddAction | RemoveAction] = [*_added(path, new, data_change), *_removed(old, data_change)]
            delta.create_write_transaction(actions, mode="append", schema=delta.schema(), commit_properties=alone)
            return delta
        except CommitFailedError as error:
            if number == COMMIT_RETRIES - 1:
                raise commit_failed(key, error) from error
        except OSError as error:
            raise commit_failed(key, error) from error
        pause(number)
    raise AssertionError("unreachable")


def _current(key: str, path: str, old: Sequence[str]) -> DeltaTable:
    delta = open_delta(path)
    if delta is None or not set(old) <= {file.path for file in files_of(delta)}:
        raise Overtaken(key)
    return delta


def _added(path: str, new: Sequence[str], data_change: bool) -> list[AddAction]:
    from deltalake.transaction import AddAction

    now = time.time_ns() // 1_000_000
    return [
        AddAction(name, (Path(path) / name).stat().st_size, {}, now, data_change, _statistics(Path(path) / name))
        for name in new
    ]


def _statistics(file: Path) -> str:
    """Return the statistics that the log keeps of a file, as `configuration` says."""
    import msgspec
    import pyarrow.parquet as pq

    metadata = pq.ParquetFile(file).metadata
    facts: dict[str, object] = {"numRecords": metadata.num_rows}
    at = next((i for i in range(metadata.num_columns) if metadata.schema.column(i).path == EVENT_TIME), None)
    if at is not None and metadata.num_rows:
        parts = [metadata.row_group(i).column(at).statistics for i in range(metadata.num_row_groups)]
        if all(part is not None and part.has_min_max for part in parts):
            ends = min(p.min for p in parts), max(p.max for p in parts)
            facts |= {name: {EVENT_TIME: _iso(end)} for name, end in zip(("minValues", "maxValues"), ends, strict=True)}
    return msgspec.json.encode(facts).decode()


def _iso(moment: object) -> str:
    return str(moment).replace("+00:00", "Z").replace(" ", "T")


def _removed(old: Sequence[str], data_change: bool) -> list[RemoveAction]:
    from deltalake.transaction import RemoveAction

    now = time.time_ns() // 1_000_000
    return [RemoveAction(name, data_change, now, partition_values={}) for name in old]


def with_retries(key: str, attempt: Callable[[], _T]) -> _T:
    """Return what `attempt` returns, trying again while it only meets other writers."""
    from deltalake.exceptions import DeltaError

    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except (DeltaError, OSError) as error:
            if number == _ATTEMPTS - 1 or not _may_pass(error):
                raise commit_failed(key, error) from error
        pause(number)
    raise AssertionError("unreachable")


def pause(number: int) -> None:
    """Wait before attempt `number` + 1, with jitter, so that writers that met once do not meet again."""
    time.sleep(min(_FIRST_PAUSE * 2.0**number, _LONGEST_PAUSE) * (0.5 + random.random()))  # noqa: S311 - not a secret


def _may_pass(error: Exception) -> bool:
    from deltalake.exceptions import CommitFailedError

    # Two processes that create one table at the same time: the second one's error has no type of its own.
    return isinstance(error, CommitFailedError) or "already exists" in str(error)


def commit_failed(key: str, error: Exception) -> StoreError:
    """Return the error of a commit that is not going to succeed."""
    reason = str(error).strip().splitlines()[0][:200]
    return StoreError(
        f"The commit to table {key!r} failed: {reason}",
        exists="Nothing of it is visible",
        next_step="check space and rights of the lake's folder, then write again",
    )


def refuse_unreadable(key: str, delta: DeltaTable) -> None:
    """Raise `StoreError` if another program gave the table deletion vectors or column mapping."""
    protocol, configuration = delta.protocol(), delta.metadata().configuration
    used = {_UNREADABLE[f] for f in protocol.reader_features or () if f in _UNREADABLE}
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        used.add("column mapping")
    if used:
        raise StoreError(
            f"Table {key!r} uses {' and '.join(sorted(used))}, which its files alone do not show",
            next_step="rewrite it without (copy its rows to a new table), and keep other programs from changing the lake",
        )


def plain(key: str, rows: pa.Table) -> pa.Table:
    """Return `rows` with nullable columns of types that Delta stores without changing a value."""
    import pyarrow as pa

    own = [name for name in (SEQ, DELETED) if name in rows.column_names]
    if own:
        raise SchemaError(
            f"Rows for table {key!r} already have {own[0]}", next_step=f"drop {own[0]}: the lake gives it"
        )
    if len(set(rows.column_names)) < len(rows.column_names):
        raise SchemaError(
            f"Rows for table {key!r} have a column twice",
            exists=f"They have {rows.column_names}",
            next_step="rename one of them",
        )
    fields = []
    for field in rows.schema:
        name = _NARROWED.get(str(field.type), str(field.type))
        if name not in _STORED:
            raise SchemaError(
                f"Table {key!r}: column {field.name!r} is {field.type}, which would not be stored unchanged",
                exists=f"Stored are {', '.join(_STORED)}",
                next_step=f"cast {field.name!r} to one of them (times: timestamp[us, tz=UTC])",
            )
        fields.append(pa.field(field.name, pa.type_for_alias(name) if name in _NARROWED.values() else field.type))
    return rows.cast(pa.schema(fields))


def fitted(key: str, rows: pa.Table, delta: DeltaTable) -> pa.Table:
    """Return `rows` in the stored order of columns; refuse any other difference."""
    stored = _types(user_schema(delta))
    stored.pop(SEQ, None)
    given = _types(rows.schema)
    if stored != given:
        raise SchemaError(
            f"Rows do not fit table {key!r}: {_difference(stored, given)}",
            exists=f"It stores {listed(stored)}",
            next_step="give exactly its columns and types, or raise the version of the declaration",
        )
    return rows.select(list(stored))


def widened(rows: pa.Table, delta: DeltaTable) -> None:
    """Add the columns that `rows` have and the table has not; whoever else did so meanwhile is met again and tried."""
    from deltalake import Field as DeltaField
    from deltalake import Schema

    stored = arrow_schema(delta).names
    new = [field for field in rows.schema if field.name not in stored]
    if new:
        import pyarrow as pa

        fields = Schema.from_arrow(pa.schema(new)).fields
        delta.alter.add_columns([DeltaField(f.name, f.type, nullable=True) for f in fields])


def numbered(rows: pa.Table, seq: int, delta: DeltaTable | None) -> pa.Table:
    """Return `rows` with their ``_seq`` and, where the table has ever seen a delete, as not deleted."""
    import pyarrow as pa

    made = rows.append_column(SEQ, pa.repeat(pa.scalar(seq, pa.int64()), rows.num_rows))
    if delta is None or DELETED not in arrow_schema(delta).names:
        return made
    return made.append_column(DELETED, pa.nulls(rows.num_rows, pa.int64()))


def arrow_schema(delta: DeltaTable) -> pa.Schema:
    """Return all stored columns."""
    import pyarrow as pa

    # deltalake speaks the Arrow PyCapsule protocol; views of text come back as plain text.
    return pa.schema(delta.schema().to_arrow())


def user_schema(delta: DeltaTable) -> pa.Schema:
    """Return the stored columns without the mark of deleted rows."""
    schema = arrow_schema(delta)
    at = schema.get_field_index(DELETED)
    return schema if at < 0 else schema.remove(at)


def _difference(stored: Mapping[str, str], given: Mapping[str, str]) -> str:
    missing, extra = sorted(set(stored) - set(given)), sorted(set(given) - set(stored))
    other = [f"{n!r} is {given[n]}, stored is {stored[n]}" for n in stored if n in given and given[n] != stored[n]]
    parts = [missing and f"missing {listed(missing)}", extra and f"unknown {listed(extra)}", ", ".join(other[:3])]
    return "; ".join(part for part in parts if part)


def _types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}
