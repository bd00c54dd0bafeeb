"""The request path, readable at a glance: validate, dispatcher, transformer, predictor, log, answer. No HTTP in it."""

from __future__ import annotations

import copy
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from windrow.errors import RequestError
from windrow.serving.answers import encode
from windrow.serving.backbone import Backbone, Given
from windrow.serving.batch import Batch, Part, Scored, divided, recorded, said, spoken, taken
from windrow.serving.dispatcher import Dispatcher
from windrow.serving.live import LiveService
from windrow.serving.requests import Outcome, Rows, read_outcomes
from windrow.serving.shadows import Shadows
from windrow.serving.spans import Spans
from windrow.serving.stages import Stages
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

    def dispatcher(self, service: LiveService) -> Dispatcher[LiveService] | None:
        """Return what sends its rows to releases, None where no experiment runs."""
        ...


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request that keeps its contract, the moment (nanoseconds) it began, and whether it may be answered by what is stored."""

    request_id: str
    service: LiveService
    rows: Rows
    begun: int
    validated: int
    stored: bool = True


class Plane:
    """Answers requests for all live services.

    Parameters
    ----------
    services
        Who answers.
    log
        Written before every answer; where it cannot be, there is no answer.

    Attributes
    ----------
    backbone
        Gets the outputs, from whom it may.
    shadows
        Those who are asked afterwards.
    arms
        (service, experiment, arm) -> rows that were answered.
    stages
        What each step of it takes.
    spans
        Who is told that of each request; None for nobody.
    """

    def __init__(self, services: Services, log: Log) -> None:
        self._services, self._log, self.backbone = services, log, Backbone()
        self.shadows, self.arms, self.stages = Shadows(log.append), Counter[tuple[str, str, str]](), Stages()
        self.spans: Spans | None = None
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
        batch = _together(asks)
        scored = await self._all(batch, asks[0].stored)
        predicted = _clock()
        self._log.append([record for one in scored for record in recorded(batch, one)])
        logged = _clock()
        for one in scored:
            self.shadows.offer(batch, one)
        made = self._answers(asks, batch, scored)
        self._observe(asks, scored, (predicted, logged, _clock()))
        return made

    def _observe(self, asks: Sequence[Ask], scored: Sequence[Scored], moments: tuple[int, int, int]) -> None:
        """Count what the stages took; `moments` are when the answers were there, were logged and were written out."""
        features, model = _spent(scored)
        checked, (predicted, logged, ended) = asks[0].validated - asks[0].begun, moments
        name = asks[0].service.name
        self.stages.observe(name, checked, features, model, logged - predicted, ended - logged, len(asks))
        if self.spans is not None:
            _trace(self.spans, asks, scored, moments)

    async def _all(self, batch: Batch, stored: bool) -> list[Scored]:
        parts, scored = divided(batch, self._services.dispatcher(batch.service)), list[Scored]()
        if stored and batch.service.precomputed is not None:
            scored, parts = taken(batch, parts, batch.service.precomputed)
        return scored + [await self._scored(batch, part) for part in parts]

    async def _scored(self, batch: Batch, part: Part) -> Scored:
        begun, given = _clock(), Given(batch.values, batch.times, batch.begun)
        if len(part.places) < len(batch.values):
            given = given.part(part.places)
        # Where a challenger cannot answer, golden does.
        asked = (part.service,) if part.service is batch.service else (part.service, batch.service)
        return Scored(part, await self.backbone.answer(asked, given), begun)

    def _answers(self, asks: Sequence[Ask], batch: Batch, scored: Sequence[Scored]) -> list[bytes]:
        first, now = scored[0], batch.now
        if first.part.routes is None and first.answers.whole:
            return _plainly(asks, first, now)
        told = said(batch, scored)
        for one in scored:
            for route in one.part.routes or ():
                self.arms.update((batch.service.name, *arm) for arm in route.arms.items())
                self.stages.observe_arms(batch.service.name, route.arms, one.answers.done - one.begun)
        made, at = [], 0
        for ask in asks:
            end = at + len(ask.rows.values)
            made.append(spoken(ask.request_id, told[at:end], golden=batch.service, now=now))
            at = end
        return made

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


def _spent(scored: Sequence[Scored]) -> tuple[int, int]:
    """Return the nanoseconds of reading features and of the models."""
    if len(scored) == 1:
        answers = scored[0].answers
        return answers.gathered - scored[0].begun, answers.done - answers.gathered
    return sum(s.answers.gathered - s.begun for s in scored), sum(s.answers.done - s.answers.gathered for s in scored)


def _trace(spans: Spans, asks: Sequence[Ask], scored: Sequence[Scored], after: tuple[int, int, int]) -> None:
    gathered, (predicted, logged, end) = scored[0].answers.gathered, after
    shared = (scored[0].begun, gathered), (gathered, scored[-1].answers.done), (predicted, logged), (logged, end)
    for ask in asks:
        spans.answered(ask.request_id, ask.service.name, ask.service.release.id, [(ask.begun, ask.validated), *shared])


def _plainly(asks: Sequence[Ask], scored: Scored, now: int) -> list[bytes]:
    """Return the answers where no experiment runs and all is well."""
    speaker, outputs, statuses = asks[0].service.speaker, scored.answers.outputs, scored.answers.vectors.statuses
    if len(asks) == 1:
        return [speaker.answer(asks[0].request_id, outputs, statuses, now=now)]
    made, at = [], 0
    for ask in asks:
        end = at + len(ask.rows.values)
        made.append(speaker.answer(ask.request_id, outputs[at:end], statuses[at:end], now=now))
        at = end
    return made


def _together(asks: Sequence[Ask]) -> Batch:
    service = asks[0].service
    now = service.now()
    if len(asks) == 1:
        return _batch(asks[0], now)
    parts = [_batch(ask, now) for ask in asks]
    return Batch(
        service,
        [id for part in parts for id in part.request_ids],
        [row for part in parts for row in part.rows],
        [values for part in parts for values in part.values],
        [time for part in parts for time in part.times],
        now,
        [spent for part in parts for spent in part.checked],
        parts[0].begun,
    )


def _batch(ask: Ask, now: int) -> Batch:
    rows, spent = ask.rows, (ask.validated - ask.begun) / 1000
    count, times = len(rows.values), [now if time is None else time for time in rows.times]
    return Batch(
        ask.service, [ask.request_id] * count, range(count), rows.values, times, now, [spent] * count, ask.begun
    )


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
