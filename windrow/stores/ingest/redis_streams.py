"""Events by Redis Streams: a consumer group reads ``windrow-ingest:<name>``, and each entry takes the way of a pushed event.

With ``?namespace=NAME`` in the URL the streams are ``windrow-NAME-ingest:<name>``.

An entry is acknowledged when it stands in a segment. Redis delivers what was not acknowledged again: entries up to the
newest one that a segment or the online store knows are acknowledged then, and not taken in twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import redis

from windrow.clock import parse_time, spoken
from windrow.errors import StoreError, TimeError, WindrowError, closest, listed
from windrow.schema import Field
from windrow.settings import Settings
from windrow.stores.ingest.ahead import AHEAD, ahead
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.declared import Declared
from windrow.stores.ingest.events import Batch, EventWriter, batches, listing
from windrow.stores.ingest.marks import Marks
from windrow.stores.redis_server import redis_client
from windrow.stores.segments import MAGIC, backlog, read_segment

GROUP = "windrow"
WORKER = "redis"
ROWS = 1000
_BLOCK = 200  # ms
_LOOK_SECONDS = 1.0
_LONGEST = 4096  # characters of an entry that nobody can read, in the quarantine
_LOG = logging.getLogger("windrow.applier")

_Entry = tuple[bytes, Mapping[bytes, bytes]]


class RedisSource:
    """Takes events from the Redis streams of all declared names.

    An entry has one field ``row``: the row as a JSON object, as in ``POST /v1/ingest/{name}``.

    Parameters
    ----------
    settings
        `streams` is the server.
    declared
        Which names there are.
    folder
        Folder of all segments.
    applied
        Returns the newest entry of a name that is online.
    """

    def __init__(self, settings: Settings, declared: Declared, folder: Path, *, applied: Callable[[str], str]) -> None:
        self._server, place = redis_client(settings.streams, variable="WINDROW_STREAMS", socket_timeout=5.0)
        self._limit, self._url = settings.ingest_backlog, place.url
        self._prefix = place.key("windrow", "-ingest:")
        self._declared, self._folder, self._applied = declared, folder, applied
        self._consumer = Marks(folder).home  # several homes may read one stream, each its own part
        self._last: dict[str, str] = {}
        self._ready: set[str] = set()
        self._looked = 0.0

    def run(self, wanted: Callable[[], bool], *, every: float = 5.0) -> None:
        """Take in what comes until `wanted` says no; what goes wrong is told and tried again."""
        said = ""
        while wanted():
            try:
                with EventWriter(self._folder, WORKER, segment_seconds=every) as writer:
                    while wanted():
                        self.step(writer)
                        writer.rotate_if_old()
                        said = ""
            except (WindrowError, redis.RedisError, OSError) as error:
                if str(error) != said:
                    _LOG.error("events from %s cannot be read: %s", self._url.rpartition("@")[2], error)
                said = str(error)
                self._ready.clear()
                time.sleep(_LOOK_SECONDS)

    def step(self, writer: EventWriter) -> int:
        """Take in what is there, waiting a moment for it; return how many entries were written."""
        self._look(writer)
        if not self._ready or backlog(self._folder) > self._limit:
            time.sleep(_BLOCK / 1000)
            return 0
        wanted = {self._prefix + name: ">" for name in self._ready}
        written = 0
        for key, entries in self._server.xreadgroup(GROUP, self._consumer, wanted, count=ROWS, block=_BLOCK):
            written += self._take(key.decode().removeprefix(self._prefix), entries, writer)
        return written

    def _look(self, writer: EventWriter) -> None:
        """Join streams that have come into being, and finish what an earlier process began there."""
        if time.monotonic() < self._looked + _LOOK_SECONDS and self._ready:
            return
        self._looked = time.monotonic()
        for name in self._declared.names():
            if name not in self._ready and self._server.exists(self._prefix + name):
                self._join(name, writer)

    def _join(self, name: str, writer: EventWriter) -> None:
        try:
            self._server.xgroup_create(self._prefix + name, GROUP, id="0")
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._last[name] = self._newest(name)
        self._ready.add(name)
        self._recover(name, writer)

    def _newest(self, name: str) -> str:
        # Segments first: one that is deleted meanwhile is online, and asked for after it.
        found = [
            batch.entries[-1]
            for segment in listing(self._folder) if segment.worker == WORKER
            for _, batch in batches(read_segment(self._folder, segment) or MAGIC)
            if batch is not None and batch.name == name and batch.entries
        ]  # fmt: skip
        return max([*found, self._applied(name) or "0-0"], key=_order)

    def _recover(self, name: str, writer: EventWriter) -> None:
        """Take over what was delivered to an earlier process and not acknowledged."""
        after = b"0"
        while True:
            answer = self._server.xreadgroup(GROUP, self._consumer, {self._prefix + name: after}, count=ROWS)
            entries = answer[0][1] if answer else []
            if not entries:
                return
            self._take(name, entries, writer)
            after = entries[-1][0]

    def _take(self, name: str, entries: Sequence[_Entry], writer: EventWriter) -> int:
        fresh = [entry for entry in entries if _order(entry[0].decode()) > _order(self._last[name])]
        if fresh:
            writer.append(self._batch(name, fresh))
            self._last[name] = fresh[-1][0].decode()
        if entries:
            self._server.xack(self._prefix + name, GROUP, *[id for id, _ in entries])
        return len(fresh)

    def _batch(self, name: str, entries: Iterable[_Entry]) -> Batch:
        stream, now = self._declared.find(name), time.time_ns() // 1000
        if stream is None:
            raise StoreError(f"nothing is declared as {name!r} any more", next_step="declare it, or delete the stream")
        batch = Batch(name, stream.names, [], received_at=now)
        arrived = self._declared.arrival(stream)
        for id, fields in entries:
            batch.entries.append(id.decode())
            try:
                batch.rows.append(self._in_time(stream, read_row(stream, fields.get(b"row"), arrived), arrived))
            except _UnreadableError as error:
                text = b" ".join(fields.values()).decode(errors="replace")
                batch.refused.append((text[:_LONGEST], str(error)))
        return batch

    def _in_time(self, stream: Stream, row: list[Any], now: int) -> list[Any]:
        event, known = row[stream.names.index(stream.event_time)], row[-1]
        # What is no time at all is judged where all types are.
        if type(event) is int and type(known) is int:
            own = None if stream.known_at is None else known
            late = ahead(event, own, now=now, clock=self._declared.clock)
            if late:
                raise _UnreadableError(f"its {late} lies more than {spoken(AHEAD)} in the future")
        return row


class _UnreadableError(Exception):
    """Says why an entry is no row."""


def read_row(stream: Stream, text: bytes | None, arrived: int) -> list[Any]:
    """Return the values of one entry, ``known_at`` last; their types are judged when they are applied.

    Parameters
    ----------
    arrived
        UTC microseconds: without a ``known_at`` of its own the row was not known before.
    """
    if text is None:
        raise _UnreadableError("the entry has no field 'row'")
    try:
        row = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _UnreadableError("its field 'row' is not JSON") from None
    if type(row) is not dict:
        raise _UnreadableError("its field 'row' is not a JSON object")
    for name in islice(row, len(stream.names) + 1):
        if name not in stream.names:
            raise _UnreadableError(f"it has a field that is not declared; {closest(name[:64], stream.names) or f'declared are {listed(stream.names)}'}")  # fmt: skip
    values = [_value(field, row) for field in stream.fields]
    event = values[stream.names.index(stream.event_time)]
    if stream.known_at is not None:
        return [*values, values[stream.names.index(stream.known_at)]]
    return [*values, max(event + stream.delay, arrived) if type(event) is int else None]


def _value(field: Field, row: Mapping[str, Any]) -> Any:
    if field.name not in row:
        raise _UnreadableError(f"{field.name} is missing")
    value = row[field.name]
    if field.dtype == "timestamp" and value is not None:
        try:
            return parse_time(value)
        except (TimeError, TypeError, OverflowError):
            raise _UnreadableError(f"{field.name} is no time with zone") from None
    whole = type(value) is int and field.dtype in ("float32", "float64")
    return float(value) if whole and abs(value) < 2**63 else value


def _order(id: str) -> tuple[int, int]:
    """Return what orders the ids of a stream's entries."""
    moment, _, number = id.partition("-")
    return int(moment), int(number or 0)
