"""Rows that are answered together, the parts that one release each answers, and what the log is told of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from windrow.clock import SECOND
from windrow.models.policies import PRECOMPUTED
from windrow.models.precomputed import Kept
from windrow.serving.answers import Prediction, place_of, spoken_time
from windrow.serving.backbone import Answers
from windrow.serving.dispatcher import Dispatcher, Route
from windrow.serving.live import LiveService
from windrow.serving.precomputed import Precomputed
from windrow.serving.vectors import Vectors
from windrow.stores.log import LogRecord


class Batch(msgspec.Struct, frozen=True, gc=False):
    """The rows of requests for one service, in one list each.

    Attributes
    ----------
    service
        The live one, which read the requests.
    request_ids, rows
        Whose row it is, and which one of that request.
    values, times
        What was asked, and the time it is about, UTC microseconds.
    now
        When it is now for the service, UTC microseconds.
    checked
        Microseconds of reading the row's request.
    begun
        When the first of the requests began, nanoseconds of the performance counter.
    """

    service: LiveService
    request_ids: list[str]
    rows: Sequence[int]
    values: list[dict[str, Any]]
    times: list[int]
    now: int
    checked: list[float]
    begun: int


class Part(msgspec.Struct, frozen=True, gc=False):
    """The rows of a batch that one release answers; `routes` is None where no experiment runs."""

    service: LiveService
    places: Sequence[int]
    routes: list[Route[LiveService]] | None = None


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A part with its answers; `begun` in nanoseconds of the performance counter."""

    part: Part
    answers: Answers
    begun: int


def divided(batch: Batch, dispatcher: Dispatcher[LiveService] | None) -> list[Part]:
    """Return the parts of a batch, by who answers."""
    if dispatcher is None:
        return [Part(batch.service, range(len(batch.values)))]
    routes = dispatcher.routes(batch.request_ids, batch.values)
    if len({id(route.service) for route in routes}) == 1:
        return [Part(routes[0].service, range(len(routes)), routes)]
    places: dict[int, list[int]] = {}
    for place, route in enumerate(routes):
        places.setdefault(id(route.service), []).append(place)
    return [Part(routes[at[0]].service, at, [routes[i] for i in at]) for at in places.values()]


def taken(batch: Batch, parts: Sequence[Part], stored: Precomputed) -> tuple[list[Scored], list[Part]]:
    """Return the rows of the live release that a batch run has answered already, and the parts that are left."""
    scored, left = [], []
    for part in parts:
        begun = time.perf_counter_ns()
        mine = part.service is batch.service
        found = (
            stored.find([batch.values[i] for i in part.places], [batch.times[i] for i in part.places]) if mine else []
        )
        kept = {at: one for at, one in enumerate(found) if one is not None}
        if not kept:
            left.append(part)
            continue
        scored.append(Scored(_some(part, list(kept)), _stored(list(kept.values())), begun))
        others = [at for at in range(len(part.places)) if at not in kept]
        if others:
            left.append(_some(part, others))
    return scored, left


def _some(part: Part, rows: Sequence[int]) -> Part:
    routes = None if part.routes is None else [part.routes[at] for at in rows]
    return Part(part.service, [part.places[at] for at in rows], routes)


def _stored(kept: Sequence[Kept]) -> Answers:
    count, now = len(kept), time.perf_counter_ns()
    nothing = Vectors((), None, None, [[]] * count, [True] * count, [{}] * count, {})
    return Answers(nothing, [one.output for one in kept], now, now, stored=[one.event_time for one in kept])


def recorded(batch: Batch, scored: Scored) -> list[LogRecord]:
    """Return what the log is told of the rows of one part."""
    part, answers, received = scored.part, scored.answers, time.time_ns() // 1000
    release, recorder, vectors = part.service.release.id, part.service.recorder, answers.vectors
    features, model = (answers.gathered - scored.begun) / 1000, (answers.done - answers.gathered) / 1000
    records = []
    for at, place in enumerate(part.places):
        record = asked(batch, place, received=received)
        record.release, record.output = release, place_of(answers.outputs[at])
        if not answers.stored:
            record.vector = recorder.vector(vectors.lists[at], finite=vectors.finite[at])
            record.statuses = recorder.statuses(vectors.statuses[at])
        record.stages_us = {"validate": batch.checked[place], "features": features, "model": model}
        if part.routes is not None:
            route = part.routes[at]
            record.experiment, record.arms, record.propensities = route.experiment, route.arms, route.propensities
        records.append(record)
    for at in answers.cached:
        records[at].cached = True
    if not answers.whole:
        _amend(records, answers)
    return records


def _amend(records: Sequence[LogRecord], answers: Answers) -> None:
    for row, _ in enumerate(answers.stored):
        records[row].answered_by = PRECOMPUTED
    for row, reasons in answers.reasons.items():
        records[row].degraded = ",".join(reasons)
    for row, other in answers.others.items():
        record, vectors = records[row], other.vectors
        record.answered_by, record.release, record.cached = other.name, "", other.cached
        if other.service is not None and vectors is not None:
            recorder = other.service.recorder
            record.release = other.name
            record.vector = recorder.vector(vectors.lists[other.at], finite=vectors.finite[other.at])
            record.statuses = recorder.statuses(vectors.statuses[other.at])


def asked(batch: Batch, place: int, *, received: int) -> LogRecord:
    """Return the record of one row before anybody has answered it; `received` in UTC microseconds."""
    service, values = batch.service, batch.values[place]
    return LogRecord(
        kind="prediction",
        request_id=batch.request_ids[place],
        service=service.name,
        row=batch.rows[place],
        received_at=received,
        event_time=batch.times[place],
        known_at=batch.now,
        keys={key: values[key] for key in service.keys},
        request=values,
    )


def said(batch: Batch, scored: Sequence[Scored]) -> list[tuple[LiveService, Prediction]]:
    """Return what is said of each row of a batch, and by whom, in the batch's order."""
    made: dict[int, tuple[LiveService, Prediction]] = {}
    for one in scored:
        part, service = one.part, one.part.service
        predictions = service.speaker.predictions(one.answers.outputs, one.answers.vectors.statuses)
        if not one.answers.whole:
            _mark(predictions, batch, one)
        for at, place in enumerate(part.places):
            prediction = predictions[at]
            if part.routes is not None:
                prediction.arms = part.routes[at].arms or None
            made[place] = service, prediction
    return [made[place] for place in range(len(batch.values))]


def _mark(predictions: Sequence[Prediction], batch: Batch, scored: Scored) -> None:
    answers = scored.answers
    for row, event_time in enumerate(answers.stored):
        prediction = predictions[row]
        prediction.answered_by, prediction.precomputed_for = PRECOMPUTED, spoken_time(event_time)
        prediction.age_seconds = (batch.times[scored.part.places[row]] - event_time) / SECOND
    for row, reasons in answers.reasons.items():
        predictions[row].degraded = reasons
    for row, other in answers.others.items():
        prediction = predictions[row]
        prediction.answered_by = other.name
        if other.service is not None and other.vectors is not None:
            prediction.statuses = other.service.speaker.said(other.vectors.statuses[other.at])


def spoken(request_id: str, told: Sequence[tuple[LiveService, Prediction]], *, golden: LiveService, now: int) -> bytes:
    """Return the JSON of one request's answer: where several releases answered, golden's says which rows are not its."""
    first = told[0][0]
    speaks = first if all(service is first for service, _ in told) else golden
    for service, prediction in told:
        if service is not speaks:
            prediction.release = service.release.id
    return speaks.speaker.told(request_id, [prediction for _, prediction in told], now=now)
