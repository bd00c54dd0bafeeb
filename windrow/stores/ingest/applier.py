"""The applier: brings accepted events online at once, and to the lake every few seconds, each exactly once.

One process per home, elected by a lock. Killed at any moment, it goes on where it was. Readers of the lake (training,
batch scoring) see an event after the next micro-batch: its segment is closed after `ingest_every` seconds (or 16 MB),
and committed within `ingest_every` more. When the process is asked to end it commits what is finished first.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import WindrowError
from windrow.settings import Settings
from windrow.stores.election import elected_by
from windrow.stores.ingest.apply import Applied, OnlineApplier
from windrow.stores.ingest.declared import Declared
from windrow.stores.ingest.events import FOLDER
from windrow.stores.ingest.later import LATER, LaterStore
from windrow.stores.ingest.marks import Marks
from windrow.stores.ingest.status import STATUS, Status
from windrow.stores.online.store import open_online

if TYPE_CHECKING:
    from windrow.stores.ingest.lake import Committed

IDLE, BUSY = 0.02, 0.002  # seconds between two looks for events
RETRY = 1.0
_LOG = logging.getLogger("windrow.applier")


class Applier:
    """The applier of one home.

    Parameters
    ----------
    settings
        Where everything is.
    """

    def __init__(self, settings: Settings) -> None:
        from windrow.stores.metadata import Metadata

        self.settings, self.folder = settings, settings.folder(FOLDER)
        self.status = Status(pid=os.getpid())
        self._metadata = Metadata(settings.metadata)
        self.streams = Declared(self._metadata, settings.clock)
        self._online = open_online(settings.online, write=True)
        later = LaterStore(self.folder / LATER, self.streams.find)
        self.marks = Marks(self.folder)
        self._applier = OnlineApplier(self.marks, self.folder, self._online, streams=self.streams, later=later)

    def warm(self) -> None:
        """Load what the first rows would wait for: the checks of groups, and what runs them."""
        from windrow.stores.ingest.judge import ready

        for name in self.streams.names():
            stream = self.streams.find(name)
            if stream is not None and stream.checks:
                ready(stream)

    def step(self) -> Applied:
        """Bring online what is there; return what was done."""
        done = self._applier.step()
        self.status.add(done)
        return done

    def commit(self) -> list[Committed]:
        """Commit what is finished and online to the lake."""
        from windrow.stores.ingest.lake import LakeCommitter
        from windrow.stores.lake import Lake

        lake = Lake(self.settings.lake)
        made = LakeCommitter(self.marks, self.folder, lake, online=self._online, find=self.streams.find).commit()
        self.streams.committed(made)
        self.status.committed += sum(one.rows for one in made)
        return made

    def last_entry(self, name: str) -> str:
        """Return the newest id that a transport gave to an event of `name` that is online."""
        return self.marks.last_entry(self._online, name)

    def tell(self) -> None:
        """Write what was done for whoever asks."""
        self.status.at = time.time_ns() // 1000
        path = self.folder / STATUS
        hidden = path.with_suffix(".told")
        hidden.write_bytes(msgspec.json.encode(self.status))
        hidden.replace(path)

    def close(self) -> None:
        """Give back files and stores."""
        self._applier.close()
        self.streams.close()
        self._online.close()
        self._metadata.close()


def elected(folder: Path) -> AbstractContextManager[bool]:
    """Hold the lock of the one applier of `folder`; gives False where another process has it."""
    return elected_by(folder / "applier.lock", "the events")


class _Loops:
    """What the process does until it has to end: one thread brings events online, another one to the lake."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._parent = settings, os.getppid()
        self.stop = threading.Event()

    def run(self) -> None:
        """Work, or wait quietly while another process does, until the parent dies or this one is asked to end."""
        folder = self._settings.folder(FOLDER)
        while self._wanted():
            with elected(folder) as mine:
                if mine:
                    self._work()
            self.stop.wait(RETRY)

    def _wanted(self) -> bool:
        return not self.stop.is_set() and os.getppid() == self._parent

    def _work(self) -> None:
        try:
            applier = Applier(self._settings)
        except WindrowError as error:
            _LOG.error("%s", error)  # such as a disk without room: try again
            return
        others = [threading.Thread(target=self._committing, args=(applier,), name="windrow-lake", daemon=True)]
        others += _sources(applier, self._wanted)
        for thread in others:
            thread.start()
        self._applying(applier)
        for thread in others:
            thread.join()
        _try(applier, applier.step)
        _try(applier, applier.commit)
        applier.close()

    def _applying(self, applier: Applier) -> None:
        told_at = 0.0
        while self._wanted():
            done = _try(applier, applier.step)
            if time.monotonic() > told_at + RETRY:
                told_at = time.monotonic()
                with suppress(OSError):
                    applier.tell()
            self.stop.wait(RETRY if done is None else BUSY if done.read else IDLE)

    def _committing(self, applier: Applier) -> None:
        _try(applier, applier.warm)
        while self._wanted():
            _try(applier, applier.commit)
            end = time.monotonic() + self._settings.ingest_every
            while time.monotonic() < end and self._wanted():
                self.stop.wait(0.25)


def _try(applier: Applier, work: Any) -> Any:
    try:
        done = work()
    except Exception as error:  # noqa: BLE001 - whatever it is, the segments are still there: say it and try again
        if str(error) != applier.status.error:
            _LOG.error("%s", error)
        applier.status.error = str(error)
        return None
    applier.status.error = ""
    return done


def _sources(applier: Applier, wanted: Any) -> list[threading.Thread]:
    """Return a thread for each transport, beside HTTP, that events come by."""
    settings = applier.settings
    if not settings.streams:
        return []
    try:
        from windrow.stores.ingest.redis_streams import RedisSource

        source = RedisSource(settings, applier.streams, applier.folder, applied=applier.last_entry)
    except (WindrowError, ModuleNotFoundError) as error:
        # What comes over HTTP does not wait until the setting is right.
        missing = isinstance(error, ModuleNotFoundError)
        _LOG.error("%s", "WINDROW_STREAMS needs redis: pip install 'windrow[redis]'" if missing else error)
        return []
    options = {"every": settings.ingest_every}
    return [threading.Thread(target=source.run, args=(wanted,), kwargs=options, name="windrow-redis", daemon=True)]


def run(home: Path | None = None) -> None:
    """Apply the events of `home` (default: of the settings) until the parent dies or the process is asked to end.

    A second applier of the same home waits quietly and takes over when the first ends.
    """
    settings = Settings.read({**os.environ, "WINDROW_HOME": str(home)} if home else None)
    if str(settings.project) not in sys.path:
        sys.path.insert(0, str(settings.project))  # the checks of a group are code of the project
    loops = _Loops(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loops.stop.set())
    loops.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m windrow.stores.ingest.applier --home DIR``."""
    parser = argparse.ArgumentParser(
        prog="python -m windrow.stores.ingest.applier", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--home", type=Path, help="the folder of everything windrow writes (default: WINDROW_HOME)")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        run(given.home)
    except WindrowError as error:
        _LOG.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
