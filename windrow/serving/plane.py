"""The request path, readable at a glance: validate, transformer, predictor, log, answer. No HTTP in it."""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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
        outputs = _numbers((await service.predictor.predict(vectors)).tolist())
        stages = _stages(begin, validated, gathered, _clock())
        self._log.append(_predictions(service, request_id, rows, times, vectors, outputs, stages))
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
        try:
            service: LiveService | None = self._services.service(name)
        except RequestError:
            service = None
        known = (service.name, service.release.id, service.now()) if service else ("", "", _wall())
        self._log.append([_record("error", request_id, known, status=error.status, error=f"{error.kind}: {error.what}")])


def _predictions(
    service: LiveService,
    request_id: str,
    rows: Rows,
    times: list[int],
    vectors: Vectors,
    outputs: list[float],
    stages: dict[str, float],
) -> list[LogRecord]:
    known, received = (service.name, service.release.id), _wall()
    return [
        LogRecord(
            kind="prediction",
            request_id=request_id,
            row=i,
            service=known[0],
            release=known[1],
            received_at=received,
            event_time=times[i],
            known_at=times[i],
            keys={key: values[key] for key in service.keys},
            request=values,
            vector=vector,
            statuses=status,
            output=output,
            outcome=None,
            status=200,
            error="",
            stages_us=stages,
        )
        for i, (values, vector, status, output) in enumerate(
            zip(rows.values, vectors.rows(), vectors.statuses, outputs, strict=True)
        )
    ]


def _outcome(service: LiveService, outcome: Outcome, now: int) -> LogRecord:
    known_at = now if outcome.known_at is None else outcome.known_at
    known = (service.name, "", known_at)
    return _record("outcome", outcome.request_id, known, row=outcome.row, outcome=outcome.value, status=200)


def _record(kind: Any, request_id: str, known: tuple[str, str, int], **facts: Any) -> LogRecord:
    nothing: Mapping[str, Any] = {
        "row": 0, "keys": {}, "request": {}, "vector": {}, "statuses": {}, "output": None, "outcome": None,
        "error": "", "stages_us": {},
    }  # fmt: skip
    service, release, at = known
    times = {"received_at": _wall(), "event_time": at, "known_at": at}
    return LogRecord(kind=kind, request_id=request_id, service=service, release=release, **times, **{**nothing, **facts})


def _numbers(outputs: list[float]) -> list[float]:
    for output in outputs:
        if not math.isfinite(output):
            raise RequestError(500, "no-number", "The model answered with something that is not a number", next_step="promote another release")
    return outputs


def _stages(begin: int, validated: int, gathered: int, predicted: int) -> dict[str, float]:
    spent = {"validate": validated - begin, "features": gathered - validated, "model": predicted - gathered}
    return {stage: nanoseconds / 1000 for stage, nanoseconds in spent.items()}


def _wall() -> int:
    return time.time_ns() // 1000
