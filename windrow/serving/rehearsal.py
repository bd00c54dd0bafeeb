"""The last step before ready: requests as users send them, in the thread that answers users.

Releases are warmed in a thread beside the event loop, so that a switch never holds up requests. A worker that has just
started is still cold in the loop's own thread: its caches, its connection to the online store, its code. And it grows
cold again while it waits for its first caller, who comes within a moment of the probe that found it ready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice

from windrow.errors import RequestError, StoreError
from windrow.serving.live import LiveService, LiveServices
from windrow.serving.plane import Plane
from windrow.serving.turn import Turn
from windrow.stores.log import LogRecord

ROUNDS = 50  # for each service
SECONDS, PAUSE = 1.0, 0.005  # how long it is kept warm then, and between two looks


class _Nowhere:
    """A log that nobody reads: what is rehearsed is not a prediction."""

    def append(self, records: Sequence[LogRecord]) -> None:
        """Forget `records`."""


async def rehearse(live: LiveServices) -> None:
    """Answer warm-up requests of every live service, and count and log none of them."""
    turn = Turn(Plane(live, _Nowhere()))
    for service in live.services.values():
        for body in islice(cycle(service.warmth.bodies), ROUNDS):
            await _asked(turn, service, body)
            await asyncio.sleep(0)
        _forget_counts(service)


async def keep_warm(live: LiveServices) -> None:
    """Answer a warm-up request now and then, for a second; of compiled models alone: others have callers to answer."""
    turn, end = Turn(Plane(live, _Nowhere())), time.monotonic() + SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(PAUSE)
        for service in live.services.values():
            if service.release.backend != "sklearn" and service.cache is None and service.precomputed is None:
                await _asked(turn, service, service.warmth.bodies[0])


def _forget_counts(service: LiveService) -> None:
    if service.cache is not None:
        service.cache.hits = service.cache.misses = 0
    if service.precomputed is not None:
        service.precomputed.rows.clear()


async def _asked(turn: Turn, service: LiveService, body: bytes) -> None:
    with suppress(RequestError, StoreError):  # the store may be away: that is said when somebody asks
        await turn.predict(service.name, body, request_id="warm-up")
