"""The last step before ready: requests as users send them, in the thread that answers users.

Releases are warmed in a thread beside the event loop, so that a switch never holds up requests. A worker that has just
started is still cold in the loop's own thread: its caches, its connection to the online store, its code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice

from windrow.errors import RequestError, StoreError
from windrow.serving.live import LiveService, LiveServices
from windrow.serving.plane import Plane
from windrow.serving.turn import Turn
from windrow.stores.log import LogRecord

ROUNDS = 50  # for each service


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


def _forget_counts(service: LiveService) -> None:
    if service.cache is not None:
        service.cache.hits = service.cache.misses = 0
    if service.precomputed is not None:
        service.precomputed.rows.clear()


async def _asked(turn: Turn, service: LiveService, body: bytes) -> None:
    with suppress(RequestError, StoreError):  # the store may be away: that is said when somebody asks
        await turn.predict(service.name, body, request_id="warm-up")
