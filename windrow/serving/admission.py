"""Who is let in: a bounded number of requests at once, and nobody any more while the worker drains."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from types import FrameType
from typing import Any

from windrow.errors import RequestError

MOST = 1024  # requests at once: at a tenth of a millisecond each, all of them are answered long before the deadline
QUIET, LONGEST = 0.25, 5.0  # seconds: a drain ends when nobody has asked for so long, or after so long
OVERLOADED, DRAINING = "overloaded", "draining"


class Admission:
    """Counts the requests of one worker that are being answered, and turns others away.

    For the event loop's thread alone.

    Parameters
    ----------
    most
        How many requests may be answered at once.

    Examples
    --------
    >>> print(Admission(most=1).refusal())
    The service has more requests than it can answer in time. Next: try again in a second, with fewer requests at once.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self.in_flight, self.draining = most, 0, False
        self.turned_away: Counter[str] = Counter()
        self._asked_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether nobody more is let in."""
        return self.draining or self.in_flight >= self.most

    def refusal(self) -> RequestError:
        """Return what is told to a request that does not come in (503), and count it."""
        if self.draining:
            self._asked_at = time.monotonic()
            self.turned_away[DRAINING] += 1
            step = "try again: another process answers then"
            return RequestError(503, DRAINING, "The service is being stopped", next_step=step)
        self.turned_away[OVERLOADED] += 1
        what = "The service has more requests than it can answer in time"
        return RequestError(503, OVERLOADED, what, next_step="try again in a second, with fewer requests at once")

    def drain_on_terminate(self) -> None:
        """Let SIGTERM begin a drain, and the server's own handler stop it afterwards.

        Without this the server closes connections on which clients are just sending their next request.
        """
        before = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            return
        loop, stop = asyncio.get_running_loop(), before

        def begin(number: int, frame: FrameType | None) -> None:
            if not self.draining:
                self.draining, self._asked_at = True, time.monotonic()
                loop.call_soon_threadsafe(start)

        def start() -> None:
            self._task = loop.create_task(self._drain(stop))

        signal.signal(signal.SIGTERM, begin)

    async def _drain(self, stop: Any) -> None:
        end = time.monotonic() + LONGEST
        while (now := time.monotonic()) < end and (self.in_flight or now < self._asked_at + QUIET):
            await asyncio.sleep(0.02)
        _stop_listening(getattr(stop, "__self__", None))
        stop(signal.SIGTERM, None)


def _stop_listening(server: Any) -> None:
    # A supervisor holds the same socket: if it were only closed here, clients would connect to nobody.
    for listening in getattr(server, "servers", ()):
        for one in listening.sockets:
            with suppress(OSError), socket.socket(fileno=os.dup(one.fileno())) as ours:
                listening.close()
                ours.shutdown(socket.SHUT_RDWR)
