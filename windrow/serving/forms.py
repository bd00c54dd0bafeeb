"""The forms of a stream: what every way of writing rows and answers can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from windrow.errors import RequestError
from windrow.serving.requests import RowReader, Rows

NDJSON, ARROW = b"application/x-ndjson", b"application/vnd.apache.arrow.stream"


class Answered(NamedTuple):
    """One row's prediction: its place in the stream, where it is in the log, and the plane's own words."""

    line: int
    request_id: str
    row: int
    release: str
    now: str
    prediction: msgspec.Raw


class Failed(NamedTuple):
    """Why one row has no prediction, or (`ended`) why there is none from this row on."""

    line: int
    request_id: str
    error: RequestError
    ended: bool = False


class Form(Protocol):
    """How rows come in and answers go out; one object for one stream."""

    kind: bytes

    def feed(self, data: bytes) -> None:
        """Take what has arrived; raise `RequestError` where nothing behind it could be understood."""
        ...

    def finish(self) -> None:
        """Hear that nothing more comes; raise `RequestError` if something is missing."""
        ...

    def take(self, most: int) -> list[tuple[int, Any]]:
        """Give up to `most` rows that are here, each with its place in the stream (from 0)."""
        ...

    def read(self, reader: RowReader, row: Any) -> Rows:
        """Return the checked row; raise `RequestError` for one that cannot be asked."""
        ...

    def tell(self, told: Sequence[Answered | Failed]) -> bytes:
        """Return the bytes of some answers."""
        ...

    def end(self) -> bytes:
        """Return the bytes that end the answer."""
        ...
