"""Warm before ready: a release answers what was asked lately before it goes live, and what it said then it says again."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from windrow.clock import from_micros
from windrow.errors import ModelError, RequestError, StoreError
from windrow.features.contract import Contract
from windrow.schema import EVENT_TIME
from windrow.serving.answers import encode, place_of, spoken_time
from windrow.serving.live import LiveService
from windrow.serving.vectors import logged_vectors
from windrow.stores.log import LogRecord

ROUNDS, SECONDS = 20, 1.0
LOG, SAMPLE = "log", "sample"
TOGETHER = 8  # requests of one turn of the event loop, as many connections send them
TOLERANCE = 1e-5  # relative, as for golden pairs
_SAMPLES: dict[str, Any] = {
    "bool": False, "int32": 0, "int64": 0, "float32": 0.0, "float64": 0.0, "string": "", "timestamp": "1970-01-01T00:00:00Z",
}  # fmt: skip
_log = logging.getLogger("windrow.serving")


def warm(service: LiveService, logged: Sequence[LogRecord] = ()) -> LiveService:
    """Send `service` requests through every step but the log, put down what was done, and return it.

    Parameters
    ----------
    logged
        The newest predictions of the service, newest first; each is asked again, as of now, for a second at most. Where
        there are none, or none that this release can read, a made-up request is asked.

    Raises
    ------
    ModelError
        If it cannot answer, or answers a logged vector of its own otherwise than it did.
    """
    begun, warmth = time.perf_counter(), service.warmth
    asyncio.run(_repeated(service, logged))
    warmth.bodies, warmth.source = asyncio.run(_replayed(service, logged)), LOG
    warmth.skipped = len(logged) - len(warmth.bodies)
    if not warmth.bodies:
        warmth.bodies, warmth.source = [sample_request(service.release.contract, now=service.now())] * ROUNDS, SAMPLE
        asyncio.run(_tried(service, warmth.bodies))
    _ = service.recorder  # made before the first request, not by it
    warmth.ms = (time.perf_counter() - begun) * 1000
    told = service.release.id, len(warmth.bodies), warmth.source, warmth.ms
    _log.info("release %s is warm: %d requests of the %s, %.0f ms", *told)
    return service


def sample_request(contract: Contract, *, now: int) -> bytes:
    """Return the body of a request that keeps the contract and asks about `now`, UTC microseconds.

    Examples
    --------
    >>> from windrow.schema import Field
    >>> amount = Field("amount", "float64")
    >>> sample_request(Contract(view="v", spine="s", request=(amount,), optional=(), lookups=(), on_demand=(), features=(amount,)), now=0)
    b'{"amount":0.0}'
    """
    time = {EVENT_TIME: spoken_time(now)} if contract.timed else {}
    return encode({f.name: _SAMPLES[f.dtype] for f in contract.request} | time)


async def _repeated(service: LiveService, logged: Sequence[LogRecord]) -> None:
    """Ask the model what it was asked before, with the vectors of then, and compare."""
    release = service.release
    own = [r for r in logged if r.release == release.id and r.vector and r.output is not None and not r.answered_by]
    if not own:
        return
    try:
        outputs = await service.predictor.predict(logged_vectors(release.contract, [record.vector for record in own]))
    except RequestError as error:
        raise _silent(service, error) from error
    for record, output in zip(own, outputs, strict=True):
        if not math.isclose(place_of(output), record.output or 0.0, rel_tol=TOLERANCE, abs_tol=TOLERANCE / 10):
            raise ModelError(
                f"release {release.id!r} now answers row {record.row} of request {record.request_id!r} with {place_of(output):.9g}, and answered it with {record.output:.9g}",
                exists="The log has the vector, and it is the same",
                next_step="install the versions in its environment.txt, or promote another release",
            )


async def _replayed(service: LiveService, logged: Sequence[LogRecord]) -> list[bytes]:
    """Ask again what was asked lately, one by one and then together; return the requests that got an answer."""
    end, asked = time.monotonic() + SECONDS, list[dict[str, Any]]()
    for record in logged:
        row = _row(service.release.contract, record, service.now())
        if time.monotonic() > end:
            break
        begun = time.perf_counter()
        if await _answers(service, encode(row)):
            service.warmth.spent.append((time.perf_counter() - begun) * 1e6)
            asked.append(row)
    for at in range(0, len(asked), TOGETHER):
        if time.monotonic() < end:
            await _answers(service, encode({"rows": asked[at : at + TOGETHER]}))
    return [encode(row) for row in asked]


def _row(contract: Contract, record: LogRecord, now: int) -> dict[str, Any]:
    """Return a logged request as a caller sends it who asks about now: what was true then is not stored any more."""
    row: dict[str, Any] = {f.name: record.request.get(f.name) for f in contract.request}
    for field in contract.request:
        value = row[field.name]
        if field.dtype == "timestamp" and isinstance(value, int):
            row[field.name] = from_micros(value).isoformat()
    return row | ({EVENT_TIME: spoken_time(now)} if contract.timed else {})


async def _answers(service: LiveService, body: bytes) -> bool:
    """Return whether a request is answered; that it is not may be its own fault, or a thing the fallback is for."""
    try:
        await _answered(service, body)
    except StoreError:
        raise  # what the release reads is not there as it needs it
    except Exception as error:  # noqa: BLE001 - whatever the model raises, there is more to ask
        _log.debug("release %s does not answer a logged request: %s", service.release.id, type(error).__name__)
        return False
    return True


async def _tried(service: LiveService, bodies: Sequence[bytes]) -> None:
    try:
        for body in bodies:
            begun = time.perf_counter()
            await _answered(service, body)
            service.warmth.spent.append((time.perf_counter() - begun) * 1e6)
    except RequestError as error:
        # The sample's entity exists nowhere, and a model may rightly refuse the missing values.
        if error.kind != "value-refused":
            raise _silent(service, error) from error


async def _answered(service: LiveService, body: bytes) -> bytes:
    rows, now = service.reader.read(body), service.now()
    vectors = service.transformer.vectors(rows.values, [now] * len(rows.values))
    outputs = await service.predictor.predict(vectors)
    return service.speaker.answer("warm-up", outputs, vectors.statuses, now=now)


def _silent(service: LiveService, error: RequestError) -> ModelError:
    return ModelError(
        f"release {service.release.id!r} does not answer a warm-up request: {error.what}", next_step=error.next_step
    )
