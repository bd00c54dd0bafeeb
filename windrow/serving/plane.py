"""The request path, readable at a glance: validate, transformer, predictor, log, answer. No HTTP in it."""

from __future__ import annotations

import copy
import itertools
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from windrow.errors import RequestError
from windrow.serving.answers import Output, encode, place_of
from windrow.serving.live import LiveService
from windrow.serving.requests import Outcome, Rows, read_outcomes
from windrow.serving.transformer import Vectors
from windrow.stores.log import LogRecord

_clock = time.perf_counter_ns


class Log(Protocol):
    """Where every request is written before its answer leaves."""

    def append(self, records: Sequence[LogRecord]) -> None:
        """Write the records with one `write()`; raise `StoreError` if that fails."""
        ...


class Services(Protocol):
    """The services that answer now."""

    def service(self, name: str) -> LiveService:
        """Return one; raise `RequestError` where there is none."""
        ...


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request that keeps its contract, and the moment (nanoseconds) it began."""

    request_id: str
    service: LiveService
    rows: Rows
    begun: int
    validated: int


class Plane:
    """Answers requests for all live services.

    Parameters
    ----------
    services
        Who answers.
    log
        Written before every answer; where it cannot be, there is no answer.
    """

    def __init__(self, services: Services, log: Log) -> None:
        self._services, self._log = services, log
        self._prefix, self._count = secrets.token_hex(6), itertools.count(1)

    def new_id(self) -> str:
        """Return the id of one more request: unique, also over workers and restarts."""
        return f"{self._prefix}-{next(self._count):x}"

    def with_log(self, around: Callable[[Log], Log]) -> Plane:
        """Return the same plane with another log around its own."""
        other = copy.copy(self)
        other._log = around(self._log)
        return other

    async def predict(self, name: str, body: bytes, *, request_id: str) -> bytes:
        """Return the JSON answer to the rows in `body`.

        Raises
        ------
        RequestError
            For a request that cannot be answered.
        StoreError
            If the online store or the log fails: then there is no answer.
        """
        return (await self.answer([self.validate(name, body, request_id=request_id)]))[0]

    def validate(self, name: str, body: bytes, *, request_id: str) -> Ask:
        """Return what `body` asks of the service `name`; raise `RequestError` if it cannot be asked."""
        begun = _clock()
        service = self._services.service(name)
        rows = service.reader.read(body)
        return Ask(request_id, service, rows, begun, _clock())

    async def answer(self, asks: Sequence[Ask]) -> list[bytes]:
        """Return the JSON answers to requests for one service: one read, one run of the model, one write.

        Raises
        ------
        RequestError
            If one of them cannot be answered; then none is.
        StoreError
            If the online store or the log fails.
        """
        service, begun = asks[0].service, _clock()
        now = service.now()
        rows = asks[0].rows if len(asks) == 1 else _joined(asks)
        times = [now if time is None else time for time in rows.times]
        vectors = service.transformer.vectors(rows.values, times)
        service.check_known(vectors)
        gathered = _clock()
        outputs = _numbers(await service.predictor.predict(vectors))
        spent = gathered - begun, _clock() - gathered
        self._log.append(_predictions(asks, times, vectors=vectors, outputs=outputs, now=now, spent=spent))
        return _answers(asks, outputs, vectors, now)

    async def outcomes(self, name: str, body: bytes, *, request_id: str) -> bytes:
        """Log the outcomes in `body` and return how many were accepted."""
        service = self._services.service(name)
        release = service.release
        places = len(release.classes) or (2 if release.task == "classification" else 0)
        outcomes = read_outcomes(body, classes=places)
        now = service.now()
        self._log.append([_outcome(service, outcome, now) for outcome in outcomes])
        return encode({"request_id": request_id, "service": name, "accepted": len(outcomes)})

    def failure(self, name: str, error: RequestError, *, request_id: str) -> None:
        """Log a request that gets no answer; its values are not kept.

        Raises
        ------
        StoreError
            If the log fails too.
        """
        record = LogRecord(
            kind="error", request_id=request_id, service=name[:64], status=error.status, error=error.kind
        )
        record.received_at = record.event_time = record.known_at = _wall()
        try:
            service = self._services.service(name)
        except RequestError:
            pass  # not a live service: all that is known of it is its name
        else:
            record.release, record.event_time = service.release.id, service.now()
            record.known_at = record.event_time
        self._log.append([record])


def _joined(asks: Sequence[Ask]) -> Rows:
    values = [row for ask in asks for row in ask.rows.values]
    return Rows(values, [time for ask in asks for time in ask.rows.times])


def _predictions(
    asks: Sequence[Ask],
    times: Sequence[int],
    *,
    vectors: Vectors,
    outputs: Sequence[Output],
    now: int,
    spent: tuple[int, int],
) -> list[LogRecord]:
    service, received = asks[0].service, _wall()
    name, release, keys, recorder = service.name, service.release.id, service.keys, service.recorder
    features, model = spent[0] / 1000, spent[1] / 1000
    records, at = [], 0
    for ask in asks:
        stages = {"validate": (ask.validated - ask.begun) / 1000, "features": features, "model": model}
        for row, values in enumerate(ask.rows.values):
            record = LogRecord(
                kind="prediction",
                request_id=ask.request_id,
                service=name,
                row=row,
                release=release,
                received_at=received,
                event_time=times[at],
                known_at=now,
                keys={key: values[key] for key in keys},
                request=values,
                vector=recorder.vector(vectors.lists[at], finite=vectors.finite[at]),
                statuses=recorder.statuses(vectors.statuses[at]),
                output=place_of(outputs[at]),
                stages_us=stages,
            )
            records.append(record)
            at += 1
    return records


def _answers(asks: Sequence[Ask], outputs: list[Output], vectors: Vectors, now: int) -> list[bytes]:
    speaker, statuses = asks[0].service.speaker, vectors.statuses
    if len(asks) == 1:
        return [speaker.answer(asks[0].request_id, outputs, statuses, now=now)]
    made, at = [], 0
    for ask in asks:
        end = at + len(ask.rows.values)
        made.append(speaker.answer(ask.request_id, outputs[at:end], statuses[at:end], now=now))
        at = end
    return made


def _outcome(service: LiveService, outcome: Outcome, now: int) -> LogRecord:
    known_at = now if outcome.known_at is None else outcome.known_at
    return LogRecord(
        kind="outcome",
        request_id=outcome.request_id,
        service=service.name,
        row=outcome.row,
        received_at=_wall(),
        event_time=known_at,
        known_at=known_at,
        outcome=outcome.value,
    )


def _numbers(outputs: list[Output]) -> list[Output]:
    for output in outputs:
        # A sum is finite only if all its parts are.
        if not math.isfinite(sum(output) if isinstance(output, list) else output):
            raise RequestError(
                500,
                "no-number",
                "The model answered with something that is not a number",
                next_step="promote another release",
            )
    return outputs


def _wall() -> int:
    return time.time_ns() // 1000
