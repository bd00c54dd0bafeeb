"""The online store on a Redis server: the same bytes under the same keys as in LMDB, one value per row.

Every key begins with ``windrow:``, or ``windrow-NAME:`` where the URL says ``?namespace=NAME``. A batch of reads is one MGET, which also brings the directory's version, so that
all of it is of one generation. Rows that are newer than the stored ones are chosen on the server, by a script.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Self, TypeVar

import hiredis
import redis

from windrow.clock import SECOND
from windrow.environment import read_place
from windrow.errors import AwayError, NotFoundError, SettingsError, StoreError
from windrow.stores.online.directory import (
    FORMAT,
    FORMAT_KEY,
    LOADS_KEY,
    NOWHERE,
    RETIRED_KEY,
    VERSION_KEY,
    Group,
    count_key,
    group_key,
    mark_key,
    prefix,
    unpack_group,
)
from windrow.stores.online.generations import check_loading, retire_dead, retired
from windrow.stores.online.load import Load, attempt
from windrow.stores.online.redis_pages import RedisPages, commit
from windrow.stores.online.rows import (
    Block,
    Packed,
    block_or_rows,
    check_key,
    pack,
    pack_keys,
    packed_batches,
    unpack,
    unpack_row,
)
from windrow.stores.online.store import NEXT_STEP, Key, Row
from windrow.stores.online.transaction import Conflict, Transaction

_T = TypeVar("_T")

STEP_ROWS = 500  # rows that one call of the script stores: readers wait for a call to end
TIMEOUT = 5.0  # seconds that a reader waits for an answer, where it does not say so itself
WRITE_TIMEOUT = 60.0  # seconds that a writer does: a busy server takes longer over a large step

# Stores the rows that are newer than those that are there, in every generation that a write has to go to.
_STORE = """
local function newer(old, new)
  for at = 3, 21, 9 do
    local a, b = string.sub(old, at, at + 7), string.sub(new, at, at + 7)
    if a ~= b then
      local ah, al = struct.unpack('>i4I4', a)
      local bh, bl = struct.unpack('>i4I4', b)
      if ah ~= bh then return bh > ah end
      return bl > al
    end
  end
  return false
end
local entry = cmsgpack.unpack(redis.call('GET', KEYS[1]))
local fill, targets = tonumber(ARGV[1]), {entry[1], entry[4]}
if fill > 0 then
  if entry[4] ~= fill then return -1 end
  targets = {fill, 0}
end
local answer = 0
for i, generation in ipairs(targets) do
  if generation > 0 then
    local start, stored, new = ARGV[2] .. struct.pack('>I4', 16777216 + generation), 0, 0
    for at = 3, #ARGV, 2 do
      local key, row = start .. ARGV[at], ARGV[at + 1]
      local old = redis.call('GET', key)
      if not old then new = new + 1 end
      if not old or newer(old, row) then
        redis.call('SET', key, row)
        stored = stored + 1
      end
    end
    if new > 0 then redis.call('INCRBY', ARGV[2] .. string.char(0, 0) .. 'n' .. struct.pack('>I4', generation), new) end
    if i == 1 then answer = stored end
  end
end
return answer
"""


class RedisStore:
    """An `OnlineStore` on a Redis server.

    Parameters
    ----------
    url
        ``redis://[:password@]host:port/db`` or ``unix://[:password@]/path?db=N``.
    write
        Whether to write.
    timeout
        Seconds that a reader waits for a connection and for an answer.

    Raises
    ------
    SettingsError
        If the URL cannot be read; the password in it is never repeated.
    NotFoundError
        If nothing was written yet and this is a reader.
    AwayError
        If the server does not answer.
    """

    def __init__(self, url: str, *, write: bool = False, timeout: float = TIMEOUT) -> None:
        place = read_place(url, what="WINDROW_ONLINE")
        self._root = place.key("windrow", ":").encode()
        self._version_at = self._root + VERSION_KEY
        self._write = write
        self._pool = _pool(place.url, timeout=WRITE_TIMEOUT if write else timeout, connect=timeout)
        self._name = _spoken(self._pool.connection_kwargs)
        self._client = redis.Redis(connection_pool=self._pool)
        self._script = self._client.register_script(_STORE)
        self._lock, self._process = threading.RLock(), os.getpid()
        self._reader: Any = None
        self._known: dict[str, Group | None] = {}
        self._version: bytes | None = None
        self._close = weakref.finalize(self, self._pool.disconnect)
        try:
            self._check_format()
            if write:
                self._tidy()
        except BaseException:  # whatever it was, connections go back before it is told
            self.close()
            raise

    def write(self, group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> int:
        """Store rows by key; see `OnlineStore.write`."""
        return self.write_packed(group, columns, packed_batches(group, columns, rows))

    def write_packed(self, group: str, columns: Sequence[str], batches: Iterable[Packed]) -> int:
        """Store packed rows; see `OnlineStore.write_packed`."""
        self._check_open(writing=True)
        attempt(self, lambda txn: txn.declare(group, columns))
        return sum(self._store(group, columns, batch) for batch in batches)

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        found = self._entry(group)
        return found.columns if found else None

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key), all of one moment: one MGET.

        Raises
        ------
        StoreError
            If a key has other types than the group's keys (``"1"`` is never ``1``).
        """
        return self._rows(wanted, self._found(wanted))

    def read_blocks(self, wanted: Sequence[tuple[str, Sequence[Key]]]) -> list[Block | list[Row | None]]:
        """Return what `read` does for the keys of each group, by one MGET; see `OnlineStore.read_blocks`."""
        raws = iter(self._found([(group, key) for group, keys in wanted for key in keys]))
        made: list[Block | list[Row | None]] = []
        for group, keys in wanted:
            found, entry = list(islice(raws, len(keys))), self._known[group] if keys else None
            width, types = (len(entry.columns), entry.key) if entry else (0, ())
            made.append(block_or_rows(group, types, width, keys, found))
        return made

    def count(self, group: str) -> int:
        """Return the number of entities of a group."""
        found = self._entry(group)
        raw = self._mget([self._root + count_key(found.id)])[0] if found else None
        return int(raw or 0)

    def check(self) -> None:
        """Do nothing: a server that is not there is noticed by who reads; see `OnlineStore.check`."""

    def mark(self, name: str) -> bytes | None:
        """Return what a transaction kept under `name`."""
        return self._mget([self._root + mark_key(name)])[0]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read, change and write in one step; see `OnlineStore.transaction`.

        What was read is watched: the commit fails with `Conflict` if somebody else has changed it.
        """
        self._check_open(writing=True)
        with self._client.pipeline() as pipe:
            begun = Transaction(RedisPages(pipe, self._guarded, self._root))
            yield begun
            with self._guarded():
                commit(pipe, begun.changes, self._root)

    def bulk(self, group: str, columns: Sequence[str]) -> Load:
        """Begin to fill a new generation of a group; see `OnlineStore.bulk`."""
        return Load(self, group, columns)

    def fill(self, group: str, generation: int, batch: Packed) -> int:
        """Store one batch of a bulk load."""

        def heard_of(txn: Transaction) -> None:
            entry, now = txn.entry(group), time.time_ns() // 1000
            check_loading(group, entry, generation)
            if entry.joined(group, batch.types) or now > entry.touched + 60 * SECOND:
                entry.touched = now
                txn.keep(group, entry)

        attempt(self, heard_of)
        return self._put(group, generation, batch)

    def delete(self, group: str, keys: Iterable[Key]) -> int:
        """Remove entities from a group; see `OnlineStore.delete`."""
        wanted = list(keys)
        return attempt(self, lambda txn: sum([txn.delete(group, key) for key in wanted]))

    def erase_retired(self) -> None:
        """Remove the rows of generations that no group points to."""
        self._check_open(writing=True)
        for generation in retired(self._mget([self._root + RETIRED_KEY])[0]):
            start = self._root + prefix(generation)
            with self._guarded():
                for keys in _found(self._client, start):
                    self._client.unlink(*keys)
            attempt(self, lambda txn, done=generation: _forget(txn, done))  # type: ignore[misc]  # bound now

    def compact(self) -> None:
        """Let the server rewrite its files, and wait until it has; see `OnlineStore.compact`."""
        self._check_open(writing=True)
        with self._guarded():
            if self._client.info("persistence")["aof_enabled"]:
                self._client.bgrewriteaof()
                self._await("aof_rewrite_in_progress", "aof_rewrite_scheduled")
            self._client.bgsave()
            self._await("rdb_bgsave_in_progress")

    def close(self) -> None:
        """Give back the connections; closing twice does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _places(self, wanted: Sequence[tuple[str, Key]]) -> list[bytes]:
        starts = {group: self._start(group) for group in {group for group, _ in wanted}}
        keys = pack_keys([key for _, key in wanted])
        if len(starts) == 1:
            (start,) = starts.values()
            return [self._version_at, *[start + key for key in keys]]
        return [self._version_at, *[starts[group] + key for (group, _), key in zip(wanted, keys, strict=True)]]

    def _found(self, wanted: Sequence[tuple[str, Key]]) -> list[bytes | None]:
        """Return what is stored for each (group, key), all of one moment."""
        while wanted:
            version, places = self._version, self._places(wanted)
            raws = self._mget(places)
            # What is remembered of the directory held if the server says so in the same answer.
            if raws[0] == version == self._version:
                del raws[:1]
                return raws
            if raws[0] != self._version:
                self._known, self._version = {}, raws[0]
        return []

    def _rows(self, wanted: Sequence[tuple[str, Key]], raws: list[bytes | None]) -> list[Row | None]:
        if None in raws:
            for (group, key), raw in zip(wanted, raws, strict=True):
                if raw is None and (entry := self._known[group]):
                    check_key(group, entry.key, key)
        return [None if raw is None else unpack_row(raw) for raw in raws]

    def _start(self, group: str) -> bytes:
        known = self._known
        entry = known[group] if group in known else self._entry(group)
        return self._root + (entry.prefix if entry else NOWHERE)

    def _entry(self, group: str) -> Group | None:
        version, raw = self._mget([self._version_at, self._root + group_key(group)])
        if version != self._version:
            self._known, self._version = {}, version
        self._known[group] = found = unpack_group(raw) if raw else None
        return found

    def _mget(self, keys: list[bytes]) -> list[bytes | None]:
        """Ask for many values in one command, over a connection that is kept: redis-py's own way costs as much again."""
        self._check_open()
        with self._lock, self._guarded():
            try:
                return self._asked(keys)
            except redis.TimeoutError:
                self._forget_reader()  # what it still sends would be taken for the next answer
                raise
            except redis.ConnectionError:
                self._forget_reader()  # the server may have been started again: once more, on a new connection
                return self._asked(keys)

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.disconnect()

    def _asked(self, keys: list[bytes]) -> list[bytes | None]:
        if self._reader is None or self._process != os.getpid():
            self._reader, self._process = self._pool.make_connection(), os.getpid()
        reader = self._reader
        command: Any = (b"MGET", *keys)  # hiredis declares a tuple of one
        reader.send_packed_command((hiredis.pack_command(command),), check_health=False)
        found: list[bytes | None] = reader.read_response()
        return found

    def _store(self, group: str, columns: Sequence[str], batch: Packed) -> int:
        entry = self._entry(group)
        if entry is None or entry.key != batch.types:
            attempt(self, lambda txn: txn.declare(group, columns, batch.types))
        return self._put(group, 0, batch)

    def _put(self, group: str, generation: int, batch: Packed) -> int:
        stored, key = 0, self._root + group_key(group)
        items = list(zip(batch.keys, batch.rows, strict=True))
        for at in range(0, len(items), STEP_ROWS):
            flat = [part for item in items[at : at + STEP_ROWS] for part in item]
            with self._guarded():
                answer = int(self._script([key], [generation, self._root, *flat]))
            if answer < 0:
                check_loading(group, None, generation)
            stored += answer
        return stored

    def _await(self, *running: str) -> None:
        while any(self._client.info("persistence").get(name) for name in running):
            time.sleep(0.02)

    def _check_open(self, *, writing: bool = False) -> None:
        if not self._close.alive:
            raise StoreError(f"the online store {self._name} is closed", next_step="open it again")
        if writing and not self._write:
            raise StoreError(f"the online store {self._name} is open for reading", next_step="open it with write=True")

    def _check_format(self) -> None:
        found = self._mget([self._root + FORMAT_KEY])[0]
        if found is None and not self._write:
            raise NotFoundError(f"there is no online store in {self._name} yet", next_step=NEXT_STEP)
        if found is None:
            with self._guarded():
                self._client.set(self._root + FORMAT_KEY, pack(FORMAT))
        elif (number := unpack(found)) != FORMAT:
            raise StoreError(
                f"the online store {self._name} has format {number}",
                exists=f"This windrow reads format {FORMAT}",
                next_step=f"delete its keys ({self._root.decode()}*) and run `windrow run SERVICE`",
            )

    def _tidy(self) -> None:
        """Remove what processes that died left behind."""
        if any(self._mget([self._root + LOADS_KEY, self._root + RETIRED_KEY])):
            attempt(self, lambda txn: retire_dead(txn, now=time.time_ns() // 1000))
            self.erase_retired()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except redis.WatchError as error:
            raise Conflict(
                f"the online store {self._name} was changed by somebody else meanwhile", next_step="try again"
            ) from error
        except redis.RedisError as error:
            raise AwayError(
                f"the online store {self._name} cannot be used: {str(error)[:200]}",
                next_step="check that the server runs and takes the password, or set WINDROW_ONLINE",
                slow=isinstance(error, redis.TimeoutError),
            ) from error


def _pool(url: str, *, timeout: float, connect: float) -> redis.ConnectionPool:
    try:
        return redis.ConnectionPool.from_url(
            url, protocol=2, socket_timeout=timeout, socket_connect_timeout=connect, socket_read_size=1 << 18
        )
    except (ValueError, TypeError):
        # Its own message would repeat parts of the URL.
        raise SettingsError(
            "WINDROW_ONLINE is not a Redis URL",
            exists="The forms are redis://[:password@]host:port/db and unix://[:password@]/path?db=N",
            next_step="write one of them; percent-encode what is special in the password",
        ) from None


def _spoken(kwargs: dict[str, Any]) -> str:
    """Return where the server is, without the password."""
    place = kwargs.get("path") or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
    return f"redis {place}, database {kwargs.get('db', 0)}"


def _found(client: Any, start: bytes) -> Iterator[list[bytes]]:
    pattern = b"".join(b"\\" + bytes([c]) if bytes([c]) in b"*?[]\\^-" else bytes([c]) for c in start) + b"*"
    cursor = 1
    while cursor:
        cursor, keys = client.scan(0 if cursor == 1 else cursor, match=pattern, count=10_000)
        if keys:
            yield keys


def _forget(txn: Transaction, generation: int) -> None:
    left = [g for g in retired(txn.value(RETIRED_KEY)) if g != generation]
    txn.changes.values[RETIRED_KEY] = pack(left)
    txn.changes.values[count_key(generation)] = None
