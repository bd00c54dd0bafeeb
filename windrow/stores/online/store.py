"""The online store: the newest row of each entity, read in microseconds.

`OnlineStore` is what every backend promises; `open_online` chooses the backend by URL. All of them keep and
refuse the same keys and values, and give the same transactions and bulk loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from windrow.errors import SettingsError

if TYPE_CHECKING:
    from windrow.stores.online.load import Load
    from windrow.stores.online.rows import Block, Packed
    from windrow.stores.online.transaction import Transaction

TXN_ROWS = 20_000  # a larger transaction keeps the next writer waiting for seconds
NEXT_STEP = "run `windrow run SERVICE`, which fills the online store"

KEY_TYPES: dict[str, type] = {"int": int, "str": str}

Key = tuple[Any, ...]


class Row(NamedTuple):
    """The newest values of one entity.

    Attributes
    ----------
    event_time, known_at
        UTC microseconds.
    seq
        Write order of the row in its table.
    values
        One per column: float, int, str, bool, bytes or None; times as UTC microseconds.
    """

    event_time: int
    known_at: int
    seq: int
    values: tuple[Any, ...]


class OnlineStore(Protocol):
    """What windrow needs of an online store; keys are tuples of int or str, in the order of the entity's keys.

    Two kinds of load, and what a reader sees of half a one:

    - `write` is incremental. Every row is whole at any moment, and every batch (20,000 rows in LMDB, 500 on Redis) is
      there or not; between two batches a reader sees new rows of some entities and old rows of others, each right at
      its own time.
    - `bulk` fills a new generation. Readers see the old one, whole, until `Load.switch`; from then on the new one, whole.
    """

    def write(self, group: str, columns: Sequence[str], rows: Iterable[tuple[Key, Row]]) -> int:
        """Store rows by key, in transactions of at most `TXN_ROWS`; return how many were stored.

        A row at least as new, by (event_time, known_at, seq), is left as it is, so that writing the
        same rows again, or in another order, gives the same store.

        Raises
        ------
        StoreError
            If the group has other columns, a key or value has a type the store does not keep, or
            the store cannot be written.
        """
        ...

    def write_packed(self, group: str, columns: Sequence[str], batches: Iterable[Packed]) -> int:
        """Store rows that are packed already, one transaction for each batch; else as `write`."""
        ...

    def bulk(self, group: str, columns: Sequence[str]) -> Load:
        """Begin to fill a new generation of a group; an unfinished load of the group ends.

        Other writers wait for one transaction of it at most, and readers never.
        """
        ...

    def fill(self, group: str, generation: int, batch: Packed) -> int:
        """Store one batch of a bulk load; for `Load`."""
        ...

    def erase_retired(self) -> None:
        """Remove the rows of generations that no group points to, in small transactions."""
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Read, change and write in one step, all or nothing.

        Raises
        ------
        Conflict
            At the end, if somebody else changed what was read (Redis; with LMDB other writers wait).
        """
        ...

    def delete(self, group: str, keys: Iterable[Key]) -> int:
        """Remove entities from a group, for readers at once; return how many were there.

        Their bytes leave the files with `compact`. A bulk load of the group that is under way fails at its
        next batch: it may have read the entities already.
        """
        ...

    def compact(self) -> None:
        """Rewrite the files, so that nothing deleted is in them."""
        ...

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        ...

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key), all as of one moment."""
        ...

    def read_blocks(self, wanted: Sequence[tuple[str, Sequence[Key]]]) -> list[Block | list[Row | None]]:
        """Return what `read` does for the keys of each group: as one block where all are there and all values floats."""
        ...

    def count(self, group: str) -> int:
        """Return the number of entities of a group."""
        ...

    def check(self) -> None:
        """Notice what a reader cannot: that its files were removed. Called now and then, beside the reads."""
        ...

    def mark(self, name: str) -> bytes | None:
        """Return what a transaction kept under `name`, or None."""
        ...

    def close(self) -> None:
        """Give back files, locks and connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_online(url: str, *, write: bool = False, timeout: float | None = None) -> OnlineStore:
    """Open the online store that `url` names.

    Parameters
    ----------
    url
        ``lmdb:///folder``, ``redis://[:password@]host:port/db`` or, for a server's socket,
        ``unix://[:password@]/path?db=N``. No message ever repeats a password.
    write
        Whether rows will be written; readers never block and are never blocked.
    timeout
        Seconds that a reader waits for a server; default: five. Files give an answer, or none, at once.

    Raises
    ------
    SettingsError
        If no backend has the URL's scheme.
    NotFoundError
        If a reader comes before the first write.
    AwayError
        If the files cannot be used, or the server does not answer.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> with open_online(f"lmdb://{mkdtemp()}/online", write=True) as store:
    ...     store.write("card_v1", ["limit"], [((7,), Row(10, 10, 1, (500.0,)))])
    ...     store.read([("card_v1", (7,)), ("card_v1", (8,))])
    1
    [Row(event_time=10, known_at=10, seq=1, values=(500.0,)), None]
    """
    scheme, found, path = url.partition("://")
    if found and scheme == "lmdb" and path.startswith("/"):
        from windrow.stores.online.lmdb_store import LmdbStore

        return LmdbStore(Path(path), write=write)
    if found and scheme in ("redis", "unix"):
        return _redis(url, write=write, timeout=timeout)
    raise SettingsError(
        "WINDROW_ONLINE names no online store",
        exists="The schemes are 'lmdb', 'redis' and 'unix' (a Redis server's socket)",
        next_step="write lmdb:///absolute/folder, redis://[:password@]host:port/db or unix://[:password@]/path?db=N",
    )


def _redis(url: str, *, write: bool, timeout: float | None) -> OnlineStore:
    try:
        from windrow.stores.online.redis_store import RedisStore
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise SettingsError(
            "WINDROW_ONLINE is a Redis server, and its client is not installed",
            next_step="pip install 'windrow[redis]'",
        ) from None
    return RedisStore(url, write=write) if timeout is None else RedisStore(url, write=write, timeout=timeout)
