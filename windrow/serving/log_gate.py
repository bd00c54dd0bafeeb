"""What stands between requests and their log: what becomes of a prediction that the log cannot take."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from windrow.errors import StoreError
from windrow.stores.log import LogRecord, LogWriter
from windrow.stores.segments import DAMAGED, backlog

LOOK_SECONDS = 1.0
OUTCOME = "outcome"
_log = logging.getLogger("windrow.serving")


class LogGate:
    """A log that refuses what it cannot take, so that there is no answer without a record; or, if that is chosen, sheds it.

    Outcomes are never shed: who sends one is told that it was taken.

    Parameters
    ----------
    writer
        The worker's own segments.
    folder
        Folder of all segments.
    limit
        Bytes that may wait there for the lake.
    shed
        Whether predictions are answered when they cannot be logged.

    Attributes
    ----------
    lost
        Records that were shed.
    """

    def __init__(self, writer: LogWriter, folder: Path, *, limit: int, shed: bool) -> None:
        self._writer, self._folder, self._limit, self._shed = writer, folder, limit, shed
        self._waiting, self._look, self.lost = 0, 0.0, 0

    def append(self, records: Sequence[LogRecord]) -> None:
        """Write records; raise `StoreError` for those that cannot be written and may not be lost."""
        try:
            if self._full():
                raise self._refusal()
            self._writer.append(records)
        except StoreError as error:
            if not self._shed or records[0].kind == OUTCOME:
                raise
            if not self.lost:
                _log.error("predictions are answered without a record: %s", error.message)
            self.lost += len(records)

    def open(self) -> None:
        """Make the segment that the first record goes to."""
        self._writer.open()

    def close(self) -> None:
        """Hand over the segment."""
        self._writer.close()

    @property
    def backlog(self) -> int:
        """Bytes that wait for the lake."""
        return backlog(self._folder)

    @property
    def damaged(self) -> int:
        """Segments of which something could not be read: the committer has put them aside."""
        return sum(1 for _ in self._folder.glob(f"*{DAMAGED}"))

    def _full(self) -> bool:
        now = time.monotonic()
        if now >= self._look:
            self._waiting, self._look = self.backlog, now + LOOK_SECONDS
        return self._waiting > self._limit

    def _refusal(self) -> StoreError:
        return StoreError(
            f"more than {self._limit >> 20} MiB of the prediction log wait for the lake",
            next_step="look at the committer's messages; WINDROW_LOG_BACKLOG is how much may wait",
        )
