"""One LMDB environment per folder and process: opened, grown, followed to a new file, given back.

The folder holds ``data.mdb`` or, after a compaction, ``data-N.mdb``, named in ``current``. Who still has the
old file open finds in it where the rows have moved (`MOVED_KEY`), and follows.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgspec

from windrow.errors import AwayError, NotFoundError, StoreError
from windrow.stores.online.directory import OWN, VERSION_KEY, Group
from windrow.stores.online.lmdb_length import check_length
from windrow.stores.online.store import NEXT_STEP

MAP_SIZE = 1 << 30  # address space, not disk: the file grows as rows arrive, and the map doubles when it is full
CHECK_SECONDS = 60.0  # between two looks for readers that died: until then they pin the pages they were reading
MOVED_KEY = OWN + b"x"
FIRST_FILE = "data.mdb"

_TWO_PAGES = 8192
_UNREAD = b""
_T = TypeVar("_T")


class Moved(Exception):  # noqa: N818 - no error: it says where to look
    """The rows are in another file now."""


class Environment:
    """The LMDB environment of one folder in this process: LMDB allows it to be opened once only.

    Attributes
    ----------
    known
        Directory entries as readers remember them, of the directory's `version`.
    """

    def __init__(self, path: Path, *, write: bool, map_size: int) -> None:
        self.path, self.users, self.write, self.map_size = path, 0, write, map_size
        self.lock = threading.RLock()  # held for every read: short
        self.writing = threading.RLock()  # held for every write: may wait for another process. Taken first
        self.known: dict[str, Group | None] = {}
        self.version, self._last_txn = _UNREAD, -1
        self._checked_at, self._busy = 0.0, False
        self._opened: os.stat_result | None = None  # what the file was when it was opened
        self.file, self.env = self._open(current_file(path))

    def read(self, work: Callable[..., _T], *given: Any) -> _T:
        """Call ``work(txn, *given)`` in a read transaction."""
        with self.lock:
            txn = self.env.begin()
            try:
                if txn.id() != self._last_txn:
                    self._look(txn)
                return work(txn, *given)
            finally:
                txn.abort()

    @contextmanager
    def writer(self) -> Iterator[Any]:
        """Give a write transaction: committed at the end, aborted by any error."""
        with self.writing:
            if self._busy:  # LMDB itself would wait for ever
                raise StoreError(
                    f"the online store {self.path} is written inside a transaction of the same thread",
                    next_step="use the transaction's own put, set and delete, or write when it has ended",
                )
            with guarded(self.path):
                txn = self._begin()
            try:
                self._busy = True
                yield txn
                with guarded(self.path):
                    txn.commit()
            finally:
                self._busy = False
                txn.abort()  # does nothing after a commit

    def _begin(self) -> Any:
        while True:
            self.check_readers()
            try:
                txn = self.env.begin(write=True)
            except lmdb.MapResizedError:
                self.resize()
                continue
            if txn.get(MOVED_KEY) is None:
                return txn
            txn.abort()
            self.follow()

    def check_file(self) -> None:
        """Open the folder's file again where it is another one than ours, or close ours where there is none.

        The map of a removed file would go on answering with what it held, that of one that was cut short would kill
        the process. What follows finds it closed.
        """
        if self.write or self._still_there():  # without the locks: to read a whole file takes its time
            return
        with self.writing, self.lock:
            if not self._still_there():
                with suppress(AwayError):
                    self._reopen(current_file(self.path))

    def _still_there(self) -> bool:
        try:
            if self._opened is None or not os.path.samestat(self._opened, self.file.stat()):
                return False
            check_length(self.file, self.env)
        except (OSError, lmdb.Error):
            return False
        return True

    def _look(self, txn: Any) -> None:
        """Forget what is remembered of the directory if it has changed since."""
        version = txn.get(VERSION_KEY)
        if version != self.version:
            if txn.get(MOVED_KEY) is not None:
                raise Moved
            self.known, self.version = {}, version
        self._last_txn = txn.id()

    def check_readers(self, *, now: bool = False) -> None:
        """Give back, once a minute, the places of readers that died: the pages they read could not be reused."""
        if now or time.monotonic() >= self._checked_at + CHECK_SECONDS:
            self.env.reader_check()
            self._checked_at = time.monotonic()

    def resize(self, *, double: bool = False) -> None:
        """Take over the map size of other processes, or double it."""
        with self.writing, self.lock, guarded(self.path):
            self.env.set_mapsize(2 * self.env.info()["map_size"] if double else 0)

    def make_writable(self, map_size: int) -> None:
        """Open again for writing; readers of this process wait for a moment and go on."""
        with self.writing, self.lock:
            if not self.write:
                self.write, self.map_size = True, map_size
                self._reopen(self.file)

    def follow(self) -> None:
        """Open the file that the rows have moved to."""
        with self.writing, self.lock:
            with guarded(self.path), self.env.begin() as txn:
                moved = txn.get(MOVED_KEY)
            if moved is not None:
                if self.write:  # the one who moved the rows may have died before it said so
                    point_to(self.path, self.path / moved.decode())
                # They may have moved on since, and the file that this one names may be gone.
                self._reopen(max(self.path / moved.decode(), current_file(self.path), key=_number))

    def _reopen(self, file: Path) -> None:
        self.env.close()
        self._opened = None
        self.known, self.version, self._last_txn, self._checked_at = {}, _UNREAD, -1, 0.0
        self.file, self.env = self._open(file)

    def _open(self, file: Path) -> tuple[Path, Any]:
        while True:
            try:
                with guarded(self.path):
                    self._opened = None if self.write else file.stat()
                    # Only the first file is made here; the others come complete from a compaction.
                    create = self.write and _number(file) == 0
                    env = open_file(file, write=self.write, map_size=self.map_size, create=create)
                    _check_opened(file, env)
            except StoreError:
                if (newer := current_file(self.path)) == file:
                    raise
            else:
                # Moved while it was being opened: a writer has made an empty file in place of the old one.
                newer = current_file(self.path)
                if _number(newer) <= _number(file):
                    return file, env
                env.close()
            file = newer


def open_file(file: Path, *, write: bool, map_size: int, sync: bool = True, create: bool = False) -> Any:
    """Open one LMDB file; a missing one is made if `create` says so."""
    if not create and not file.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return lmdb.open(
        str(file), subdir=False, map_size=map_size, readonly=not write, create=create,
        max_readers=512, max_spare_txns=4, readahead=False, sync=sync,
    )  # fmt: skip


def _check_opened(file: Path, env: Any) -> None:
    try:
        check_length(file, env)
    except OSError:
        env.close()
        raise


_GUARD = threading.RLock()  # re-entrant: a store that is forgotten is closed by the garbage collector, anywhere
_ENVIRONMENTS: dict[tuple[int, Path], Environment] = {}


def acquire(path: Path, *, write: bool, map_size: int) -> Environment:
    """Return the folder's environment in this process, opened now or shared."""
    if write:
        with guarded(path):
            path.mkdir(parents=True, exist_ok=True)
    elif not _has_pages(current_file(path)):
        # A writer that has just made the file has not written its first two pages yet.
        raise absent(path)
    with _GUARD:
        # The process is part of the name: an environment does not survive a fork.
        shared = _ENVIRONMENTS.get((os.getpid(), path))
        if shared is None:
            shared = _ENVIRONMENTS[os.getpid(), path] = Environment(path, write=write, map_size=map_size)
        elif write:
            shared.make_writable(map_size)
        shared.users += 1
        return shared


def release(shared: Environment, process: int) -> None:
    """Give back one use of an environment; the last one closes it."""
    if process != os.getpid():
        return
    with _GUARD, shared.writing, shared.lock:
        shared.users -= 1
        if shared.users == 0:
            del _ENVIRONMENTS[process, shared.path]
            shared.env.close()


def current_file(path: Path) -> Path:
    """Return the file that holds the rows of a folder, whether or not it is there."""
    try:
        return path / (path / "current").read_text().strip()
    except OSError:  # never compacted, or no folder yet
        return path / FIRST_FILE


def point_to(path: Path, file: Path) -> None:
    """Let everybody who opens the folder from now on open `file`, unless a later one is named; older files go."""
    with guarded(path), (path / "current.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _number(file) <= _number(current_file(path)):
            return
        beside = path / "current.new"
        beside.write_text(file.name)
        beside.replace(path / "current")
        for old in path.glob("data*.mdb"):
            if _number(old) < _number(file):
                remove(old)


def remove(file: Path) -> None:
    """Remove one LMDB file and its lock, where they are."""
    for name in (file, Path(f"{file}-lock")):
        name.unlink(missing_ok=True)


def next_file(file: Path) -> Path:
    """Return the name of the file after `file`."""
    return file.with_name(f"data-{_number(file) + 1}.mdb")


def _number(file: Path) -> int:
    return int(file.stem.partition("-")[2] or 0)


def _has_pages(file: Path) -> bool:
    return file.is_file() and file.stat().st_size >= _TWO_PAGES


def absent(path: Path) -> NotFoundError:
    """Return the error of a reader that comes before the first write."""
    return NotFoundError(f"there is no online store in {path} yet", next_step=NEXT_STEP)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn what LMDB and the disk say into a `StoreError`."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.MapResizedError):
        raise
    except (lmdb.Error, OSError, msgspec.DecodeError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> AwayError:
    """Return the error of files that LMDB cannot use."""
    reason = str(getattr(error, "strerror", None) or error)[:200]
    return AwayError(
        f"the online store {path} cannot be used: {reason}",
        next_step="check the folder and the disk, or set WINDROW_ONLINE",
    )
