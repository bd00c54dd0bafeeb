"""Events that may not be shown yet: kept on disk until their time, whatever ends meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from windrow.errors import StoreError
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.events import Position
from windrow.stores.ingest.judge import Event

_TABLE = """
create table if not exists later (
    worker text not null, number integer not null, place integer not null, row integer not null,
    eff integer not null, name text not null, event blob not null,
    primary key (worker, number, place, row)
) without rowid
"""
_INDEX = "create index if not exists later_eff on later (eff)"
_KEEP = "insert or ignore into later values (?, ?, ?, ?, ?, ?, ?)"
_DUE = "select worker, number, place, row, name, event from later where eff <= ? order by eff, worker, number, place, row limit ?"
_DONE = "delete from later where worker = ? and number = ? and place = ? and row = ?"
_BEHIND = "delete from later where worker = ? and (number > ? or number = ? and place >= ?)"

LATER = "later.db"

_encode = msgspec.msgpack.Encoder().encode


class _Kept(msgspec.Struct, array_like=True):
    event_time: int
    known_at: int
    values: dict[str, int | float | str | bool | None]


_decode = msgspec.msgpack.Decoder(_Kept).decode


class LaterStore:
    """The events of one home whose time has not come.

    Parameters
    ----------
    path
        A file, made with the first event that is kept.
    find
        Returns the stream that is declared under a name now, or None.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> store = LaterStore(Path(mkdtemp()) / "later.db", lambda name: None)
    >>> store.due(10**18, limit=10)
    []
    """

    def __init__(self, path: Path, find: Callable[[str], Stream | None]) -> None:
        self._path, self._find = path, find

    def keep(self, worker: str, events: Sequence[Event]) -> None:
        """Keep events until their time comes; those kept already change nothing."""
        if not events:
            return
        rows = [
            (worker, e.number, e.offset, e.row, max(e.event_time, e.known_at), e.stream.name, _encode(_kept(e)))
            for e in events
        ]
        with self._open() as connection:
            connection.execute(_TABLE)
            connection.execute(_INDEX)
            connection.executemany(_KEEP, rows)

    def due(self, now: int, limit: int) -> list[tuple[str, Event]]:
        """Return (worker, event) whose time has come, by time; what nobody declares any more stays."""
        if not self._path.exists():
            return []
        with self._open() as connection:
            rows = connection.execute(_DUE, (now, limit)).fetchall()
        found = []
        for worker, number, offset, row, name, kept in rows:
            stream, event = self._find(name), _decode(kept)
            if stream is not None and set(stream.names) <= set(event.values):
                values = tuple(event.values[name] for name in stream.names)
                found.append((worker, Event(number, offset, row, stream, values, event.event_time, event.known_at)))
        return found

    def done(self, items: Sequence[tuple[str, Event]]) -> None:
        """Forget what is online now."""
        if items:
            with self._open() as connection:
                connection.executemany(_DONE, [(worker, e.number, e.offset, e.row) for worker, e in items])

    def restart(self, positions: Callable[[str], Position]) -> None:
        """Forget events behind the position of their worker: they are read again."""
        if not self._path.exists():
            return
        with self._open() as connection:
            workers = [worker for (worker,) in connection.execute("select distinct worker from later")]
            places = [(worker, p.number, p.number, p.offset) for worker in workers for p in [positions(worker)]]
            connection.executemany(_BEHIND, places)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return _opened(self._path)


def earliest(path: Path, name: str) -> int | None:
    """Return the first time of an event of a stream that is held back, UTC microseconds; None where none is.

    Examples
    --------
    >>> earliest(Path("/no/such/later.db"), "payments") is None
    True
    """
    if not path.exists():
        return None
    with _opened(path) as connection:
        found: int | None = connection.execute("select min(eff) from later where name = ?", (name,)).fetchone()[0]
        return found


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=30)
        with connection:
            yield connection
    except sqlite3.Error as error:
        raise StoreError(
            f"the events of a later time in {path} cannot be used: {error}",
            next_step="check the file and the disk",
        ) from error
    finally:
        if connection is not None:
            connection.close()


def _kept(event: Event) -> _Kept:
    return _Kept(event.event_time, event.known_at, dict(zip(event.stream.names, event.values, strict=True)))
