"""The embedded online store: one memory-mapped LMDB folder, any number of reading processes, one writer.

Layout (format 1), one database: ``00 00`` -> format; ``00 00`` + group name -> `_Group`; the group's two
bytes + packed key -> packed `Row`. A row is one value, so a reader sees an old row or a new one, never a mixture.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import lmdb
import msgspec

from windrow.errors import NotFoundError, StoreError, listed
from windrow.stores.online import KEY_TYPES, NEXT_STEP, TXN_ROWS, Key, Row, newest_rows, pack, wrong_key

FORMAT = 1
MAP_SIZE = 1 << 30  # address space, not disk: the file grows as rows arrive, and the map doubles when it is full
LOCK_SECONDS = 10.0

_DIRECTORY = b"\x00\x00"
_LONGEST_KEY = 400  # bytes; LMDB takes 511
_TWO_PAGES = 8192
_Result = TypeVar("_Result")


class _Group(msgspec.Struct, array_like=True):
    """Directory entry; `id` (from 1) is the first two bytes of the group's keys."""

    id: int
    columns: tuple[str, ...]
    key: tuple[str, ...]
    count: int

    @property
    def prefix(self) -> bytes:
        return self.id.to_bytes(2, "big")


class _Known(NamedTuple):
    """What a reader remembers of a group; none of it ever changes."""

    prefix: bytes
    columns: tuple[str, ...] | None
    types: tuple[type, ...]


_UNKNOWN = _Known(b"\xff\xff", None, ())  # a prefix that no group gets


_decode_row = msgspec.msgpack.Decoder(Row).decode
_decode_age = msgspec.msgpack.Decoder(tuple[int, int, int, msgspec.Raw]).decode
_decode_group = msgspec.msgpack.Decoder(_Group).decode


class LmdbStore:
    """An `OnlineStore` in a local folder.

    Parameters
    ----------
    path
        Folder; a writer makes it.
    write
        Take the writer's lock and write.
    map_size
        First size of the map in bytes; it doubles when it is full, and readers follow.
    wait
        Seconds to wait for another writer to finish.

    Raises
    ------
    NotFoundError
        If nothing was written yet and this is a reader.
    StoreError
        If another process keeps the writer's lock, or the files cannot be used.
    """

    def __init__(
        self, path: Path, *, write: bool = False, map_size: int = MAP_SIZE, wait: float = LOCK_SECONDS
    ) -> None:
        self._path = path.absolute()
        self._write = write
        self._groups: dict[str, _Known] = {}
        if not write and not _has_pages(self._path / "data.mdb"):
            raise _absent(self._path)
        lock = _writer_lock(self._path, wait) if write else None
        self._shared = _acquire(self._path, lock, map_size)
        self._close = weakref.finalize(self, _release, self._shared, os.getpid(), lock)
        try:
            self._check_format()
        except BaseException:  # whatever it was, the lock and the map go back before it is told
            self.close()
            raise

    def write(self, group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> int:
        """Store rows by key in transactions of at most `TXN_ROWS`.

        A row at least as new, by (event_time, known_at, seq), is left as it is, so that writing the
        same rows again, or in another order, gives the same store.

        Returns
        -------
        int
            Rows stored.

        Raises
        ------
        StoreError
            If the group has other columns, a key or value has a type the store does not keep, or
            the disk is full.
        """
        if not self._write:
            raise StoreError(f"the online store {self._path} is open for reading", next_step="open it with write=True")
        self._env(lambda env: env.reader_check())
        stored, iterator = self._write_chunk(group, tuple(columns), []), iter(rows)
        while chunk := list(islice(iterator, TXN_ROWS)):
            stored += self._write_chunk(group, tuple(columns), chunk)
        return stored

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        known = self._groups.get(group) or self._reading(lambda txn: self._look_up(txn, group))
        return known.columns

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key), in one read transaction.

        Raises
        ------
        StoreError
            If a key has other types than the group's keys (``"1"`` is never ``1``).
        """
        try:
            return self._once(self._read, wanted)
        except (lmdb.Error, msgspec.DecodeError):
            # Again with care: it follows a map that has grown, and says what is wrong with any other.
            return self._reading(lambda txn: self._read(txn, wanted))

    def count(self, group: str) -> int:
        """Return the number of entities of a group."""
        entry = self._reading(lambda txn: _entry(txn, group))
        return entry.count if entry else 0

    def close(self) -> None:
        """Give back the map and, if it was held, the writer's lock; closing twice does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _reading(self, work: Callable[[Any], _Result]) -> _Result:
        for _ in range(100):
            try:
                return self._once(work)
            except lmdb.MapResizedError:
                # Another process made the map larger: take over its size and look again.
                self._env(lambda env: env.set_mapsize(0))
            except (lmdb.Error, msgspec.DecodeError) as error:
                raise _unusable(self._path, error) from error
        raise StoreError(f"the online store {self._path} keeps growing while it is read", next_step="try again")

    def _once(self, work: Callable[..., _Result], *given: Any) -> _Result:
        shared = self._shared
        if not self._close.alive:
            raise StoreError(f"the online store {self._path} is closed", next_step="open it again")
        with shared.lock:
            txn = shared.env.begin()
            try:
                return work(txn, *given)
            finally:
                txn.abort()

    def _read(self, txn: Any, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        # The hottest loop of the house: types of a key are looked at only when nothing was found,
        # because keys of other types pack to other bytes.
        found: list[Row | None] = []
        add, get, last, known = found.append, txn.get, None, _UNKNOWN
        for group, key in wanted:
            if group != last:
                last, known = group, self._groups.get(group) or self._look_up(txn, group)
            raw = get(known.prefix + _packed(key))
            if raw is None:
                _check_key(group, known, key)
                add(None)
            else:
                add(_decode_row(raw))
        return found

    def _look_up(self, txn: Any, group: str) -> _Known:
        entry = _entry(txn, group)
        if entry is None:
            return _UNKNOWN
        known = _Known(entry.prefix, entry.columns, tuple(KEY_TYPES[k] for k in entry.key))
        if known.types:
            self._groups[group] = known
        return known

    def _write_chunk(self, group: str, columns: tuple[str, ...], chunk: list[tuple[Key, Row]]) -> int:
        newest = newest_rows(group, columns, chunk)
        packed = {_packed(key): row for key, row in newest.items()}
        if _IMPOSSIBLE in packed:
            raise StoreError(
                f"group {group!r}: a key is beyond 64 bits or not valid text",
                next_step="cast the key to the entity's dtypes",
            )
        first = next(iter(newest), ())
        while True:
            try:
                return self._writing(lambda txn: _put(txn, _joined(txn, group, columns, first), group, packed))
            except lmdb.MapResizedError:
                self._env(lambda env: env.set_mapsize(0))
            except lmdb.MapFullError:
                self._env(lambda env: env.set_mapsize(2 * env.info()["map_size"]))

    def _writing(self, work: Callable[[Any], _Result]) -> _Result:
        if not self._close.alive:
            raise StoreError(f"the online store {self._path} is closed", next_step="open it again")
        try:
            with self._shared.lock, self._shared.env.begin(write=True) as txn:
                return work(txn)
        except (lmdb.MapResizedError, lmdb.MapFullError):
            raise
        except (lmdb.Error, msgspec.DecodeError) as error:
            raise _unusable(self._path, error) from error

    def _env(self, work: Callable[[Any], object]) -> None:
        with self._shared.lock, _guarded(self._path):
            work(self._shared.env)

    def _check_format(self) -> None:
        found = self._reading(lambda txn: txn.get(_DIRECTORY))
        if found is None and not self._write:
            raise _absent(self._path)
        if found is None:
            self._writing(lambda txn: txn.put(_DIRECTORY, pack(FORMAT)))
        elif (number := msgspec.msgpack.decode(found)) != FORMAT:
            raise StoreError(
                f"the online store {self._path} has format {number}",
                exists=f"This windrow reads format {FORMAT}",
                next_step="delete the folder and run `windrow run SERVICE`",
            )


_IMPOSSIBLE = b"\xfe"


def _packed(key: Key) -> bytes:
    try:
        packed = pack(key)
    except (OverflowError, UnicodeEncodeError, TypeError):
        return _IMPOSSIBLE  # nothing is stored under it, so nothing is found
    # A packed tuple never begins with 0xff, so a digest cannot meet a short key.
    return packed if len(packed) <= _LONGEST_KEY else b"\xff" + hashlib.sha256(packed).digest()


def _check_key(group: str, known: _Known, key: Key) -> None:
    if known.types and tuple(map(type, key)) != known.types:
        raise wrong_key(group, known.types, key)


def _entry(txn: Any, group: str) -> _Group | None:
    raw = txn.get(_DIRECTORY + group.encode())
    return None if raw is None else _decode_group(raw)


def _joined(txn: Any, group: str, columns: tuple[str, ...], key: Key) -> _Group:
    """Return the group's directory entry, made now if it is new, checked if it is not."""
    kinds = tuple(type(part).__name__ for part in key)
    entry = _entry(txn, group) or _Group(_next_id(txn), columns, kinds, 0)
    if entry.columns != columns:
        raise StoreError(
            f"group {group!r} is stored with columns {listed(entry.columns)}, but {listed(columns)} were given",
            next_step="raise the group's version",
        )
    if kinds and entry.key and entry.key != kinds:
        raise wrong_key(group, tuple(KEY_TYPES[k] for k in entry.key), key)
    entry.key = entry.key or kinds
    return entry


def _next_id(txn: Any) -> int:
    taken = [0]
    with txn.cursor() as cursor:
        found = cursor.set_range(_DIRECTORY + b"\x01")
        while found and cursor.key().startswith(_DIRECTORY):
            taken.append(_decode_group(cursor.value()).id)
            found = cursor.next()
    return max(taken) + 1


def _put(txn: Any, entry: _Group, group: str, newest: dict[bytes, Row]) -> int:
    stored, prefix = 0, entry.prefix
    for key in sorted(newest):
        row = newest[key]
        old = txn.get(prefix + key)
        if old is not None and _decode_age(old)[:3] >= row[:3]:
            continue
        entry.count += old is None
        stored += txn.put(prefix + key, pack(row))
    txn.put(_DIRECTORY + group.encode(), pack(entry))
    return stored


class _Environment:
    """The LMDB environment of one folder in this process: LMDB allows it to be opened once only."""

    def __init__(self, path: Path, *, write: bool, map_size: int) -> None:
        self.path, self.users, self.write, self.map_size = path, 0, write, map_size
        self.lock = threading.RLock()
        self.env = self._open()

    def _open(self) -> Any:
        with _guarded(self.path):
            return lmdb.open(
                str(self.path), map_size=self.map_size, readonly=not self.write, create=self.write,
                max_readers=512, max_spare_txns=4, readahead=False,
            )  # fmt: skip

    def make_writable(self, map_size: int) -> None:
        """Open again for writing; readers of this process wait for a moment and go on."""
        with self.lock:
            if not self.write:
                self.env.close()
                self.write, self.map_size = True, map_size
                self.env = self._open()


_GUARD = threading.RLock()  # re-entrant: a store that is forgotten is closed by the garbage collector, anywhere
_ENVIRONMENTS: dict[tuple[int, Path], _Environment] = {}


def _acquire(path: Path, lock: int | None, map_size: int) -> _Environment:
    write = lock is not None
    try:
        with _GUARD:
            # The process is part of the name: an environment does not survive a fork.
            shared = _ENVIRONMENTS.get((os.getpid(), path))
            if shared is None:
                shared = _ENVIRONMENTS[os.getpid(), path] = _Environment(path, write=write, map_size=map_size)
            elif write:
                shared.make_writable(map_size)
            shared.users += 1
            return shared
    except StoreError:
        if lock is not None:
            os.close(lock)
        raise


def _release(shared: _Environment, process: int, lock: int | None) -> None:
    if process != os.getpid():
        return
    with _GUARD, shared.lock:
        shared.users -= 1
        if shared.users == 0:
            del _ENVIRONMENTS[process, shared.path]
            shared.env.close()
    if lock is not None:
        os.close(lock)


def _has_pages(file: Path) -> bool:
    # A writer that has just made the file has not written its first two pages yet.
    return file.is_file() and file.stat().st_size >= _TWO_PAGES


def _absent(path: Path) -> NotFoundError:
    return NotFoundError(f"there is no online store in {path} yet", next_step=NEXT_STEP)


def _writer_lock(path: Path, wait: float) -> int:
    """Take the lock that says who writes; the operating system gives it back when the process ends."""
    with _guarded(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _busy(path, lock) from None
            time.sleep(0.02)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return lock


def _busy(path: Path, lock: int) -> StoreError:
    holder = os.pread(lock, 20, 0).decode() or "unknown"
    os.close(lock)
    return StoreError(
        f"the online store {path} is being written by process {holder}",
        next_step="wait until it has finished; only one process writes at a time",
    )


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> StoreError:
    reason = str(getattr(error, "strerror", None) or error)[:200]
    return StoreError(
        f"the online store {path} cannot be used: {reason}",
        next_step="check the folder and the disk, or set WINDROW_ONLINE",
    )
