"""Erasing records from the prediction log: from segments that are written to at this moment, and from those that wait.

A worker holds its segment open, so that the file cannot be replaced. A record is overwritten in place, by one
``write`` of the same length: the others of its frame, and a filler that every reader skips.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from windrow.errors import StoreError
from windrow.stores.committer import commit_all, elected
from windrow.stores.lake import Lake
from windrow.stores.log import FILLER, LogRecord
from windrow.stores.segments import DAMAGED, MAGIC, OPEN, SEALED, segments

WAIT_SECONDS = 60.0
_LENGTH = 4
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[LogRecord]).decode

Wanted = Callable[[LogRecord], bool]


class _Frame(NamedTuple):
    """Where a payload begins in its file, and how long it is."""

    start: int
    length: int


def find_in_segments(folder: Path, wanted: Wanted) -> list[LogRecord]:
    """Return the wanted records of all segments; changes nothing."""
    found: list[LogRecord] = []
    for path in _files(folder):
        for _, records in _frames(_bytes(path)):
            found += [record for record in records if wanted(record)]
    return found


def erase_from_segments(folder: Path, wanted: Wanted) -> list[LogRecord]:
    """Overwrite the wanted records of all segments; return them."""
    found: list[LogRecord] = []
    for path in _files(folder):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # sealed or committed meanwhile; sealed ones are looked at by their other name
        try:
            found += _erase(descriptor, _bytes(path), wanted)
        finally:
            os.close(descriptor)
    return found


@contextmanager
def committed(folder: Path, lake: Lake, *, seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Run the block when all that anybody has read from segments is in the lake.

    Where no committer runs this process is it, for as long as the block takes; else the segments that were
    sealed when this was called are waited for: the committer may have read them before they were overwritten.

    Raises
    ------
    StoreError
        If the committer does not take them over in time.
    """
    waiting = [path for path in _files(folder) if path.suffix == SEALED]
    deadline = time.monotonic() + seconds
    while True:
        with elected(folder) as mine:
            if mine:
                commit_all(folder, lake)
            if mine or not any(path.exists() for path in waiting):
                yield
                return
        if time.monotonic() > deadline:
            raise StoreError(
                f"the committer of {folder} does not take its segments over",
                exists=f"{len(waiting)} segments wait",
                next_step="look at its messages (`windrow up` starts it), then forget again",
            )
        time.sleep(0.1)


def _files(folder: Path) -> list[Path]:
    named = [segment.path(folder, ending) for segment in segments(folder) for ending in (OPEN, SEALED)]
    return [path for path in (*named, *sorted(folder.glob(f"*{DAMAGED}"))) if path.exists()]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _frames(data: bytes) -> Iterator[tuple[_Frame, list[LogRecord]]]:
    """Yield the frames that can be read, each with its records."""
    position, end = len(MAGIC), len(data)
    while position + _LENGTH < end:
        length = int.from_bytes(data[position : position + _LENGTH], "little")
        frame = _Frame(position + _LENGTH, length)
        position = frame.start + length
        if not length or position > end:
            return
        try:
            yield frame, _decode(data[frame.start : position])
        except msgspec.MsgspecError:
            continue  # of a damaged frame nobody can tell whose it is


def _erase(descriptor: int, data: bytes, wanted: Wanted) -> list[LogRecord]:
    found: list[LogRecord] = []
    for frame, records in _frames(data):
        gone = [record for record in records if wanted(record)]
        if gone:
            kept = [record for record in records if not wanted(record)]
            os.pwrite(descriptor, filled(kept, frame.length), frame.start)
            found += gone
    return found


def filled(kept: Sequence[LogRecord], length: int) -> bytes:
    """Return the records and a filler as a payload of exactly `length` bytes.

    Examples
    --------
    >>> [len(filled([], length)) for length in (250, 500, 501, 70_000)]
    [250, 500, 501, 70000]
    """
    # The header of a text grows with it, so that some lengths need one more byte elsewhere.
    for release in ("", "x", "xx"):
        filler = LogRecord(kind=FILLER, request_id="", service="", release=release)
        missing = length - len(_encode([*kept, filler]))
        for header in (0, 1, 2, 4):
            filler.error = "x" * max(missing - header, 0)
            made = _encode([*kept, filler])
            if len(made) == length:
                return made
    raise AssertionError("a filler is shorter than any record")
