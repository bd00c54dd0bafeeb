"""The embedded online store: one memory-mapped LMDB folder, read and written by any number of processes.

A row is one value, so a reader sees an old row or a new one, never a mixture. Writers take turns, one
transaction each: a bulk load keeps nobody waiting for longer than `TXN_ROWS` rows take.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import lmdb
import msgspec

from windrow.clock import SECOND
from windrow.errors import StoreError
from windrow.stores.online import lmdb_environment as files
from windrow.stores.online.directory import (
    FORMAT,
    FORMAT_KEY,
    LOADS_KEY,
    NOWHERE,
    RETIRED_KEY,
    Group,
    group_key,
    mark_key,
    unpack_group,
)
from windrow.stores.online.generations import check_loading, retire_dead
from windrow.stores.online.lmdb_environment import MAP_SIZE, Moved, absent, guarded
from windrow.stores.online.lmdb_pages import LmdbPages, counted, erase_some, flush, put_rows
from windrow.stores.online.load import Load, attempt
from windrow.stores.online.rows import (
    Block,
    Packed,
    block_or_rows,
    check_key,
    pack,
    pack_key,
    pack_keys,
    packed_batches,
    unpack,
    unpack_row,
)
from windrow.stores.online.store import Key, Row
from windrow.stores.online.transaction import Changes, Conflict, Transaction

_T = TypeVar("_T")
_ATTEMPTS = 100
_FEW = 4  # look-ups that are best done one by one
_HEARD_OF = 60 * SECOND


class LmdbStore:
    """An `OnlineStore` in a local folder.

    Parameters
    ----------
    path
        Folder; a writer makes it.
    write
        Whether to write.
    map_size
        First size of the map in bytes; it doubles when it is full, and readers follow.

    Raises
    ------
    NotFoundError
        If nothing was written yet and this is a reader.
    StoreError
        If the files cannot be used.
    """

    def __init__(self, path: Path, *, write: bool = False, map_size: int = MAP_SIZE) -> None:
        self._path, self._write = path.absolute(), write
        self._shared = files.acquire(self._path, write=write, map_size=map_size)
        self._close = weakref.finalize(self, files.release, self._shared, os.getpid())
        try:
            self._check_format()
            if write:
                self._shared.check_readers(now=True)
                self._tidy()
        except BaseException:  # whatever it was, the map goes back before it is told
            self.close()
            raise

    def write(self, group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> int:
        """Store rows by key in transactions of at most `TXN_ROWS`; see `OnlineStore.write`."""
        return self.write_packed(group, columns, packed_batches(group, columns, rows))

    def write_packed(self, group: str, columns: Sequence[str], batches: Iterable[Packed]) -> int:
        """Store packed rows, one transaction for each batch; see `OnlineStore.write_packed`."""
        stored = self._store(group, columns, Packed((), [], []))
        return stored + sum(self._store(group, columns, batch) for batch in batches)

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        found = self._reading(self._entry, group)
        return found.columns if found else None

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key), in one read transaction.

        Raises
        ------
        StoreError
            If a key has other types than the group's keys (``"1"`` is never ``1``).
        """
        return self._reading(self._read, wanted)

    def read_blocks(self, wanted: Sequence[tuple[str, Sequence[Key]]]) -> list[Block | list[Row | None]]:
        """Return what `read` does for the keys of each group, in one read transaction; see `OnlineStore.read_blocks`."""
        return self._reading(self._read_blocks, wanted)

    def count(self, group: str) -> int:
        """Return the number of entities of a group."""
        return self._reading(self._count, group)

    def check(self) -> None:
        """Notice that the file was removed, or is there again; see `OnlineStore.check`."""
        self._shared.check_file()

    def mark(self, name: str) -> bytes | None:
        """Return what a transaction kept under `name`."""
        return self._reading(_value, mark_key(name))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read, change and write in one step; other writers wait meanwhile. See `OnlineStore.transaction`."""
        self._check_open(writing=True)
        begun, number = None, 0
        try:
            with self._shared.writer() as txn:
                number, begun = txn.id(), Transaction(LmdbPages(txn))
                yield begun
                with guarded(self._path):
                    flush(txn, begun.changes)
        except lmdb.MapFullError:
            if begun is None:
                raise
            self._flush_again(begun.changes, number)

    def _flush_again(self, changes: Changes, number: int) -> None:
        # What was read is still true if nobody has committed since the map was found to be full.
        while True:
            self._shared.resize(double=True)
            with suppress(lmdb.MapFullError), guarded(self._path), self._shared.writer() as txn:
                if txn.id() != number:
                    raise Conflict("the online store was changed while its map grew", next_step="try again")
                flush(txn, changes)
                return

    def bulk(self, group: str, columns: Sequence[str]) -> Load:
        """Begin to fill a new generation of a group; see `OnlineStore.bulk`."""
        return Load(self, group, columns)

    def fill(self, group: str, generation: int, batch: Packed) -> int:
        """Store one batch of a bulk load."""
        return self._writing(lambda txn: _fill(txn, group, generation, batch))

    def delete(self, group: str, keys: Iterable[Key]) -> int:
        """Remove entities from a group; see `OnlineStore.delete`."""
        wanted = list(keys)
        return attempt(self, lambda txn: sum([txn.delete(group, key) for key in wanted]))

    def compact(self) -> None:
        """Write every row to a new file and let everybody change over to it; see `OnlineStore.compact`."""
        from windrow.stores.online.lmdb_compact import compact

        self._check_open(writing=True)
        with guarded(self._path):
            compact(self._shared)

    def erase_retired(self) -> None:
        """Remove the rows of generations that no group points to."""
        while self._writing(erase_some):
            pass

    def close(self) -> None:
        """Give back the map; closing twice does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _reading(self, work: Callable[..., _T], *given: Any) -> _T:
        try:
            return self._shared.read(work, *given)
        except (Moved, lmdb.Error, msgspec.DecodeError):
            # Again with care: it follows rows that moved and a map that has grown, and says what is wrong else.
            return self._patiently(work, *given)

    def _patiently(self, work: Callable[..., _T], *given: Any) -> _T:
        self._check_open()
        for _ in range(_ATTEMPTS):
            try:
                with guarded(self._path):
                    return self._shared.read(work, *given)
            except lmdb.MapResizedError:
                self._shared.resize()
            except Moved:
                self._shared.follow()
        raise StoreError(f"the online store {self._path} keeps growing while it is read", next_step="try again")

    def _read(self, txn: Any, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        # The hottest loop of the house: types of a key are looked at only when nothing was found,
        # because keys of other types pack to other bytes.
        if len(wanted) > _FEW:
            return self._read_many(txn, wanted)
        found: list[Row | None] = []
        add_row, get, last, start, entry = found.append, txn.get, None, NOWHERE, None
        for group, key in wanted:
            if group != last:
                last, entry = group, self._entry(txn, group)
                start = entry.prefix if entry else NOWHERE
            raw = get(start + pack_key(key))
            if raw is None:
                if entry:
                    check_key(group, entry.key, key)
                add_row(None)
            else:
                add_row(unpack_row(raw))
        return found

    def _read_many(self, txn: Any, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Do the same in three passes, which for many rows is a tenth faster."""
        get, entries = txn.get, {group: self._entry(txn, group) for group in {group for group, _ in wanted}}
        starts = {group: entry.prefix if entry else NOWHERE for group, entry in entries.items()}
        keys = pack_keys([key for _, key in wanted])
        raws = [get(starts[group] + key) for (group, _), key in zip(wanted, keys, strict=True)]
        if None in raws:
            for (group, key), raw in zip(wanted, raws, strict=True):
                if raw is None and (entry := entries[group]):
                    check_key(group, entry.key, key)
        return [None if raw is None else unpack_row(raw) for raw in raws]

    def _read_blocks(self, txn: Any, wanted: Sequence[tuple[str, Sequence[Key]]]) -> list[Block | list[Row | None]]:
        found: list[Block | list[Row | None]] = []
        for group, keys in wanted:
            entry = self._entry(txn, group)
            start = entry.prefix if entry else NOWHERE
            raws = [txn.get(start + key) for key in pack_keys(keys)]
            width, types = (len(entry.columns), entry.key) if entry else (0, ())
            found.append(block_or_rows(group, types, width, keys, raws))
        return found

    def _entry(self, txn: Any, group: str) -> Group | None:
        known = self._shared.known
        if group not in known:
            raw = txn.get(group_key(group))
            known[group] = unpack_group(raw) if raw else None
        return known[group]

    def _count(self, txn: Any, group: str) -> int:
        entry = self._entry(txn, group)
        return counted(txn, entry.id) if entry else 0

    def _store(self, group: str, columns: Sequence[str], batch: Packed) -> int:
        def work(txn: Any) -> int:
            begun = Transaction(LmdbPages(txn))
            entry = begun.declare(group, columns, batch.types)
            flush(txn, begun.changes)
            stored = [put_rows(txn, generation, batch) for generation in entry.generations]
            return stored[0]

        return self._writing(work)

    def _writing(self, work: Callable[[Any], _T]) -> _T:
        self._check_open(writing=True)
        while True:
            try:
                with guarded(self._path), self._shared.writer() as txn:
                    return work(txn)
            except lmdb.MapFullError:
                self._shared.resize(double=True)

    def _check_open(self, *, writing: bool = False) -> None:
        if not self._close.alive:
            raise StoreError(f"the online store {self._path} is closed", next_step="open it again")
        if writing and not self._write:
            raise StoreError(f"the online store {self._path} is open for reading", next_step="open it with write=True")

    def _check_format(self) -> None:
        found = self._patiently(lambda txn: txn.get(FORMAT_KEY))
        if found is None and not self._write:
            raise absent(self._path)
        if found is None:
            self._writing(lambda txn: txn.put(FORMAT_KEY, pack(FORMAT)))
        elif (number := unpack(found)) != FORMAT:
            raise StoreError(
                f"the online store {self._path} has format {number}",
                exists=f"This windrow reads format {FORMAT}",
                next_step="delete the folder and run `windrow run SERVICE`",
            )

    def _tidy(self) -> None:
        """Remove what processes that died left behind."""
        if self._patiently(lambda txn: (txn.get(LOADS_KEY) or txn.get(RETIRED_KEY)) is not None):
            attempt(self, lambda txn: retire_dead(txn, now=time.time_ns() // 1000))
            self.erase_retired()


def _fill(txn: Any, group: str, generation: int, batch: Packed) -> int:
    begun = Transaction(LmdbPages(txn))
    entry = begun.entry(group)
    check_loading(group, entry, generation)
    now = time.time_ns() // 1000
    if entry.joined(group, batch.types) or now > entry.touched + _HEARD_OF:
        entry.touched = now
        begun.keep(group, entry)
        flush(txn, begun.changes)
    return put_rows(txn, generation, batch)


def _value(txn: Any, key: bytes) -> bytes | None:
    found: bytes | None = txn.get(key)
    return found
