"""Warm before ready: a release answers a request like a real one before it goes live."""

from __future__ import annotations

import asyncio
from typing import Any

from windrow.errors import ModelError, RequestError
from windrow.features.contract import Contract
from windrow.schema import EVENT_TIME
from windrow.serving.answers import encode
from windrow.serving.live import LiveService

ROUNDS = 20
_SAMPLES: dict[str, Any] = {
    "bool": False, "int32": 0, "int64": 0, "float32": 0.0, "float64": 0.0, "string": "", "timestamp": "1970-01-01T00:00:00Z",
}  # fmt: skip


def warm(service: LiveService) -> LiveService:
    """Send `service` a few requests through every step but the log, and return it.

    Raises
    ------
    ModelError
        If it cannot answer.
    """
    body = sample_request(service.release.contract)
    try:
        for _ in range(ROUNDS):
            asyncio.run(_answered(service, body))
    except RequestError as error:
        # The sample's entity exists nowhere, and a model may rightly refuse the missing values.
        if error.kind != "value-refused":
            raise ModelError(
                f"release {service.release.id!r} does not answer a warm-up request: {error.what}",
                next_step=error.next_step,
            ) from error
    return service


def sample_request(contract: Contract) -> bytes:
    """Return the body of a request that keeps the contract.

    Examples
    --------
    >>> from windrow.schema import Field
    >>> amount = Field("amount", "float64")
    >>> sample_request(Contract(view="v", spine="s", request=(amount,), optional=(), lookups=(), on_demand=(), features=(amount,)))
    b'{"amount":0.0}'
    """
    time = {EVENT_TIME: _SAMPLES["timestamp"]} if contract.timed else {}
    return encode({f.name: _SAMPLES[f.dtype] for f in contract.request} | time)


async def _answered(service: LiveService, body: bytes) -> bytes:
    rows, now = service.reader.read(body), service.now()
    vectors = service.transformer.vectors(rows.values, [now] * len(rows.values))
    outputs = await service.predictor.predict(vectors)
    _ = service.recorder  # made before the first request, not by it
    return service.speaker.answer("warm-up", outputs, vectors.statuses, now=now)
