"""The prediction log: every request, before its answer leaves, and every outcome that comes back.

A worker appends to its own segment (`LogWriter`: one ``write()`` per request); the committer moves
segments into the lake; `PredictionLog` reads lake and segments as one table, each record exactly once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import StoreError
from windrow.stores.segment_writer import SegmentWriter
from windrow.stores.segments import MAGIC, SegmentId, frame, frames, read_segment, segments

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.contract import Contract
    from windrow.schema import Field
    from windrow.stores.lake import Lake

_HEAD = len(frame(b""))
FILLER = "erased"  # kind of a record that stands where others were erased
_OTHER = "log/_other"
_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,62}")


class LogRecord(msgspec.Struct, kw_only=True, gc=False):
    """One row of one request, or one outcome.

    Attributes
    ----------
    kind
        ``prediction``, ``outcome``, ``error``, or ``shadow``: what a release would have answered that only listens.
    request_id, row
        Which answer, and which row of it (from 0).
    service, release
        What was asked ("" where it is not a service), and which release answered.
    received_at
        Wall clock, UTC microseconds.
    event_time, known_at
        The time that was asked about (for an outcome: when it was true, and could be known), UTC microseconds.
    keys, request, vector, statuses
        Entity keys, raw fields, the model's inputs by feature, `Status` by value; to be written, all that is packed
        to the same: `windrow.serving.recorder.Recorder`.
    output, outcome
        What was predicted; what happened.
    status, error
        HTTP status and, for an error, its stable word.
    stages_us
        Microseconds by stage.
    degraded
        Why the prediction is not what it could have been, words with commas between; "" where it is.
    answered_by
        Who answered where the model that was asked did not: another release, ``constant``, which is no `release`, or
        ``precomputed``: a batch run of the `release` did, and no vector was made.
    experiment
        The one that chose the release; "" where none did.
    arms, propensities
        By experiment: the row's arm, and the probability with which a unit got that arm at this moment.
    cached
        Whether the output was kept from an earlier request with the same vector.
    """

    kind: str
    request_id: str
    service: str
    row: int = 0
    release: str = ""
    received_at: int = 0
    event_time: int = 0
    known_at: int = 0
    keys: dict[str, Any] = {}
    request: dict[str, Any] = {}
    vector: dict[str, float | str | None] = {}
    statuses: dict[str, int] = {}
    output: float | None = None
    outcome: float | None = None
    status: int = 200
    error: str = ""
    stages_us: dict[str, float] = {}
    degraded: str = ""
    answered_by: str = ""
    experiment: str = ""
    arms: dict[str, str] = {}
    propensities: dict[str, float] = {}
    cached: bool = False


Rows = list[tuple[SegmentId, LogRecord]]

_encoder = msgspec.msgpack.Encoder()
_encode, _encode_into = _encoder.encode, _encoder.encode_into
_decode = msgspec.msgpack.Decoder(list[LogRecord]).decode
_json = msgspec.json.Encoder().encode
_INFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


class LogWriter(SegmentWriter):
    """Appends records to this worker's own segment.

    Parameters
    ----------
    folder
        Folder of all segments.
    worker
        Name of this process among the writers, the same after a restart.
    **options
        `segment_bytes`, `segment_seconds` and `sync` of `windrow.stores.segment_writer.SegmentWriter`.

    Raises
    ------
    StoreError
        If another process has this name, or the folder cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> with LogWriter(folder, "api-0") as log:
    ...     log.append([LogRecord(kind="prediction", request_id="r1", service="churn", output=0.25)])
    >>> [record.output for _, record in records(folder)]
    [0.25]
    """

    def __init__(self, folder: Path, worker: str, **options: Any) -> None:
        super().__init__(folder, worker, what="prediction log", **options)
        self._frame = bytearray()

    def append(self, records: Sequence[LogRecord]) -> None:
        """Write `records` as one frame with one ``write()``: all of them are in the log, or none.

        Raises
        ------
        StoreError
            If they could not be written; the segment is as it was before.
        """
        self.append_frame(self._framed(records))

    def _framed(self, records: Sequence[LogRecord]) -> bytearray:
        # `segments.frame` of the records, made in the same bytes every time.
        data = self._frame
        try:
            _encode_into(records, data, _HEAD)
        except _UNPACKABLE:
            data[:] = frame(_packed_as_text(records))
        data[:_HEAD] = (len(data) - _HEAD).to_bytes(_HEAD, "little")
        return data


_UNPACKABLE = (OverflowError, UnicodeEncodeError, TypeError)


def _packed_as_text(records: Sequence[LogRecord]) -> bytes:
    # A request with odd values is logged too: what msgpack cannot hold becomes text.
    return _encode([_plain(msgspec.to_builtins(r, enc_hook=_spoken)) for r in records])


def _spoken(value: Any) -> Any:
    return msgspec.msgpack.decode(value) if isinstance(value, msgspec.Raw) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(str(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def decode_segment(data: bytes) -> tuple[list[LogRecord], bool]:
    """Return the records of a segment's bytes, and whether something in the middle could not be read."""
    found, damaged = list[LogRecord](), False
    payloads = frames(data)
    while True:
        try:
            found += [record for record in _decode(next(payloads)) if record.kind != FILLER]
        except StopIteration:
            return found, damaged
        except msgspec.MsgspecError:
            damaged = True  # this frame only: the ones behind it are whole
        except StoreError:
            return found, True


def records(folder: Path) -> Iterable[tuple[SegmentId, LogRecord]]:
    """Yield the records of all segments, each with its segment; those already in the lake too."""
    for segment in segments(folder):
        for record in decode_segment(read_segment(folder, segment) or MAGIC)[0]:
            yield segment, record


def table_key(record: LogRecord) -> str:
    """Return the key of the lake's table that holds a record.

    Whoever asks for a service that no release answers for must not be able to make a table: such
    errors share one.

    Examples
    --------
    >>> table_key(LogRecord(kind="error", request_id="r", service="churn", release="churn-1"))
    'log/churn'
    >>> table_key(LogRecord(kind="error", request_id="r", service="no_such"))
    'log/_other'
    """
    shared = record.kind == "error" and not record.release
    return _OTHER if shared else _own_key(record.kind, record.service)


def _own_key(kind: str, service: str) -> str:
    if not _SERVICE.fullmatch(service):
        return _OTHER
    return f"outcomes/{service}" if kind == "outcome" else f"log/{service}"


_TIMES = ("received_at", "event_time", "known_at")
_OBJECTS = ("keys", "request", "vector", "statuses", "stages_us", "arms", "propensities")
_NUMBERS = {"row": "int64", "status": "int64", "output": "float64", "outcome": "float64", "cached": "bool"}


def log_schema() -> pa.Schema:
    """Return the columns of log and outcome tables: the fields of `LogRecord`.

    Objects are JSON text, times timestamp[us, UTC]. JSON has no infinity: in a vector it is the text "Infinity", or
    "-Infinity", as in the JSON form of Protocol Buffers.
    """
    import pyarrow as pa

    def dtype(name: str) -> pa.DataType:
        if name in _TIMES:
            return pa.timestamp("us", tz="UTC")
        return pa.type_for_alias(_NUMBERS.get(name, "string"))

    return pa.schema([pa.field(name, dtype(name)) for name in LogRecord.__struct_fields__])


def to_table(rows: Rows) -> pa.Table:
    """Return records as an Arrow table of `log_schema` and ``segment``, the name of each one's segment."""
    import pyarrow as pa

    schema = log_schema().append(pa.field("segment", pa.string()))
    columns = {name: [getattr(record, name) for _, record in rows] for name in schema.names[:-1]}
    for name in _OBJECTS:
        columns[name] = [_json(_finite(value) if name == "vector" else value).decode() for value in columns[name]]
    columns["segment"] = [str(segment) for segment, _ in rows]
    return pa.table({n: pa.array(columns[n], schema.field(n).type) for n in schema.names}, schema=schema)


def feature_column(vectors: Sequence[Mapping[str, Any]], field: Field) -> pa.Array:
    """Return what the model was given of one feature, float32 or string: from vectors as their JSON says them."""
    import pyarrow as pa

    values = [vector.get(field.name) for vector in vectors]
    if field.dtype == "string":
        return pa.array(values, pa.string())
    return pa.array([None if value is None else float(value) for value in values], pa.float32())


def _finite(vector: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _INFINITE.get(value, value) for name, value in vector.items()}


class PredictionLog:
    """The log as tables: what the lake has and what is still in segments, each record exactly once.

    Parameters
    ----------
    folder
        Folder of all segments.
    lake
        Where the committer puts them.
    """

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake = folder, lake

    def table(self, service: str, kind: str = "prediction") -> pa.Table:
        """Return the records of a service, of one kind, oldest first.

        Returns
        -------
        pyarrow.Table
            Columns of `log_schema`; without a row if nothing was logged. Of the outcomes of one
            (request_id, row) only the newest by known_at.
        """
        import pyarrow as pa

        # The order matters: a segment that vanishes after this line is in the lake when we read that.
        waiting = self._waiting(service, kind)
        keys = dict.fromkeys((_own_key(kind, service), _OTHER)) if kind == "error" else (_own_key(kind, service),)
        both = pa.concat_tables([self._in_table(key, service, kind, waiting) for key in keys])
        ordered = both.sort_by([("received_at", "ascending"), ("request_id", "ascending"), ("row", "ascending")])
        return _newest_outcomes(ordered) if kind == "outcome" else ordered

    def vectors(self, service: str, contract: Contract) -> pa.Table:
        """Return what the model was given, one column per feature of the contract.

        Returns
        -------
        pyarrow.Table
            ``request_id, row, release, event_time, output``, then the features: float32 (null
            for missing) or string; null where a release did not have the feature. Answers that a batch run
            had made before are left out: they were given without a vector.
        """
        logged = with_vector(self.table(service))
        vectors = [msgspec.json.decode(text) for text in logged.column("vector").to_pylist()]
        made = logged.select(["request_id", "row", "release", "event_time", "output"])
        for field in contract.features:
            made = made.append_column(field.name, feature_column(vectors, field))
        return made

    def unmatched(self, service: str) -> int:
        """Return how many outcomes say what became of a row that this service never predicted.

        Such an outcome is taken in, because its prediction may be in another worker's segment or on another
        machine; but nothing learns from it, and many of them mean that the sender mixes up its request ids.
        """
        pair = ["request_id", "row"]
        # In this order: an outcome can be here only after its prediction.
        outcomes = self.table(service, kind="outcome").select(pair)
        return int(outcomes.join(self.table(service).select(pair), pair, join_type="left anti").num_rows)

    def _waiting(self, service: str, kind: str) -> Rows:
        found: Rows = []
        seen: set[SegmentId] = set()
        for _ in range(3):
            # Again, because a listing may miss a file that is renamed meanwhile.
            fresh = [s for s in segments(self.folder) if s not in seen]
            if not fresh:
                break
            seen.update(fresh)
            for segment in fresh:
                got, _ = decode_segment(read_segment(self.folder, segment) or MAGIC)
                found += [(segment, r) for r in got if r.kind == kind and r.service == service]
        return found

    def _in_table(self, key: str, service: str, kind: str, waiting: Rows) -> pa.Table:
        """Return the rows that one table of the lake has, and those on their way to it."""
        import pyarrow as pa

        stored = self._stored(key, service, kind)
        # A segment may be committed and not deleted yet. All its rows come to a table at once.
        committed = set(stored.column("segment").unique().to_pylist())
        coming = [(segment, r) for segment, r in waiting if table_key(r) == key and str(segment) not in committed]
        return pa.concat_tables([stored, to_table(coming)]).drop_columns(["segment"])

    def _stored(self, key: str, service: str, kind: str) -> pa.Table:
        from windrow.stores.engine import engine

        table, schema = self.lake.table(key), to_table([]).schema
        if not table.exists:
            return to_table([])
        rows = table.scan(engine())
        wanted = rows.filter(rows.kind == kind, rows.service == service)
        return _of_today(wanted.select([n for n in schema.names if n in wanted.columns]).to_pyarrow(), schema)


def with_vector(logged: pa.Table) -> pa.Table:
    """Return the rows of `PredictionLog.table` for which features were read."""
    import pyarrow.compute as pc

    return logged.filter(pc.not_equal(logged["vector"], "{}"))


def _of_today(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows, also those from before a field was added, with what the field says where nothing is said."""
    import pyarrow as pa

    usual = to_table([(SegmentId("", 0), LogRecord(kind="", request_id="", service=""))])
    columns = []
    for field in schema:
        known = field.name in rows.column_names
        column = rows[field.name].cast(field.type) if known else pa.nulls(rows.num_rows, field.type)
        value = usual[field.name][0]
        columns.append(column.fill_null(value) if value.is_valid else column)
    return pa.table(columns, schema=schema)


def _newest_outcomes(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    ordered = rows.sort_by([("known_at", "ascending"), ("received_at", "ascending")])
    numbered = ordered.append_column("position", pa.array(range(ordered.num_rows), pa.int64()))
    last = numbered.group_by(["request_id", "row"]).aggregate([("position", "max")])
    return ordered.take(last.column("position_max").sort())
