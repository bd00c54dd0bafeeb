"""Rows as record batches of an Arrow IPC stream, in and out. The only module of this room that imports pyarrow.

pyarrow reads a stream from something it can wait for, which an event loop cannot be. So messages are cut out here, as they
arrive, and pyarrow reads each batch from memory. What a message says of itself is asked before it is read: its
length, its rows, and whether it is compressed (then a few bytes could become gigabytes).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from struct import error as StructError  # noqa: N812 - it is an exception, and reads as one
from struct import unpack_from
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.ipc

from windrow.errors import RequestError
from windrow.serving.answers import Prediction
from windrow.serving.forms import ARROW, Answered, Failed
from windrow.serving.requests import RowReader, Rows

MAX_MESSAGE = 16 << 20
MAX_ROWS = 1 << 20  # and no more than its bytes have bits: a column of nulls takes none, however long it is
ANSWER = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        ("row", pa.int32()),
        ("release", pa.string()),
        ("now", pa.string()),
        ("value", pa.float64()),
        ("class", pa.string()),
        ("probabilities", pa.list_(pa.field("item", pa.float64()))),
        ("statuses", pa.string()),
        ("degraded", pa.string()),
        ("answered_by", pa.string()),
        ("precomputed_for", pa.string()),
        ("age_seconds", pa.float64()),
        ("arms", pa.string()),
        ("problem", pa.string()),
        ("status", pa.int16()),
        ("where", pa.string()),
        ("detail", pa.string()),
        ("next", pa.string()),
        ("ended", pa.bool_()),
    ]
)
_PLAIN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_timestamp,
    pa.types.is_null,
    pa.types.is_string,
    pa.types.is_large_string,
)
_MARK = 0xFFFFFFFF
_SCHEMA, _BATCH = 1, 3
_read_prediction = msgspec.json.Decoder(Prediction).decode


class Batches:
    """One stream of record batches."""

    kind = ARROW

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._schema, self._ended, self._more = b"", False, False
        self._batches: deque[Iterator[dict[str, Any]]] = deque()
        self._count = 0
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, ANSWER)

    def feed(self, data: bytes) -> None:
        """Take what has arrived; raise `RequestError` for what is not an Arrow stream of plain columns."""
        if self._ended:
            self._more = self._more or bool(data)
            return
        self._arrived += data
        try:
            while (message := self._cut()) is not None:
                self._take_in(message)
        except (
            pa.ArrowException,
            StructError,
            OSError,
            ValueError,
            KeyError,
            IndexError,
            OverflowError,
            StopIteration,
        ):
            raise _not_arrow() from None

    def finish(self) -> None:
        """Raise `RequestError` if a message is not whole, nothing came at all, or more came than the stream."""
        if self._more:
            raise _after_the_end()
        if self._arrived or not self._schema:
            raise _not_arrow()

    def take(self, most: int) -> list[tuple[int, dict[str, Any]]]:
        """Give up to `most` rows by name."""
        rows: list[tuple[int, dict[str, Any]]] = []
        while self._batches and len(rows) < most:
            row = next(self._batches[0], None)
            if row is None:
                self._batches.popleft()
                continue
            rows.append((self._count, row))
            self._count += 1
        return rows

    def read(self, reader: RowReader, row: dict[str, Any]) -> Rows:
        """Return the checked row."""
        return reader.read_row(row)

    def tell(self, told: Sequence[Answered | Failed]) -> bytes:
        """Return a record batch with a row for each."""
        rows = [_failed(one) if isinstance(one, Failed) else _answered(one) for one in told]
        self._writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=ANSWER))
        return self._sink.taken()

    def end(self) -> bytes:
        """Return the mark of the end; after a schema, where there was no row."""
        self._writer.close()
        return self._sink.taken()

    def _cut(self) -> bytes | None:
        """Return the next whole message, if it is here; of the kind that `_kind` says."""
        arrived = self._arrived
        if len(arrived) < 8:
            return None
        mark, length = unpack_from("<II", arrived)
        if mark != _MARK:
            raise _not_arrow()
        if length == 0:
            self._ended, self._more = True, len(arrived) > 8
            arrived.clear()
            return None
        if length > MAX_MESSAGE:
            raise _too_large()
        if len(arrived) < 8 + length:
            return None
        size = 8 + length + _Head(arrived).body
        if size > MAX_MESSAGE:
            raise _too_large()
        if len(arrived) < size:
            return None
        message = bytes(arrived[:size])
        del arrived[:size]
        return message

    def _take_in(self, message: bytes) -> None:
        head = _Head(message)
        if head.kind == _SCHEMA and not self._schema:
            schema = pa.ipc.read_schema(pa.py_buffer(message))
            _check_plain(schema)
            self._schema = message
        elif head.kind == _BATCH and self._schema:
            if head.compressed:
                raise _refused("The record batch is compressed", "write it without compression")
            if head.rows > min(MAX_ROWS, 64 + 8 * head.body):
                raise _too_large()
            with pa.ipc.open_stream(pa.py_buffer(self._schema + message)) as stream:
                batch = stream.read_next_batch()
            batch.validate(full=True)
            self._batches.append(_rows(batch))
        else:
            raise _not_arrow()


class _Head:
    """What a message says of itself: the table ``Message`` of Arrow's format, and in it ``RecordBatch``.

    Read by hand, because pyarrow tells the length of a message only when all of it is there.
    """

    def __init__(self, message: bytes | bytearray) -> None:
        root = 8 + unpack_from("<I", message, 8)[0]
        kind, header, body = (_field(message, root, place) for place in (1, 2, 3))
        self.kind: int = message[kind] if kind else 0
        self.body: int = unpack_from("<q", message, body)[0] if body else 0
        self.rows, self.compressed = 0, False
        if self.body < 0:
            raise ValueError
        if self.kind == _BATCH and header:
            table = header + unpack_from("<I", message, header)[0]
            rows = _field(message, table, 0)
            self.rows = unpack_from("<q", message, rows)[0] if rows else 0
            self.compressed = _field(message, table, 3) != 0


def _field(message: bytes | bytearray, table: int, place: int) -> int:
    """Return where the field of a flatbuffers table is, or 0 where it has none."""
    fields = table - unpack_from("<i", message, table)[0]
    if fields < 0:
        raise ValueError
    slot = 4 + 2 * place
    if slot >= unpack_from("<H", message, fields)[0]:
        return 0
    offset: int = unpack_from("<H", message, fields + slot)[0]
    return table + offset if offset else 0


class _Sink:
    """Where pyarrow writes; what is there is taken away."""

    closed = False

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: Any) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    timed = [field.name for field in batch.schema if pa.types.is_timestamp(field.type)]
    for start in range(0, batch.num_rows, 64):
        for row in _plain(batch.slice(start, 64)):
            for name in timed:
                row[name] = _spoken(row[name])
            yield row


def _plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        raise _refused("A column has times that no calendar or no zone has", "send times from 1900 to 2199") from None
    return rows


def _spoken(moment: datetime | None) -> str | None:
    # As in JSON, so that one rule decides what a time is; one without a zone is refused there.
    return None if moment is None else moment.isoformat()


def _answered(one: Answered) -> dict[str, Any]:
    said = _read_prediction(one.prediction)
    shares = None if said.probabilities is None else list(said.probabilities.values())
    return {
        "line": one.line,
        "request_id": one.request_id,
        "row": one.row,
        "release": said.release or one.release,
        "now": one.now,
        "value": said.value,
        "class": said.class_,
        "probabilities": shares,
        "statuses": bytes(said.statuses).decode(),
        "degraded": ",".join(said.degraded) if said.degraded else None,
        "answered_by": said.answered_by,
        "precomputed_for": said.precomputed_for,
        "age_seconds": said.age_seconds,
        "arms": msgspec.json.encode(said.arms).decode() if said.arms else None,
    }


def _failed(one: Failed) -> dict[str, Any]:
    error = one.error
    return {
        "line": one.line,
        "request_id": one.request_id,
        "problem": f"urn:windrow:problem:{error.kind}",
        "status": error.status,
        "where": error.where,
        "detail": error.what,
        "next": error.next_step,
        "ended": one.ended,
    }


def _check_plain(schema: pa.Schema) -> None:
    if len(set(schema.names)) != len(schema.names):
        raise _refused("Two columns have the same name", "give each column a name of its own")
    if not all(any(test(kind) for test in _PLAIN) for kind in schema.types):
        raise _refused("A column is neither a number, a text, a time nor true and false", "cast it, also dictionaries")
    if any(pa.types.is_timestamp(kind) and kind.unit == "ns" for kind in schema.types):
        raise _refused("A column has times in nanoseconds", "cast it to timestamp('us', 'UTC')")


def _refused(what: str, next_step: str) -> RequestError:
    return RequestError(422, "wrong-type", what, where="schema", next_step=next_step)


def _not_arrow() -> RequestError:
    step = "send what pyarrow.ipc.new_stream writes: one schema, then record batches"
    return RequestError(400, "broken-arrow", "The body is not an Arrow IPC stream, or not all of it", next_step=step)


def _after_the_end() -> RequestError:
    step = "send each stream as a request of its own"
    return RequestError(400, "after-the-end", "The body goes on after the end of its Arrow stream", next_step=step)


def _too_large() -> RequestError:
    what = f"A message is larger than {MAX_MESSAGE >> 20} MiB, or has more than {MAX_ROWS:,} rows"
    step = "write smaller batches: writer.write_table(table, max_chunksize=10_000)"
    return RequestError(413, "batch-too-large", what, where="body", next_step=step)
