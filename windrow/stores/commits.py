"""What the commits to a table did to its rows, read in Delta's own log: a compaction does nothing to them.

Each entry of the log says of every file whether rows changed with it or only their arrangement, so that a reader
who remembers a version knows, without reading a row, what is new to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

if TYPE_CHECKING:
    from windrow.stores.lake import LakeTable


class Point(msgspec.Struct, frozen=True, array_like=True):
    """A version of a table; another table at the same place, made after the first was removed, has another id."""

    table: str = ""
    version: int = -1


class _File(msgspec.Struct, rename="camel"):
    path: str
    data_change: bool = True


class _Action(msgspec.Struct, rename="camel"):
    add: _File | None = None
    remove: _File | None = None
    meta_data: msgspec.Raw | None = None


_ENTRY = msgspec.json.Decoder(_Action)


def point_of(table: LakeTable) -> Point:
    """Return the version that a table has now; raise `NotFoundError` if nothing was ever written."""
    delta = table.open()
    return Point(str(delta.metadata().id), delta.version())


def appended(table: LakeTable, before: Point, after: Point) -> list[str] | None:
    """Return the files whose rows were appended after one point and up to another, oldest first.

    Returns
    -------
    list of str or None
        Paths of Parquet files, none where no row is new; a file may be compacted away by now. None where rows were
        changed or removed too, or where the log does not reach back.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> from windrow.stores.compaction import compact
    >>> from windrow.stores.lake import Lake
    >>> table = Lake(tempfile.mkdtemp()).table("features/card_v1")
    >>> _ = table.append(pa.table({"card_id": [1]}))
    >>> first = point_of(table)
    >>> _ = table.append(pa.table({"card_id": [2]}))
    >>> second = point_of(table)
    >>> _ = compact(table)
    >>> len(appended(table, first, point_of(table))), appended(table, second, point_of(table))
    (1, [])
    >>> _ = table.delete(pa.table({"card_id": [1]}))
    >>> appended(table, first, point_of(table)) is None
    True
    """
    if before.table != after.table or before.version > after.version:
        return None
    found: list[str] = []
    try:
        for version in range(before.version + 1, after.version + 1):
            for action in _actions(table, version):
                if action.meta_data is not None or (action.remove and action.remove.data_change):
                    return None
                if action.add and action.add.data_change:
                    found.append(f"{table.path}/{unquote(action.add.path)}")
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # cleaned away, or cut at this moment
    return found


def _actions(table: LakeTable, version: int) -> Iterator[_Action]:
    entry = Path(table.path) / "_delta_log" / f"{version:020d}.json"
    yield from map(_ENTRY.decode, entry.read_bytes().splitlines())
