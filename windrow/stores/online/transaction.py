"""Read, change and write online rows in one step: what a stream's applier does, and what ends a bulk load.

Changes are collected and written when the transaction ends; until then reads of this transaction see
them and nobody else does. If the process dies before the end, nothing happened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from windrow.errors import StoreError
from windrow.stores.online.directory import (
    NOWHERE,
    VERSION_KEY,
    Group,
    group_key,
    mark_key,
    prefix,
    seen_id,
    unpack_group,
)
from windrow.stores.online.generations import new_generation, retire
from windrow.stores.online.rows import (
    age,
    check_key,
    check_values,
    pack,
    pack_key,
    stored_key,
    stored_row,
    unpack_row,
)
from windrow.stores.online.store import NEXT_STEP, Key, Row


class Conflict(StoreError):
    """Somebody else changed what this transaction had read; nothing of it was written."""


class Pages(Protocol):
    """The bytes below a transaction; a backend gives them."""

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the stored value of each key; the transaction fails if one of them changes before it ends."""
        ...

    def seen(self, name: str, ids: Sequence[bytes]) -> list[bool]:
        """Return which ids are in the table of `name`."""
        ...

    def due(self, name: str, now: int, limit: int) -> list[bytes]:
        """Return ids of `name` that may be forgotten at `now`, at most `limit`."""
        ...


class Changes:
    """What a transaction will write.

    Attributes
    ----------
    values
        Key -> value, or None where it is deleted.
    added
        Generation -> entities more than before.
    seen, forgotten
        (table, id) -> the time until which it is kept; (table, id) that are no longer kept.
    """

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.added: dict[int, int] = {}
        self.seen: dict[tuple[str, bytes], int] = {}
        self.forgotten: set[tuple[str, bytes]] = set()


class Transaction:
    """Reads and writes that happen together or not at all; made by `OnlineStore.transaction`.

    Groups must have been declared: ``store.write(group, columns, [])``.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.stores.online.store import open_online
    >>> store = open_online(f"lmdb://{mkdtemp()}/online", write=True)
    >>> store.write("spend_v1", ["state"], [])
    0
    >>> with store.transaction() as txn:
    ...     if not txn.seen("payments", "p1", until=100):
    ...         txn.set("spend_v1", (7,), Row(10, 10, 0, (b"state",)))
    ...     txn.set_mark("payments", b"12")
    >>> store.read([("spend_v1", (7,))])[0].values, store.mark("payments")
    ((b'state',), b'12')
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._entries: dict[str, Group] = {}
        self._held: dict[bytes, bytes | None] = {}  # what was read: the same until the end, or there is no end
        self._asked: dict[tuple[str, bytes], bool] = {}
        self.changes = Changes()

    def get(self, group: str, key: Key) -> Row | None:
        """Return the row of an entity, with what this transaction did to it."""
        return self.read([(group, key)])[0]

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key), in one trip to the store.

        What was read is not asked for again: many `put` and `set` are quicker after one `read` of their keys.

        Raises
        ------
        StoreError
            If a key has other types than the group's keys.
        """
        keys = [self._place(group, key) for group, key in wanted]
        return [None if raw is None else unpack_row(raw) for raw in self.fetch(keys)]

    def put(self, group: str, key: Key, row: Row) -> bool:
        """Store a row unless one at least as new (event_time, known_at, seq) is there; return whether it was stored."""
        entry, packed, raw = self._checked(group, key, row)
        stored = [self._newest(generation, packed, raw) for generation in entry.generations]
        return stored[0]

    def set(self, group: str, key: Key, row: Row) -> None:
        """Store a row whatever is there: what was read in this transaction, and changed.

        It does not go into a bulk load that is under way: what the load lacks of it, the loader gives to
        `Load.switch`.
        """
        entry, packed, raw = self._checked(group, key, row)
        self._assign(entry.id, packed, raw, self.value(prefix(entry.id) + packed))

    def delete(self, group: str, key: Key) -> bool:
        """Remove an entity from a group; return whether it was there. A bulk load under way does not bring it back."""
        entry = self.entry(group)
        check_key(group, entry.key, key)
        place = prefix(entry.id) + pack_key(key)
        if entry.loading:
            # The load may have read the entity already: it is told, at its next batch, to begin again.
            retire(self, group, entry.loading)
        if self.value(place) is None:
            return False
        self.changes.values[place] = None
        self._count(entry.id, -1)
        return True

    def mark(self, name: str) -> bytes | None:
        """Return what `set_mark` kept under `name`, such as a stream's position."""
        return self.value(mark_key(name))

    def set_mark(self, name: str, value: bytes) -> None:
        """Keep `value` under `name`."""
        self.changes.values[mark_key(name)] = value

    def seen(self, name: str, id: str | int | bytes, until: int) -> bool:
        """Return whether the event `id` of stream `name` was seen before; from now on it was.

        Parameters
        ----------
        until
            UTC microseconds up to which it must be remembered; `prune` removes it afterwards.
        """
        place = (name, seen_id(id))
        if place in self.changes.seen:
            return True
        if place not in self.changes.forgotten:
            if place not in self._asked:
                self.expect(name, [id])
            if self._asked[place]:
                return True
        self.changes.seen[place] = until
        return False

    def expect(self, name: str, ids: Sequence[str | int | bytes]) -> None:
        """Ask for many event ids in one trip to the store; `seen` then answers without another."""
        packed = [seen_id(id) for id in ids]
        if packed:
            self._asked.update(zip([(name, id) for id in packed], self._pages.seen(name, packed), strict=True))

    def prune(self, name: str, now: int, *, limit: int = 10_000) -> int:
        """Forget event ids of stream `name` whose time is over at `now`; return how many, at most `limit`."""
        due = {(name, id) for id in self._pages.due(name, now, limit)} - self.changes.seen.keys()
        self.changes.forgotten |= due
        return len(due)

    def entry(self, group: str) -> Group:
        """Return the directory entry of a group; raise if it was never declared."""
        found = self._known(group)
        if found is None:
            raise StoreError(f"group {group!r} is not in the online store", next_step=NEXT_STEP)
        return found

    def declare(self, group: str, columns: Sequence[str], types: Sequence[str] = ()) -> Group:
        """Return the entry of a group, made now if it is new; raise if its columns or key types are others."""
        entry = self._known(group)
        if entry is None:
            entry = Group(new_generation(self), tuple(columns))
            self.keep(group, entry)
        entry.check_columns(group, columns)
        if entry.joined(group, types):
            self.keep(group, entry)
        return entry

    def keep(self, group: str, entry: Group) -> None:
        """Write a directory entry; what readers remember of the directory ends with it."""
        self._entries[group] = entry
        self.changes.values[group_key(group)] = pack(entry)
        self.changes.values[VERSION_KEY] = os.urandom(8)

    def value(self, key: bytes) -> bytes | None:
        """Return the bytes under one key of the store."""
        return self.fetch([key])[0]

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the bytes under each key of the store, with what this transaction did to them."""
        changed, held = self.changes.values, self._held
        missing = [key for key in keys if key not in changed and key not in held]
        if missing:
            held.update(zip(missing, self._pages.fetch(missing), strict=True))
        return [changed[key] if key in changed else held[key] for key in keys]

    def _known(self, group: str) -> Group | None:
        if group not in self._entries:
            raw = self.value(group_key(group))
            if raw is None:
                return None
            self._entries[group] = unpack_group(raw)
        return self._entries[group]

    def _checked(self, group: str, key: Key, row: Row) -> tuple[Group, bytes, bytes]:
        entry = self.entry(group)
        check_values(group, entry.columns, row)
        packed = stored_key(group, entry.key, key)
        if entry.joined(group, [type(part).__name__ for part in key]):
            self.keep(group, entry)
        return entry, packed, stored_row(group, row)

    def _place(self, group: str, key: Key) -> bytes:
        entry = self._known(group)
        if entry is not None:
            check_key(group, entry.key, key)
        return (prefix(entry.id) if entry else NOWHERE) + pack_key(key)

    def _newest(self, generation: int, key: bytes, row: bytes) -> bool:
        old = self.value(prefix(generation) + key)
        if old is not None and age(old) >= age(row):
            return False
        self._assign(generation, key, row, old)
        return True

    def _assign(self, generation: int, key: bytes, row: bytes, old: bytes | None) -> None:
        self.changes.values[prefix(generation) + key] = row
        self._count(generation, int(old is None))

    def _count(self, generation: int, more: int) -> None:
        self.changes.added[generation] = self.changes.added.get(generation, 0) + more
