"""Rows as lines of JSON (NDJSON), in and out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from windrow.errors import RequestError
from windrow.serving.answers import encode, problem
from windrow.serving.forms import NDJSON, Answered, Failed
from windrow.serving.requests import MAX_BODY, RowReader, Rows


class Lines:
    r"""One stream of lines; an empty one is no row, and one that is too long costs no more than its number.

    Examples
    --------
    >>> lines = Lines()
    >>> lines.feed(b'{"a": 1}\n\n{"a"')
    >>> lines.take(9)
    [(0, b'{"a": 1}')]
    >>> lines.feed(b': 2}')
    >>> lines.finish()
    >>> lines.take(9)
    [(2, b'{"a": 2}')]
    """

    kind = NDJSON

    def __init__(self) -> None:
        self._whole: deque[tuple[int, bytes | None]] = deque()
        self._rest = bytearray()  # of a line that has not ended
        self._count, self._too_long = 0, False

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        first, *others = data.split(b"\n")
        self._extend(first)
        for line in others:
            self._end_line()
            self._extend(line)

    def finish(self) -> None:
        """The last line may lack its end."""
        self._end_line()

    def take(self, most: int) -> list[tuple[int, bytes | None]]:
        """Give up to `most` lines; None stands for one that was too long."""
        whole = self._whole
        return [whole.popleft() for _ in range(min(most, len(whole)))]

    def read(self, reader: RowReader, row: bytes | None) -> Rows:
        """Return the checked row of a line."""
        if row is None:
            what, step = "The line is longer than 1 MiB", "write one row per line"
            raise RequestError(413, "line-too-long", what, where="$", next_step=step)
        return reader.read_line(row)

    def tell(self, told: Sequence[Answered | Failed]) -> bytes:
        """Return a line for each."""
        lines: list[bytes] = []
        last, common = "", b""
        for one in told:
            if isinstance(one, Failed):
                lines.append(_failed(one))
                continue
            if one.request_id != last:  # all rows of a chunk, mostly
                last, common = one.request_id, _common(one)
            lines.append(b'{"line":%d,"row":%d,%b%b\n' % (one.line, one.row, common, bytes(one.prediction)[1:]))
        return b"".join(lines)

    def end(self) -> bytes:
        """Nothing: the last line is the end."""
        return b""

    def _extend(self, data: bytes) -> None:
        if len(self._rest) + len(data) > MAX_BODY:
            self._too_long = True
        if self._too_long:
            self._rest.clear()
        else:
            self._rest += data

    def _end_line(self) -> None:
        line = None if self._too_long else bytes(self._rest)
        if line is None or line.strip():
            self._whole.append((self._count, line))
        self._count += 1
        self._rest.clear()
        self._too_long = False


def _common(one: Answered) -> bytes:
    return encode({"request_id": one.request_id, "release": one.release, "now": one.now})[1:-1] + b","


def _failed(one: Failed) -> bytes:
    ended = b'"ended":true,' if one.ended else b""
    return b'{"line":%d,%b%b\n' % (one.line, ended, problem(one.error, one.request_id)[1:])
