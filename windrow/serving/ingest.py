"""Taking events in over HTTP: checked as strictly as a prediction's request, in a segment before the answer leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from windrow.clock import Clock, spoken
from windrow.errors import RequestError, StoreError, closest, listed
from windrow.features.contract import Contract
from windrow.schema import EVENT_TIME
from windrow.serving.answers import encode
from windrow.serving.requests import RowReader, Rows
from windrow.settings import Settings
from windrow.stores.ingest.ahead import AHEAD, ahead
from windrow.stores.ingest.catalogue import Stream, recorded
from windrow.stores.ingest.events import FOLDER, Batch, EventWriter
from windrow.stores.metadata import Metadata
from windrow.stores.segments import backlog

WRITERS = 64
_BACKLOG_SECONDS = 0.1


class Ingest:
    """What one worker needs to take events in.

    Parameters
    ----------
    settings
        Where everything is, and how much may wait for the lake.
    heard
        Called with the latest known time of sources when an event has moved it on.
    started
        Called once, with the first event: there is something to apply from now on.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        heard: Callable[[Mapping[str, int]], None] = lambda known: None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._heard, self._started = settings, heard, started
        self.folder = settings.folder(FOLDER)
        self._metadata = Metadata(settings.metadata)
        self._counter: int | None = None
        self._streams: dict[str, Stream] = {}
        self._readers: dict[str, RowReader] = {}
        self._latest: dict[str, int] = {}
        self._writer: EventWriter | None = None
        self._stop = threading.Event()
        self._waiting, self._asked = 0, 0.0
        self.accepted: dict[str, int] = {}

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Every name that events can be sent to."""
        counter = self._metadata.change_counter()
        if counter != self._counter:
            self._streams, spans = recorded(self._metadata), self._metadata.spans()
            for name, span in spans.items():
                self._latest[name] = max(self._latest.get(name, span.known), span.known)
            self._counter = counter
            self._readers.clear()
        return self._streams

    def accept(self, name: str, body: bytes, *, request_id: str) -> bytes:
        """Check the rows of a body, write them to this worker's segment, and return the answer.

        Raises
        ------
        RequestError
            404 for a name that nothing declares, 400 and 422 for a body that does not fit, 429 while too much waits.
        StoreError
            If the rows could not be written; none of them is taken in.
        """
        stream = self._stream(name)
        rows = self._reader(stream).read(body)
        now = self._now(stream)
        told = list(_times(stream, rows))
        for i, row in enumerate(told):
            _refuse_ahead(stream, row, (now, self._settings.clock), place=_place(rows, i))
        values = [_values(stream, row, now, place=_place(rows, i)) for i, row in enumerate(told)]
        self._refuse_flood()
        received = time.time_ns() // 1000
        self._write(Batch(stream.name, stream.names, values, received_at=received), size=len(body))
        self._count(stream, values)
        return encode({"request_id": request_id, "name": name, "accepted": len(values)})

    def waiting(self) -> int:
        """Return the bytes of events that are not in the lake yet."""
        if time.monotonic() > self._asked + _BACKLOG_SECONDS:
            self._waiting, self._asked = backlog(self.folder), time.monotonic()
        return self._waiting

    def close(self) -> None:
        """Hand this worker's segment over and give the stores back."""
        self._stop.set()
        if self._writer is not None:
            self._writer.close()
        self._metadata.close()

    def _stream(self, name: str) -> Stream:
        found = self.streams.get(name)
        if found is None:
            raise _unknown(name, self._streams)
        return found

    def _reader(self, stream: Stream) -> RowReader:
        made = self._readers.get(stream.name)
        if made is None:
            made = self._readers[stream.name] = RowReader(_contract(stream))
        return made

    def _now(self, stream: Stream) -> int:
        latest = self._latest
        return self._settings.clock.now(lambda: max((latest.get(s, 0) for s in stream.sources), default=0))

    def _refuse_flood(self) -> None:
        limit = self._settings.ingest_backlog
        if self.waiting() > limit:
            raise RequestError(
                429,
                "backlog-full",
                f"More than {limit >> 20} MiB of events wait for the lake",
                next_step="send it again after the seconds in the header Retry-After; the service's log says what holds them up",
            )

    def _write(self, batch: Batch, *, size: int) -> None:
        if self._writer is None:
            self._writer = _event_writer(self._settings, self.folder)
            threading.Thread(target=self._handing_over, name="windrow-ingest", daemon=True).start()
            self._started()
        self._writer.append(batch)
        self._waiting += size

    def _count(self, stream: Stream, values: list[list[Any]]) -> None:
        latest = max(max(row[stream.names.index(stream.event_time)], row[-1]) for row in values)
        for source in stream.sources:
            self._latest[source] = max(self._latest.get(source, latest), latest)
        self._heard({source: self._latest[source] for source in stream.sources})
        self.accepted[stream.name] = self.accepted.get(stream.name, 0) + len(values)

    def _handing_over(self) -> None:
        # The lake gets finished segments only, and a quiet stream has no next event to finish one.
        while not self._stop.wait(0.25):
            if self._writer is not None:
                self._writer.rotate_if_old()


def _contract(stream: Stream) -> Contract:
    """Return what a row must have, in the form that requests are read by."""
    fields = tuple(field for field in stream.fields if field.name != EVENT_TIME)
    return Contract(
        view=stream.name, spine=stream.name, request=fields, optional=(), lookups=(), on_demand=(), features=()
    )


def _times(stream: Stream, rows: Rows) -> Iterable[dict[str, Any]]:
    """Yield each row with its ``event_time`` where that is a field of the stream."""
    own = EVENT_TIME in stream.names
    for i, (row, moment) in enumerate(zip(rows.values, rows.times, strict=True)):
        if own and moment is None:
            step = 'add "event_time", such as "2026-01-31T09:00:00Z"'
            raise RequestError(
                422, "missing-field", "Field 'event_time' is missing", where=_place(rows, i), next_step=step
            )
        if not own and moment is not None:
            what = "There is no field 'event_time' in a row"
            step = f"say when it happened in {stream.event_time!r}"
            raise RequestError(422, "unknown-field", what, where=_place(rows, i), next_step=step)
        yield {**row, EVENT_TIME: moment} if own else row


def _refuse_ahead(stream: Stream, row: Mapping[str, Any], time: tuple[int, Clock], *, place: str) -> None:
    """Raise `RequestError` for a row that lies too far ahead of `time`: now, and the clock that says it."""
    now, clock = time
    known = None if stream.known_at is None else row[stream.known_at]
    late = ahead(row[stream.event_time], known, now=now, clock=clock)
    if late:
        field = stream.event_time if late == EVENT_TIME else stream.known_at
        what = f"Field {field!r} lies more than {spoken(AHEAD)} in the future"
        step = "send an event when it has happened, and check the sender's clock"
        raise RequestError(422, "out-of-range", what, where=f"{place}.{field}", next_step=step)


def _values(stream: Stream, row: Mapping[str, Any], now: int, *, place: str) -> list[Any]:
    """Return a row's values in the stream's order, ``known_at`` last."""
    event = row[stream.event_time]
    known = max(event + stream.delay, now) if stream.known_at is None else row[stream.known_at]
    if known < event:
        what = f"Field {stream.known_at!r} is before {stream.event_time!r}"
        step = "put the target time of what is known beforehand into a key"
        raise RequestError(422, "out-of-range", what, where=f"{place}.{stream.known_at}", next_step=step)
    return [*(row[name] for name in stream.names), known]


def _place(rows: Rows, number: int) -> str:
    return "$" if len(rows.values) == 1 else f"$.rows[{number}]"


def _unknown(name: str, streams: Mapping[str, Stream]) -> RequestError:
    step = closest(name[:64], streams)
    if not streams:
        step = "start the project with `windrow up`, or run a service: that says which names there are"
    exists = step or f"send to one of {listed(streams)}"
    what = "Nothing that takes events has this name"
    return RequestError(404, "unknown-stream", what, where="path", next_step=exists)


def _event_writer(settings: Settings, folder: Any) -> EventWriter:
    # The same names again after a restart, and one each where several services share a home.
    for number in range(WRITERS - 1):
        try:
            return EventWriter(folder, f"api-{number}", segment_seconds=settings.ingest_every)
        except StoreError:
            continue
    return EventWriter(folder, f"api-{WRITERS - 1}", segment_seconds=settings.ingest_every)
