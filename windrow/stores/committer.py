"""The committer: moves segments of the prediction log into the lake, each exactly once.

One per home, elected by a lock. The lake takes the same transaction twice, so the committer reads the
last committed segment number of a worker first; it deletes a segment only when all of it is committed.
Killed at any moment, it goes on where it was: `PredictionLog` shows each record once all the while.
It works in small pieces with rests between them, so that it leaves their processor to the workers beside it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import groupby
from pathlib import Path

from windrow.errors import WindrowError
from windrow.settings import Settings
from windrow.stores.election import elected_by
from windrow.stores.lake import Lake
from windrow.stores.log import Rows, decode_segment, table_key, to_table
from windrow.stores.pace import paced
from windrow.stores.recent import MOST, keep
from windrow.stores.segments import DAMAGED, OPEN, SEALED, SegmentId, backlog, lock_if_dead, read_segment, segments

_LOG = logging.getLogger("windrow.committer")
_BATCH_BYTES = 64 << 20  # of segments in one commit, so that memory stays bounded after a long stop
_HURRY_BYTES = 32 << 20  # of segments: where more waits, the usual pace was too slow for what is logged
_LEFTOVER_SECONDS = 60
EVERY = 5.0  # seconds between two commits: a table of many small files is slow to open


def commit(folder: Path, lake: Lake) -> int:
    """Commit every finished segment, and those that dead workers left open; return the records committed.

    Returns 0 without waiting when another process is the committer: it will do it.

    Parameters
    ----------
    folder
        Folder of all segments.
    lake
        Where tables ``log/<service>`` and ``outcomes/<service>`` are.

    Raises
    ------
    WindrowError
        If a commit fails; nothing of it is lost, the next call tries again.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> commit(Path(mkdtemp()), Lake(mkdtemp()))
    0
    """
    with elected(folder) as mine:
        return commit_all(folder, lake) if mine else 0


def elected(folder: Path) -> AbstractContextManager[bool]:
    """Hold the lock of the one committer of `folder`; gives False where another process has it."""
    return elected_by(folder / "committer.lock", "the prediction log")


def commit_all(folder: Path, lake: Lake) -> int:
    """Commit what `commit` would; only for the holder of the lock."""
    _remove_leftovers(folder)
    committed, failed = 0, []
    for _, own in groupby(segments(folder), key=lambda s: s.worker):
        try:
            committed += _commit_worker(folder, lake, list(own))
        except (WindrowError, OSError) as error:
            failed.append(error)  # told below: one worker's records do not wait for another's
    if failed:
        raise failed[0]
    return committed


def _commit_worker(folder: Path, lake: Lake, own: list[SegmentId]) -> int:
    """Commit one worker's segments in their order, up to the one it is writing."""
    committed, held = 0, []
    try:
        batch: list[tuple[SegmentId, bytes]] = []
        for segment in own:
            if not segment.path(folder, SEALED).exists():
                lock = lock_if_dead(segment.path(folder, OPEN))
                if lock is None:
                    break
                held.append(lock)
            batch.append((segment, read_segment(folder, segment) or b""))
            if sum(len(data) for _, data in batch) >= _BATCH_BYTES:
                committed += _commit_batch(folder, lake, batch)
                batch = []
        return committed + _commit_batch(folder, lake, batch)
    finally:
        for lock in held:
            os.close(lock)


def _commit_batch(folder: Path, lake: Lake, batch: Sequence[tuple[SegmentId, bytes]]) -> int:
    tables: dict[str, Rows] = {}
    damaged = set()
    for segment, data in batch:
        found, broken = decode_segment(data)
        if broken and data:
            damaged.add(segment)
        for record in found:
            tables.setdefault(table_key(record), []).append((segment, record))
    committed = sum(_commit_rows(lake, key, rows, last=batch[-1][0]) for key, rows in sorted(tables.items()))
    for key, rows in tables.items():
        if key.startswith("log/"):
            keep(folder, key.removeprefix("log/"), [record for _, record in rows[-MOST:]])
    for segment, _ in batch:
        _remove(folder, segment, keep=segment in damaged)
    return committed


def _commit_rows(lake: Lake, key: str, rows: Rows, *, last: SegmentId) -> int:
    """Commit the rows of segments that the table does not have yet; all of a segment's go together."""
    table, app = lake.table(key), f"log-{last.worker}"
    done = table.transaction_version(app)
    fresh = [(segment, record) for segment, record in rows if done is None or segment.number > done]
    if fresh:
        # Wider than the table where an earlier windrow made it: its records had fewer fields.
        table.append(to_table(fresh), transaction=(app, last.number), widen=True)
    return len(fresh)


def _remove(folder: Path, segment: SegmentId, *, keep: bool) -> None:
    for ending in (OPEN, SEALED):
        path = segment.path(folder, ending)
        if keep:
            _LOG.error(
                "segment %s is damaged: what could be read is committed, the file is kept as %s", segment, DAMAGED
            )
            with suppress(FileNotFoundError):
                path.rename(segment.path(folder, DAMAGED))
        path.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob("*.new"):
        # Of a worker that was killed while it made a segment; it never held a record.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


class _Ended(Exception):  # noqa: N818 - not an error: the process was asked to end
    """Raised by the signal handler."""


def run(home: Path | None = None, *, every: float = EVERY) -> None:
    """Commit the log of `home` (default: of the settings) every `every` seconds, until the parent process dies or this one is asked to end.

    A second committer of the same home waits quietly and takes over when the first ends.
    """
    settings = Settings.read({**os.environ, "WINDROW_HOME": str(home)} if home else None)
    folder, lake, parent = settings.folder("log"), Lake(settings.lake), os.getppid()
    while os.getppid() == parent:
        with elected(folder) as mine:
            while mine and os.getppid() == parent:
                with pace_for(folder):
                    _try(folder, lake)
                _rest(every, parent)
            if mine:
                _try(folder, lake)
        _rest(every, parent)


def pace_for(folder: Path) -> AbstractContextManager[None]:
    """Return the pace of a commit beside workers: with rests, unless so much waits that it could not follow them."""
    return nullcontext() if backlog(folder) > _HURRY_BYTES else paced()


def _try(folder: Path, lake: Lake) -> None:
    try:
        commit_all(folder, lake)
    except (WindrowError, OSError) as error:
        # The segments are still there: say it and try again, the disk may have room by then.
        _LOG.error("%s", error)


def _rest(seconds: float, parent: int) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and os.getppid() == parent:
        time.sleep(min(left, 0.25))


def _end(number: int, frame: object) -> None:
    raise _Ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m windrow.stores.committer --home DIR --every 5``."""
    parser = argparse.ArgumentParser(
        prog="python -m windrow.stores.committer", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--home", type=Path, help="the folder of everything windrow writes (default: WINDROW_HOME)")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two commits")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        run(given.home, every=given.every)
    except _Ended:
        pass  # a commit that was cut short is completed by the next committer
    except WindrowError as error:
        _LOG.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
