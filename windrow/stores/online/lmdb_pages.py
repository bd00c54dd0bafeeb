"""The bytes of an online store in one LMDB write transaction: rows, counts, event ids, retired generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

from windrow.stores.online.directory import (
    RETIRED_KEY,
    count_key,
    due_prefix,
    prefix,
    seen_prefix,
)
from windrow.stores.online.generations import retired
from windrow.stores.online.rows import Packed, are_newer, pack, unpack
from windrow.stores.online.store import TXN_ROWS
from windrow.stores.online.transaction import Changes

_SIGN = 1 << 63  # makes the order of bytes the order of times
_PROBES = 16


class LmdbPages:
    """`Pages` of one LMDB write transaction."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key."""
        get = self._txn.get
        return [get(key) for key in keys]

    def seen(self, name: str, ids: Sequence[bytes]) -> list[bool]:
        """Return which ids are in the table of `name`."""
        start, get = seen_prefix(name), self._txn.get
        return [get(start + id) is not None for id in ids]

    def due(self, name: str, now: int, limit: int) -> list[bytes]:
        """Return ids of `name` that may be forgotten at `now`, the oldest first."""
        start, last = due_prefix(name), due_prefix(name) + _ordered(now)
        found: list[bytes] = []
        for key in _keys_from(self._txn, start):
            if not key.startswith(start) or key[: len(last)] > last or len(found) == limit:
                break
            found.append(key[len(last) :])
        return found


def flush(txn: Any, changes: Changes) -> None:
    """Write what a transaction changed."""
    for key in sorted(changes.values):
        value = changes.values[key]
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)
    for generation, more in changes.added.items():
        add(txn, generation, more)
    for name, id in changes.forgotten:
        until = txn.pop(seen_prefix(name) + id)
        if until is not None:
            txn.delete(due_prefix(name) + until + id)
    for (name, id), moment in changes.seen.items():
        txn.put(seen_prefix(name) + id, _ordered(moment))
        txn.put(due_prefix(name) + _ordered(moment) + id, b"")


def put_rows(txn: Any, generation: int, batch: Packed) -> int:
    """Store the rows that are newer than those that are there, count the entities; return the rows stored."""
    get, keys = txn.get, list(map(prefix(generation).__add__, batch.keys))
    step = max(1, len(keys) // _PROBES)
    if any(get(key) is not None for key in keys[::step]):
        return _put_newer(txn, generation, keys, batch.rows)
    added: int
    with txn.cursor() as cursor:
        # Behind everything that is there, rows need no search; one that is not is left out, as one that exists is.
        last = not cursor.last() or (bool(keys) and cursor.key() < keys[0])
        _, added = cursor.putmulti(zip(keys, batch.rows, strict=True), overwrite=False, append=last)
    add(txn, generation, added)
    return added + (_put_newer(txn, generation, keys, batch.rows) if added < len(keys) else 0)


def _put_newer(txn: Any, generation: int, keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
    with txn.cursor() as cursor:
        old = dict(cursor.getmulti(keys))
        fresh = [item for item in zip(keys, rows, strict=True) if item[0] not in old]
        rivals = [row for key, row in zip(keys, rows, strict=True) if key in old] if fresh else rows
        newer = list(compress(zip(old, rivals, strict=True), are_newer(rivals, list(old.values()))))
        cursor.putmulti(newer + fresh)
    add(txn, generation, len(fresh))
    return len(newer) + len(fresh)


def add(txn: Any, generation: int, more: int) -> None:
    """Add to the number of entities of a generation."""
    if more:
        txn.put(count_key(generation), pack(counted(txn, generation) + more))


def counted(txn: Any, generation: int) -> int:
    """Return the number of entities of a generation."""
    raw = txn.get(count_key(generation))
    number: int = unpack(raw) if raw else 0
    return number


def erase_some(txn: Any) -> bool:
    """Remove at most `TXN_ROWS` rows of retired generations; return whether there is more to do."""
    waiting = retired(txn.get(RETIRED_KEY))
    if not waiting:
        return False
    start, left = prefix(waiting[0]), TXN_ROWS
    with txn.cursor() as cursor:
        found = cursor.set_range(start)
        while found and left and cursor.key().startswith(start):
            found, left = cursor.delete(), left - 1
            # After a deletion the cursor stands on the next row, or past the last one.
            found = found and bool(cursor.key())
    if left:
        txn.delete(count_key(waiting[0]))
        txn.put(RETIRED_KEY, pack(waiting[1:]))
    return bool(waiting[1:]) or not left


def _keys_from(txn: Any, start: bytes) -> Iterator[bytes]:
    with txn.cursor() as cursor:
        if cursor.set_range(start):
            yield from cursor.iternext(keys=True, values=False)


def _ordered(moment: int) -> bytes:
    return (moment + _SIGN).to_bytes(8, "big")
