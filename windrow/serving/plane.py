"""The request path, readable at a glance: validate, transformer, predictor, log, answer. No HTTP in it."""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from windrow.errors import RequestError
from windrow.serving.answers import encode
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

    async def predict(self, name: str, body: bytes, *, request_id: str) -> bytes:
        """Return the JSON answer to the rows in `body`.

        Raises
        ------
        RequestError
            For a request that cannot be answered.
        StoreError
            If the online store or the log fails: then there is no answer.
        """
        begin = _clock()
        service = self._services.service(name)
        rows = service.reader.read(body)
        validated = _clock()
        now = service.now()
        times = [now if time is None else time for time in rows.times]
        vectors = service.transformer.vectors(rows.values, times, now=now)
        service.check_known(vectors)
        gathered = _clock()
        outputs = _numbers(await service.predictor.predict(vectors))
        stages = _stages(begin, validated, gathered, _clock())
        self._log.append(
            _predictions(service, request_id, rows, times, vectors=vectors, outputs=outputs, now=now, stages=stages)
        )
        return service.speaker.answer(request_id, outputs, vectors.statuses, now=now)

    async def outcomes(self, name: str, body: bytes, *, request_id: str) -> bytes:
        """Log the outcomes in `body` and return how many were accepted."""
        service = self._services.service(name)
        outcomes = read_outcomes(body)
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
        record = LogRecord(kind="error", request_id=request_id, service=name[:64], status=error.status, error=error.kind)
        record.received_at = record.event_time = record.known_at = _wall()
        try:
            service = self._services.service(name)
        except RequestError:
            pass  # not a live service: all that is known of it is its name
        else:
            record.release, record.event_time = service.release.id, service.now()
            record.known_at = record.event_time
        self._log.append([record])


def _predictions(
    service: LiveService,
    request_id: str,
    rows: Rows,
    times: list[int],
    *,
    vectors: Vectors,
    outputs: list[float],
    now: int,
    stages: dict[str, float],
) -> list[LogRecord]:
    name, release, keys, received = service.name, service.release.id, service.keys, _wall()
    return [
        LogRecord(
            kind="prediction",
            request_id=request_id,
            service=name,
            row=i,
            release=release,
            received_at=received,
            event_time=times[i],
            known_at=now,
            keys={key: values[key] for key in keys},
            request=values,
            vector=vector,
            statuses=vectors.statuses[i],
            output=outputs[i],
            stages_us=stages,
        )
        for i, (values, vector) in enumerate(zip(rows.values, vectors.rows(), strict=True))
    ]


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


def _numbers(outputs: list[float]) -> list[float]:
    for output in outputs:
        if not math.isfinite(output):
            raise RequestError(500, "no-number", "The model answered with something that is not a number", next_step="promote another release")
    return outputs


def _stages(begin: int, validated: int, gathered: int, predicted: int) -> dict[str, float]:
    return {
        "validate": (validated - begin) / 1000,
        "features": (gathered - validated) / 1000,
        "model": (predicted - gathered) / 1000,
    }


def _wall() -> int:
    return time.time_ns() // 1000
