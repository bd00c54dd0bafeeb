"""The bytes of an online store in one Redis transaction: reads are watched, changes go out in one MULTI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from windrow.stores.online.directory import count_key, due_prefix
from windrow.stores.online.transaction import Changes


class RedisPages:
    """`Pages` over a pipeline that watches what it reads.

    Parameters
    ----------
    pipe
        A redis-py pipeline.
    guarded
        Turns errors of the server into those of the house.
    root
        What every key begins with.
    """

    def __init__(self, pipe: Any, guarded: Callable[[], AbstractContextManager[None]], root: bytes) -> None:
        self._pipe, self._guarded, self._root = pipe, guarded, root

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key."""
        names = [self._root + key for key in keys]
        with self._guarded():
            self._pipe.watch(*names)
            found: list[bytes | None] = self._pipe.mget(names)
        return found

    def seen(self, name: str, ids: Sequence[bytes]) -> list[bool]:
        """Return which ids are in the table of `name`."""
        table = self._root + due_prefix(name)
        with self._guarded():
            self._pipe.watch(table)
            return [score is not None for score in self._pipe.zmscore(table, list(ids))]

    def due(self, name: str, now: int, limit: int) -> list[bytes]:
        """Return ids of `name` that may be forgotten at `now`, the oldest first."""
        table = self._root + due_prefix(name)
        with self._guarded():
            self._pipe.watch(table)  # without it, redis-py would put the question off until the commit
            found: list[bytes] = self._pipe.zrangebyscore(table, "-inf", now, start=0, num=limit)
        return found


def commit(pipe: Any, changes: Changes, root: bytes) -> None:
    """Write what a transaction changed; raise `redis.WatchError` if what it read has changed meanwhile."""
    pipe.multi()
    kept = {root + key: value for key, value in changes.values.items() if value is not None}
    gone = [root + key for key, value in changes.values.items() if value is None]
    if kept:
        pipe.mset(kept)
    if gone:
        pipe.delete(*gone)
    for generation, more in changes.added.items():
        pipe.incrby(root + count_key(generation), more)
    for name, id in changes.forgotten:
        pipe.zrem(root + due_prefix(name), id)
    for name in {name for name, _ in changes.seen}:
        ids = {id: until for (table, id), until in changes.seen.items() if table == name}
        pipe.zadd(root + due_prefix(name), ids)
    pipe.execute()
