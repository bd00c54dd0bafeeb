"""The newest predictions of each service, at hand for a worker that warms a release before it answers.

They are those that wait in segments, and a hundred that the committer keeps beside them when it has moved a segment
into the lake: a worker that starts must not have to open a table for them.
"""

from __future__ import annotations

import fcntl
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import msgspec

from windrow.errors import StoreError
from windrow.stores.log import LogRecord
from windrow.stores.segments import MAGIC, frames, read_segment, segments

MOST = 100  # of each service
_SEGMENTS = 2  # of each worker: older ones wait only where the lake is away
_decode = msgspec.msgpack.Decoder(list[LogRecord]).decode
_encode = msgspec.msgpack.Encoder().encode


def recent(folder: Path, service: str, most: int = MOST) -> list[LogRecord]:
    """Return the newest predictions of a service, newest first.

    Parameters
    ----------
    folder
        Folder of all segments.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.stores.log import LogWriter
    >>> folder = Path(mkdtemp())
    >>> with LogWriter(folder, "api-0") as log:
    ...     log.append([LogRecord(kind="prediction", request_id="r1", service="churn", request={"id": 7})])
    >>> [record.request for record in recent(folder, "churn")]
    [{'id': 7}]
    """
    waiting = [r for r in _waiting(folder) if (r.kind, r.service) == ("prediction", service)]
    return _newest([*waiting, *_kept(_file(folder, service))], most)


def keep(folder: Path, service: str, records: Sequence[LogRecord]) -> None:
    """Keep the newest of a service's predictions, these and those of before; for the committer."""
    made = [record for record in records if record.kind == "prediction"]
    if not made:
        return
    file = _file(folder, service)
    with _alone(folder):
        following = file.with_suffix(".next")
        following.write_bytes(_encode(_newest([*made, *_kept(file)], MOST)))
        following.replace(file)


def drop(folder: Path) -> None:
    """Remove all that is kept: it may be about an entity that is to be forgotten, and comes again with new requests."""
    with _alone(folder):
        for file in folder.joinpath("recent").glob("*.records"):
            file.unlink()


def _waiting(folder: Path) -> Iterator[LogRecord]:
    for _, own in groupby(segments(folder), key=lambda segment: segment.worker):
        for segment in list(own)[-_SEGMENTS:]:
            yield from _last(read_segment(folder, segment) or MAGIC)


def _last(data: bytes) -> Iterator[LogRecord]:
    try:
        for payload in deque(frames(data), maxlen=MOST):
            yield from _decode(payload)
    except (msgspec.MsgspecError, StoreError):
        return  # damaged: the committer says so, and a warm-up does without


def _newest(records: Sequence[LogRecord], most: int) -> list[LogRecord]:
    return sorted(records, key=lambda record: record.received_at, reverse=True)[:most]


def _file(folder: Path, service: str) -> Path:
    return folder / "recent" / f"{service}.records"


def _kept(file: Path) -> list[LogRecord]:
    try:
        return _decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError):  # none yet, or another version's
        return []


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for who else changes what is kept: what is dropped must not be written again from before."""
    place = folder / "recent"
    place.mkdir(parents=True, exist_ok=True)
    with place.joinpath("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
