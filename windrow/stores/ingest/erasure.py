"""Events on their way in, when their entity is forgotten: those in segments are waited for, later ones are erased."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from windrow.errors import StoreError
from windrow.settings import Settings
from windrow.stores.ingest.events import FOLDER, batches
from windrow.stores.segments import read_segment, segments

WAIT_SECONDS = 60.0
LATER = "later.db"
_DELETE = "delete from later where worker = ? and number = ? and place = ? and row = ?"

Wanted = Callable[[str, Mapping[str, Any]], bool]


def events_on_their_way(home: Path, wanted: Wanted) -> int:
    """Return how many rows in segments are wanted, by stream and values."""
    folder, count = home / FOLDER, 0
    for segment in segments(folder):
        for _, batch in batches(read_segment(folder, segment) or b"WINDROW1"):
            if batch is not None:
                count += sum(wanted(batch.name, dict(zip(batch.fields, row, strict=False))) for row in batch.rows)
    return count


def await_lake(settings: Settings, wanted: Wanted, *, seconds: float = WAIT_SECONDS) -> None:
    """Return when no segment holds a wanted row: the applier has brought them to the lake, or this process has.

    Raises
    ------
    StoreError
        If they do not get there in time.
    """
    deadline = time.monotonic() + seconds
    while count := events_on_their_way(settings.home, wanted):
        _help(settings)
        if time.monotonic() > deadline:
            raise StoreError(
                f"{count} events of the entity are on their way to the lake and do not arrive",
                exists=f"They stand in {settings.home / FOLDER}",
                next_step="stop or mend what writes them (`windrow up` runs the applier), then forget again",
            )
        time.sleep(0.2)


def erase_later(home: Path, wanted: Wanted, *, erase: bool) -> int:
    """Return how many wanted events are kept for a later time, after erasing them if that is asked."""
    path = home / FOLDER / LATER
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            rows = connection.execute("select worker, number, place, row, name, event from later").fetchall()
            gone = [tuple(at) for *at, name, event in rows if wanted(name, msgspec.msgpack.decode(event)[2])]
            if erase:
                connection.executemany(_DELETE, gone)
                connection.commit()
                # A deleted row stays in its page until the file is written again, and in the journal until it is cut.
                connection.execute("vacuum")
                connection.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.Error as error:
        raise StoreError(
            f"the events of a later time in {path} cannot be used: {error}", next_step="check the file and the disk"
        ) from error
    return len(gone)


def _help(settings: Settings) -> None:
    from windrow.stores.ingest.applier import Applier, elected

    with elected(settings.home / FOLDER) as mine:
        if mine:
            applier = Applier(settings)
            try:
                applier.step()
                applier.commit()
            finally:
                applier.close()
