"""Events on their way in: what was accepted stands in segments until it is online and in the lake.

A worker appends one `Batch` per accepted request to its own segment, with one ``write()``, before it answers.
The applier (`windrow.stores.ingest.applier`) tails the segments: it applies each event to the online store at once, and
commits whole segments to the lake every few seconds (`ingest_every` of `windrow.settings.Settings`), then deletes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from windrow.errors import StoreError
from windrow.stores.segment_writer import SegmentWriter
from windrow.stores.segments import MAGIC, OPEN, SEALED, SegmentId, frame, frames, segments

FOLDER = "ingest"
PARKED = ".parked"
_LENGTH = 4
_READ_BYTES = 64 << 20  # more than a segment has


class Batch(msgspec.Struct, array_like=True, gc=False):
    """The accepted rows of one request.

    Attributes
    ----------
    name
        The stream.
    fields
        Names of the values, as they were declared when the rows were accepted.
    rows
        One list of values per row; times are UTC microseconds. The last one is ``known_at``.
    entries
        Ids that the transport gave the rows, where it gives them more than once; else empty.
    refused
        (text, reason) of what the transport brought and nobody could read.
    received_at
        Wall clock, UTC microseconds.
    """

    name: str
    fields: tuple[str, ...]
    rows: list[list[Any]]
    received_at: int = 0
    entries: list[str] = []
    refused: list[tuple[str, str]] = []


class Position(NamedTuple):
    """Up to where a worker's segments have been read: the segment, and bytes of it."""

    number: int
    offset: int


BEGINNING = Position(0, 0)


class Parked(msgspec.Struct, array_like=True):
    """One row that cannot be applied: where its frame begins in the segment, which row of it, and why."""

    offset: int
    row: int
    reason: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode
_decode_parked = msgspec.msgpack.Decoder(list[Parked]).decode


class EventWriter(SegmentWriter):
    """Appends accepted events to this worker's own segment; options as in `SegmentWriter`.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> with EventWriter(folder, "api-0") as writer:
    ...     writer.append(Batch("payments", ("amount",), [[2.0, 10]]))
    >>> [batch.rows for _, batch in Tail(folder, "api-0").read()]
    [[[2.0, 10]]]
    """

    def __init__(self, folder: Path, worker: str, **options: Any) -> None:
        super().__init__(folder, worker, what="stream of events", **options)

    def append(self, batch: Batch) -> None:
        """Write a batch with one ``write()``: once this returns it survives the death of the process.

        Raises
        ------
        StoreError
            If it could not be written; nothing of it is there.
        """
        self.append_payload(_encode(batch))


class Tail:
    """Reads one worker's batches as they are written, from a position on.

    Parameters
    ----------
    folder
        Folder of all segments.
    worker
        Whose segments.
    after
        Where to go on; default: the beginning of what is there.
    """

    def __init__(self, folder: Path, worker: str, after: Position = BEGINNING) -> None:
        self.position = after
        self._folder, self._worker = folder, worker
        self._descriptor: int | None = None

    def read(self, own: Iterable[SegmentId] | None = None) -> Iterator[tuple[Position, Batch | None]]:
        """Yield what is there now: (where the frame begins, batch), None for a frame that is no batch.

        `position` is behind everything that was yielded.

        Parameters
        ----------
        own
            The worker's segments; default: looked up.
        """
        found = listing(self._folder) if own is None else own
        ahead = [s for s in found if s.worker == self._worker and s.number >= self.position.number]
        for segment in ahead:
            if segment.number > self.position.number:
                # A worker opens a segment when it has finished the one before: nothing more comes there.
                self._leave(Position(segment.number, 0))
            yield from self._rest(segment)

    def close(self) -> None:
        """Give the file back."""
        self._leave(self.position)

    def _leave(self, position: Position) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self.position = None, position

    def _rest(self, segment: SegmentId) -> Iterator[tuple[Position, Batch | None]]:
        descriptor = self._descriptor = self._descriptor or _open(self._folder, segment)
        if descriptor is None:
            return  # its rows are in the lake already
        data = os.pread(descriptor, _READ_BYTES, self.position.offset)
        if data:
            yield from self._frames(data)

    def _frames(self, data: bytes) -> Iterator[tuple[Position, Batch | None]]:
        number, at = self.position
        if at == 0:
            _check_magic(data)
            at, data = len(MAGIC), data[len(MAGIC) :]
            self.position = Position(number, at)
        for payload in frames(MAGIC + data):
            here = Position(number, at)
            at += _LENGTH + len(payload)
            self.position = Position(number, at)
            yield here, decode(payload)


def listing(folder: Path) -> list[SegmentId]:
    """Return the segments of a folder, none missing before one that is there.

    A listing can miss a file that is renamed meanwhile, and whoever then goes on to the next segment would leave it
    out for ever. A segment that is there has all earlier ones of its worker under their last names: they are found by
    a second look.
    """
    first = segments(folder)
    newest = {segment.worker: segment.number for segment in first}
    second = [segment for segment in segments(folder) if segment.number <= newest.get(segment.worker, -1)]
    return sorted({*first, *second})


def decode(payload: bytes) -> Batch | None:
    """Return the batch of a frame, or None if it is damaged."""
    try:
        return _decode(payload)
    except msgspec.MsgspecError:
        return None


def batches(data: bytes) -> Iterator[tuple[int, Batch | None]]:
    """Yield (offset, batch) of a whole segment's bytes; None for a frame that is no batch."""
    at = len(MAGIC)
    for payload in frames(data):
        yield at, decode(payload)
        at += _LENGTH + len(payload)


def park(folder: Path, segment: SegmentId, rows: list[Parked]) -> None:
    """Remember rows that cannot be applied, beside their segment; what was remembered before stays."""
    if not rows:
        return
    data, path = frame(_encode(rows)), segment.path(folder, PARKED)
    with path.open("ab") as file:
        if file.tell() == 0:
            data = MAGIC + data
        file.write(data)


def parked(folder: Path, segment: SegmentId) -> dict[tuple[int, int], str]:
    """Return (offset, row) -> reason for the rows of a segment that cannot be applied."""
    try:
        data = segment.path(folder, PARKED).read_bytes()
    except FileNotFoundError:
        return {}
    found = [one for payload in frames(data) for one in _decode_parked(payload)] if data.startswith(MAGIC) else []
    return {(one.offset, one.row): one.reason for one in found}


def forget(folder: Path, segment: SegmentId) -> None:
    """Delete a segment that is online and in the lake."""
    for ending in (OPEN, SEALED, PARKED):
        segment.path(folder, ending).unlink(missing_ok=True)


def _open(folder: Path, segment: SegmentId) -> int | None:
    # Looked for twice: between two looks it may have been sealed, which changes its name.
    for ending in (OPEN, SEALED, OPEN, SEALED):
        with suppress(FileNotFoundError):
            return os.open(segment.path(folder, ending), os.O_RDONLY | os.O_CLOEXEC)
    return None


def _check_magic(data: bytes) -> None:
    if not data.startswith(MAGIC):
        raise StoreError(
            "a segment of events is not of this format",
            exists=f"This windrow reads {MAGIC.decode()}",
            next_step="apply it with the windrow that wrote it",
        )
