"""The request path, readable at a glance: validate, transformer, predictor, log, answer. No HTTP in it."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from windrow.errors import RequestError
from windrow.serving.answers import Mark, encode, place_of
from windrow.serving.backbone import Answers, Backbone
from windrow.serving.live import LiveService
from windrow.serving.requests import Outcome, Rows, read_outcomes
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
        self._services, self._log, self.backbone = services, log, Backbone()
        self._prefix, self._count = secrets.token_hex(6), itertools.count(1)

    def new_id(self) -> str:
        """Return the id of one more request: unique, also over workers and restarts."""
        return f"{self._prefix}-{next(self._count):x}"

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
        answers = await self.backbone.answer((service,), rows.values, times, begun=asks[0].begun)
        spent = answers.gathered - begun, answers.done - answers.gathered
        self._log.append(_predictions(asks, times, answers=answers, now=now, spent=spent))
        return _spoken(asks, answers, now)

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
    asks: Sequence[Ask], times: Sequence[int], *, answers: Answers, now: int, spent: tuple[int, int]
) -> list[LogRecord]:
    service, received = asks[0].service, _wall()
    vectors, outputs = answers.vectors, answers.outputs
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
    if answers.reasons or answers.others:
        _amend(records, answers)
    return records


def _amend(records: Sequence[LogRecord], answers: Answers) -> None:
    for row, reasons in (answers.reasons or {}).items():
        records[row].degraded = ",".join(reasons)
    for row, other in (answers.others or {}).items():
        record, vectors = records[row], other.vectors
        record.answered_by, record.release = other.name, ""
        if other.service is not None and vectors is not None:
            recorder = other.service.recorder
            record.release = other.name
            record.vector = recorder.vector(vectors.lists[other.at], finite=vectors.finite[other.at])
            record.statuses = recorder.statuses(vectors.statuses[other.at])


def _spoken(asks: Sequence[Ask], answers: Answers, now: int) -> list[bytes]:
    speaker, outputs, statuses = asks[0].service.speaker, answers.outputs, answers.vectors.statuses
    marks = _marks(answers) if answers.reasons or answers.others else {}
    if len(asks) == 1:
        return [speaker.answer(asks[0].request_id, outputs, statuses, now=now, marks=marks)]
    made, at = [], 0
    for ask in asks:
        end = at + len(ask.rows.values)
        mine = {row - at: mark for row, mark in marks.items() if at <= row < end} if marks else marks
        made.append(speaker.answer(ask.request_id, outputs[at:end], statuses[at:end], now=now, marks=mine))
        at = end
    return made


def _marks(answers: Answers) -> dict[int, Mark]:
    reasons, others = answers.reasons or {}, answers.others or {}
    marks = {row: Mark(reasons.get(row, ())) for row in {*reasons, *others}}
    for row, other in others.items():
        mark = marks[row] = Mark(reasons.get(row, ()), other.name)
        if other.service is not None and other.vectors is not None:
            mark.statuses = other.service.speaker.said(other.vectors.statuses[other.at])
    return marks


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


def _wall() -> int:
    return time.time_ns() // 1000
