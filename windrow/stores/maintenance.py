"""Maintenance of tables: sorted compaction, a checkpoint of the log, and the removal of files that nobody needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from windrow.stores.compaction import compact, small_files
from windrow.stores.delta import commit_failed, files_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from windrow.stores.lake import Lake, LakeTable

SMALL_FILES = 20  # a table with more of them is compacted
KEEP_HOURS = 7 * 24  # old files stay as long, for readers in flight and for operators who look at old versions

_T = TypeVar("_T")


class Maintained(msgspec.Struct, frozen=True, kw_only=True):
    """What the maintenance of one table did.

    Attributes
    ----------
    files_before, files_after, bytes_before, bytes_after
        What a reader opens.
    files_removed
        Files of old versions that are gone from the disk now.
    log_before, log_after
        Entries of the log that somebody who opens the table has to read.
    """

    key: str
    rows_rewritten: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    files_removed: int
    log_before: int
    log_after: int
    seconds: float


def maintain(
    table: LakeTable, *, keys: Sequence[str] = (), small: int = SMALL_FILES, keep_hours: int = KEEP_HOURS
) -> Maintained:
    """Compact a table that has too many small files, write a checkpoint, and remove files of old versions.

    Parameters
    ----------
    table
        A table of the lake.
    keys
        The entity's keys that rows are sorted by before time.
    small
        More small files than this are compacted.
    keep_hours
        Files that no version needs any more stay for as long.

    Raises
    ------
    NotFoundError
        If nothing was written yet.
    StoreError
        If the table cannot be rewritten, or its log not be written; it holds what it held before.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> from windrow.stores.lake import Lake
    >>> table = Lake(tempfile.mkdtemp()).table("features/card_v1")
    >>> _ = [table.append(pa.table({"card_id": [card]})) for card in (3, 1, 2)]
    >>> done = maintain(table, keys=["card_id"], small=2)
    >>> done.files_before, done.files_after, done.log_after
    (3, 1, 0)
    """
    begin, before = time.perf_counter(), files_of(table.open())
    log_before = unread(table)
    rows = compact(table, keys=keys).rows if small_files(table) > small else 0
    with table.still():
        removed = _quietly(table, lambda: _vacuum(table.open(), keep_hours))
    delta = table.open()  # removing files is told in the log too
    if unread(table):
        _quietly(table, delta.create_checkpoint)
    _quietly(table, delta.cleanup_metadata)
    after = files_of(delta)
    return Maintained(
        key=table.key, rows_rewritten=rows, files_before=len(before), files_after=len(after),
        bytes_before=sum(f.bytes for f in before), bytes_after=sum(f.bytes for f in after), files_removed=len(removed),
        log_before=log_before, log_after=unread(table), seconds=time.perf_counter() - begin,
    )  # fmt: skip


def maintain_all(
    lake: Lake,
    keys: Mapping[str, Sequence[str]],
    *,
    small: int = SMALL_FILES,
    keep_hours: int = KEEP_HOURS,
    told: Callable[[str], object] = str,
) -> list[Maintained]:
    """Maintain every table of the lake, one after the other.

    Parameters
    ----------
    keys
        Table key -> the entity's keys, for those that have one.
    told
        Called with a table's key before its turn.
    """
    done, stored = [], lake.keys()
    for key in stored:
        told(key)
        done.append(maintain(lake.table(key), keys=keys.get(key, ()), small=small, keep_hours=keep_hours))
    return done


def crowded(lake: Lake, *, small: int = SMALL_FILES) -> list[str]:
    """Return the keys of tables with more than `small` small files.

    Examples
    --------
    >>> import tempfile
    >>> from windrow.stores.lake import Lake
    >>> crowded(Lake(tempfile.mkdtemp()))
    []
    """
    stored = lake.keys()
    return [key for key in stored if small_files(lake.table(key)) > small]


def unread(table: LakeTable) -> int:
    """Return how many log entries after the last checkpoint somebody who opens the table has to read."""
    log = Path(table.path) / "_delta_log"
    written = [int(p.stem) for p in log.glob("*.json") if p.stem.isdigit()]
    checkpoints = [int(p.name.partition(".")[0]) for p in log.glob("*.checkpoint.parquet")]
    last = max(checkpoints, default=-1)
    return sum(version > last for version in written)


def _vacuum(delta: DeltaTable, keep_hours: int) -> list[str]:
    # Files that no commit names are those of killed writers; younger ones may be on their way to a commit.
    return delta.vacuum(keep_hours, dry_run=False, enforce_retention_duration=False, full=True)


def _quietly(table: LakeTable, work: Callable[[], _T]) -> _T:
    from deltalake.exceptions import DeltaError

    try:
        return work()
    except (DeltaError, OSError) as error:
        raise commit_failed(table.key, error) from error
