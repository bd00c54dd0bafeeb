"""Where a home's applier stands, as kept in the online store and the tables: several homes may share them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from windrow.stores.ingest.events import BEGINNING, Batch, Position

_FILE = "home.id"
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Position).decode


class Marked(Protocol):
    """An online store, or a transaction of one."""

    def mark(self, name: str) -> bytes | None:
        """Return what is kept under `name`."""
        ...


class Marks:
    """The names under which one home's positions are kept, and how to read them.

    Parameters
    ----------
    folder
        Folder of the home's segments; it gets a name that no other home has.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> Marks(folder).home == Marks(folder).home
    True
    """

    def __init__(self, folder: Path) -> None:
        self.home = _home(folder)

    def position(self, store: Marked, worker: str) -> Position:
        """Return up to where a worker's segments are online."""
        raw = store.mark(f"ingest/{self.home}/{worker}")
        return BEGINNING if raw is None else _unpack(raw)

    def shown(self, store: Marked) -> int | None:
        """Return the time up to which events are online, UTC microseconds; None where all are."""
        raw = store.mark(f"ingest-shown/{self.home}")
        shown: int | None = msgspec.msgpack.decode(raw) if raw else None
        return shown

    def last_entry(self, store: Marked, name: str) -> str:
        """Return the newest id that a transport gave to an event of `name` that is online, or ``""``."""
        return (store.mark(f"ingest-entry/{self.home}/{name}") or b"").decode()

    def moved(self, worker: str, after: Position, batches: Iterable[Batch | None]) -> dict[str, bytes]:
        """Return the marks that say that a worker's segments are online up to `after`."""
        entries = {b.name: b.entries[-1].encode() for b in batches if b is not None and b.entries}
        marks = {f"ingest-entry/{self.home}/{name}": last for name, last in entries.items()}
        return {f"ingest/{self.home}/{worker}": _pack(after), **marks}

    def showing(self, now: int | None) -> dict[str, bytes]:
        """Return the mark that says up to which time events are online."""
        return {f"ingest-shown/{self.home}": _pack(now)}

    def app(self, worker: str) -> str:
        """Return the name under which tables remember how much of a worker they have."""
        return f"ingest-{self.home}-{worker}"


def _home(folder: Path) -> str:
    path = folder / _FILE
    with suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f"{_FILE}.{os.getpid()}-{secrets.token_hex(4)}"
    hidden.write_text(secrets.token_hex(8), encoding="ascii")
    # Linked and not renamed: of two processes that come here together the first one's name stays.
    with suppress(FileExistsError):
        os.link(hidden, path)
    hidden.unlink()
    return path.read_text(encoding="ascii")
