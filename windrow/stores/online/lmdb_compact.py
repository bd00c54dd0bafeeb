"""Compaction: rows are written one by one to a new file, so that nothing deleted is in any file any more.

LMDB leaves deleted bytes in free pages, in gaps of pages, and keys in the branches of its tree; a copy of pages
would keep some of them. Order of events, safe against death at any point: the new file is complete on the disk;
the old one says where the rows have moved (one commit: from then on everybody follows); ``current`` names the
new file; the old one goes.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from windrow.stores.online.lmdb_environment import MOVED_KEY, Environment, next_file, open_file, point_to, remove
from windrow.stores.online.store import TXN_ROWS


def compact(shared: Environment) -> None:
    """Move every row to a new file; other writers wait until it is done, readers go on with the old one."""
    with shared.writer() as txn:
        target = next_file(shared.file)
        remove(target)
        _copy(txn, target, int(shared.env.info()["map_size"]))
        txn.put(MOVED_KEY, target.name.encode())
    point_to(shared.path, target)
    shared.follow()


def _copy(txn: Any, target: Path, map_size: int) -> None:
    env = open_file(target, write=True, map_size=map_size, sync=False, create=True)
    try:
        with txn.cursor() as cursor:
            items = iter(cursor)
            while batch := list(islice(items, TXN_ROWS)):
                with env.begin(write=True) as copy:
                    _append(copy, batch)
        env.sync(True)
    finally:
        env.close()


def _append(copy: Any, batch: list[tuple[bytes, bytes]]) -> None:
    with copy.cursor() as cursor:
        cursor.putmulti(batch, append=True)
