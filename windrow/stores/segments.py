"""Segments: the files a worker appends to, one frame per call, until the committer has taken them over.

A segment is ``<worker>-<number>.open`` while its worker holds a lock on it, then ``.seg``. Numbers of
a worker only grow, also over restarts, so that (worker, number) names a segment for ever. A file is
eight bytes that name the format, then frames: four bytes of length (little endian), payload.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from windrow.errors import StoreError

MAGIC = b"WINDROW1"
OPEN, SEALED, DAMAGED = ".open", ".seg", ".damaged"
_LENGTH = 4
_NAME = re.compile(r"(?P<worker>[A-Za-z0-9_.\-]+)-(?P<number>\d+)\.(open|seg)")
_WORKER = re.compile(r"[A-Za-z0-9_.\-]+")


class SegmentId(NamedTuple):
    """Names a segment for ever; sorts by worker, then age."""

    worker: str
    number: int

    def __str__(self) -> str:
        return f"{self.worker}-{self.number}"

    def path(self, folder: Path, ending: str) -> Path:
        """Return the file of this segment in one of its states."""
        return folder / f"{self}{ending}"


def parse_name(name: str) -> SegmentId | None:
    """Return whose segment a file is, or None if it is none.

    Examples
    --------
    >>> parse_name("api-1-12.seg")
    SegmentId(worker='api-1', number=12)
    >>> parse_name("committer.lock") is None
    True
    """
    match = _NAME.fullmatch(name)
    return SegmentId(match["worker"], int(match["number"])) if match else None


def segments(folder: Path) -> list[SegmentId]:
    """Return the segments of a folder, oldest of each worker first; each once, whatever its state."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted({found for name in names if (found := parse_name(name))})


def read_segment(folder: Path, segment: SegmentId) -> bytes | None:
    """Return the bytes of a segment, or None if it is gone: its rows are in the lake then."""
    # Looked for twice: between two looks it may have been sealed, which changes its name.
    for ending in (OPEN, SEALED, OPEN, SEALED):
        with suppress(FileNotFoundError):
            return segment.path(folder, ending).read_bytes()
    return None


def backlog(folder: Path) -> int:
    """Return the bytes of all segments that are not in the lake yet.

    Examples
    --------
    >>> backlog(Path("/no/such/folder"))
    0
    """
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((OPEN, SEALED)):
                with suppress(FileNotFoundError):  # committed and deleted since the folder was listed
                    total += entry.stat().st_size - len(MAGIC)
    return total


def frames(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of whole frames; a torn one at the end, left by a killed process, is ignored.

    Raises
    ------
    StoreError
        If the data is not of this format.

    Examples
    --------
    >>> list(frames(MAGIC + frame(b"one") + frame(b"two")[:-1]))
    [b'one']
    """
    if not data.startswith(MAGIC):
        raise StoreError(
            "a log segment is not of this format",
            exists=f"This windrow reads {MAGIC.decode()}",
            next_step="commit it with the windrow that wrote it",
        )
    position, end = len(MAGIC), len(data)
    while position + _LENGTH <= end:
        start = position + _LENGTH
        position = start + int.from_bytes(data[position:start], "little")
        # A length of zero is never written; a file system gives zeros for what a power cut lost.
        if position > end or position == start:
            return
        yield data[start:position]


def frame(payload: bytes) -> bytes:
    """Return `payload` with its length before it."""
    return len(payload).to_bytes(_LENGTH, "little") + payload


def lock_if_dead(path: Path) -> int | None:
    """Return a descriptor that holds an open segment whose worker is gone, or None while it lives."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class Numbers:
    """The lock and the counter of one worker's segments.

    Parameters
    ----------
    folder
        Where the segments are.
    worker
        Letters, digits, ``_ . -``.

    Raises
    ------
    StoreError
        If another process writes under this name: two would mix up the order of their segments.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        if not _WORKER.fullmatch(worker):
            raise StoreError(f"{worker!r} cannot name a log writer", next_step="use letters, digits, '_', '.' and '-'")
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / f"{worker}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._folder, self._worker = folder, worker
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StoreError(
                f"another process writes the log as {worker!r}", next_step="give each worker a name of its own"
            ) from None

    def take(self) -> SegmentId:
        """Return the next segment: above every earlier number and, should the counter be lost, above the clock's past."""
        stored = int(os.pread(self._descriptor, 20, 0) or 0)
        left = [s.number for s in segments(self._folder) if s.worker == self._worker]
        number = max(stored + 1, time.time_ns() // 1000, *(n + 1 for n in left))
        os.pwrite(self._descriptor, f"{number:020d}".encode(), 0)
        return SegmentId(self._worker, number)

    def close(self) -> None:
        """Let another process use the name."""
        os.close(self._descriptor)


def create(folder: Path, segment: SegmentId, *, beginning: bytes = MAGIC) -> int:
    """Make a segment and return a descriptor that appends to it and holds its lock.

    The file gets its name only when it is locked: no one can take it for a dead worker's.
    """
    hidden = segment.path(folder, ".new")
    descriptor = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.write(descriptor, beginning) != len(beginning):
            raise OSError(28, "No space left on device")
        hidden.rename(segment.path(folder, OPEN))
    except BaseException:  # whatever it was, no half-made file stays behind
        os.close(descriptor)
        hidden.unlink(missing_ok=True)
        raise
    return descriptor
