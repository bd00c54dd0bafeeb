"""The writer of one worker's segments: one ``write()`` per call, whole or not at all."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Self

from windrow.errors import StoreError
from windrow.stores.segments import MAGIC, OPEN, SEALED, Numbers, SegmentId, create, frame

SEGMENT_BYTES = 16 << 20
SEGMENT_SECONDS = 5.0
_LOG = logging.getLogger("windrow.stores")


class SegmentWriter:
    """Appends frames to this worker's own segment, and hands it over when it is large or old.

    Parameters
    ----------
    folder
        Folder of all segments.
    worker
        Name of this process among the writers, the same after a restart.
    what
        What the segments hold, for errors.
    segment_bytes, segment_seconds
        A segment that is larger or older is handed over at the next `append_frame`, or by `rotate_if_old`.
    sync
        Whether each append waits for the disk: durable against a power cut, and 100 times slower.

    Raises
    ------
    StoreError
        If another process has this name, or the folder cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.stores.segments import frames, read_segment, segments
    >>> folder = Path(mkdtemp())
    >>> with SegmentWriter(folder, "api-0", what="log") as writer:
    ...     writer.append_payload(b"one")
    >>> [list(frames(read_segment(folder, s))) for s in segments(folder)]
    [[b'one']]
    """

    def __init__(
        self, folder: Path, worker: str, *, what: str,
        segment_bytes: int = SEGMENT_BYTES, segment_seconds: float = SEGMENT_SECONDS, sync: bool = False,
    ) -> None:  # fmt: skip
        self._folder, self._bytes, self._sync = folder, segment_bytes, sync
        self._seconds, self._what = segment_seconds, what
        self._descriptor: int | None = None
        self._segment: SegmentId | None = None
        self._size, self._deadline = 0, 0.0
        # The thread that hands over what is old must not meet one that writes.
        self._lock = threading.Lock()
        try:
            self._numbers = Numbers(folder, worker)
        except OSError as error:
            raise self._unwritable(error) from error
        self._closed = False

    def append_payload(self, payload: bytes) -> None:
        """Write one frame; see `append_frame`."""
        self.append_frame(frame(payload))

    def append_frame(self, data: bytes | bytearray) -> None:
        """Write whole frames with one ``write()``: all of them are in the segment, or none.

        Raises
        ------
        StoreError
            If they could not be written; the segment is as it was before.
        """
        if self._closed:
            raise StoreError(f"the {self._what} writer of {self._folder} is closed", next_step="open another")
        try:
            with self._lock:
                self._write(self._current(), data)
        except OSError as error:
            raise self._unwritable(error) from error

    def open(self) -> None:
        """Make the segment that the next frame goes to: a third of a millisecond that no caller then waits for.

        Raises
        ------
        StoreError
            If it cannot be made; `append_frame` tries again.
        """
        try:
            with self._lock:
                self._current()
        except OSError as error:
            raise self._unwritable(error) from error

    def rotate(self) -> None:
        """Hand the segment over, if it holds anything."""
        with self._lock:
            self._rotate()

    def rotate_if_old(self) -> None:
        """Hand the segment over if it holds anything and its time is over."""
        with self._lock:
            if self._size > len(MAGIC) and time.monotonic() >= self._deadline:
                self._rotate()

    def close(self) -> None:
        """Hand over the segment and the name; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self.rotate()
            self._numbers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _rotate(self) -> None:
        if self._descriptor is None or self._segment is None:
            return
        if self._size > len(MAGIC):
            self._seal(self._segment)
        else:
            self._segment.path(self._folder, OPEN).unlink(missing_ok=True)
        self._abandon()

    def _seal(self, segment: SegmentId) -> None:
        path = segment.path(self._folder, OPEN)
        try:
            path.rename(segment.path(self._folder, SEALED))
        except FileNotFoundError:
            # Nobody of ours removes a segment that is written. It is lost, and what comes now must not be lost with it.
            _LOG.error(
                "%s of the %s is gone, and what was in it: it was removed while it was written", path, self._what
            )

    def _current(self) -> int:
        full = self._size >= self._bytes or time.monotonic() >= self._deadline
        if self._descriptor is not None and (not full or self._size == len(MAGIC)):
            return self._descriptor
        self._rotate()
        self._folder.mkdir(exist_ok=True)  # it may have been removed; what it is in is not ours to make
        segment = self._numbers.take()
        self._descriptor = create(self._folder, segment)
        self._segment, self._size = segment, len(MAGIC)
        self._deadline = time.monotonic() + self._seconds
        return self._descriptor

    def _write(self, descriptor: int, data: bytes | bytearray) -> None:
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(28, "No space left on device")
            if self._sync:
                os.fdatasync(descriptor)
        except OSError:
            self._undo(descriptor)
            raise
        self._size += len(data)

    def _undo(self, descriptor: int) -> None:
        # What follows half a frame could not be read: cut it off or never write here again.
        try:
            os.ftruncate(descriptor, self._size)
        except OSError:
            self._abandon()

    def _abandon(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._segment = None

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the {self._what} in {self._folder} cannot be written: {error.strerror or error}",
            next_step="free disk space or check the folder's rights",
        )
