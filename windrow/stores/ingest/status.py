"""What the applier says of itself, for whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from windrow.stores.ingest.apply import Applied

STATUS = "status.json"


class Status(msgspec.Struct):
    """What an applier has done since it started; `at` is UTC microseconds of the wall clock."""

    pid: int = 0
    at: int = 0
    read: int = 0
    online: int = 0
    later: int = 0
    parked: int = 0
    committed: int = 0
    error: str = ""

    def add(self, done: Applied) -> None:
        """Count one step."""
        self.read += done.read
        self.online += done.online
        self.later += done.later
        self.parked += done.parked


def told(folder: Path) -> Status:
    """Return what the applier wrote last; all zero where none ever ran.

    Examples
    --------
    >>> told(Path("/no/such/folder")).online
    0
    """
    try:
        return msgspec.json.decode((folder / STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return Status()
