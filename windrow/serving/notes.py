"""One JSON line about a request that failed, was turned away or was slow, and about some of the others.

Never with values, keys or texts of a request: whoever reads a process's output may not be one who may read those.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import msgspec

MOST = 20.0  # lines a second, so that a bad hour fills no disk; what is left out is counted in the next line
_BURST = 100.0
_SERVER = 500  # from this status on it is not the caller's fault
_REFUSED = 400
_AWAY = (429, 503)
_encode = msgspec.json.Encoder().encode


class Note(msgspec.Struct, omit_defaults=True, gc=False):
    """What is said of one request.

    Attributes
    ----------
    why
        ``failed`` (500 and above), ``refused`` (another status that is no 2xx), ``turned-away``, ``slow`` or ``sampled``.
    at
        Wall clock, UTC microseconds.
    ms, budget_ms
        What it took, and what its service declares; None where it declares nothing.
    left_out
        Lines since the last one for which there was no room.
    """

    why: str
    at: int
    request_id: str
    service: str
    route: str
    status: int
    ms: float
    budget_ms: float | None = None
    left_out: int = 0


class Notes:
    """Decides which requests are worth a line, and writes it; for the event loop's thread alone.

    Parameters
    ----------
    every
        One in so many requests that went well gets a line too; 0 for none.
    out
        Where lines go (default: standard error, which the service keeps in its log file).

    Examples
    --------
    >>> notes = Notes(out=sys.stdout, clock=lambda: 0)
    >>> notes.take("a-1", "churn", "predict", 200, 0.030, budget_ms=20)
    {"why":"slow","at":0,"request_id":"a-1","service":"churn","route":"predict","status":200,"ms":30.0,"budget_ms":20}
    >>> notes.take("a-2", "churn", "predict", 200, 0.001, budget_ms=20)
    """

    def __init__(self, every: int = 0, *, out: TextIO | None = None, clock: Any = time.time_ns) -> None:
        self._every, self._out, self._clock = every, out, clock
        self._good, self._left_out = 0, 0
        self._room, self._refilled = _BURST, time.monotonic()

    def take(
        self, request_id: str, service: str, route: str, status: int, seconds: float, *, budget_ms: float | None
    ) -> None:
        """Write a line if the request deserves one and there is room for it."""
        slow = budget_ms is not None and seconds * 1000 > budget_ms
        if status < _REFUSED and not slow:
            self._good += 1
            if not self._every or self._good % self._every:
                return
        if not self._admitted():
            self._left_out += 1
            return
        why = _why(status, slow=slow)
        at, left_out = self._clock() // 1000, self._left_out
        self._left_out = 0
        note = Note(why, at, request_id, service, route, status, round(seconds * 1000, 3), budget_ms, left_out)
        print(_encode(note).decode(), file=self._out or sys.stderr, flush=True)  # noqa: T201 - this is the output

    def _admitted(self) -> bool:
        now = time.monotonic()
        self._room = min(_BURST, self._room + MOST * (now - self._refilled))
        self._refilled = now
        if self._room < 1:
            return False
        self._room -= 1
        return True


def _why(status: int, *, slow: bool) -> str:
    if status in _AWAY:
        return "turned-away"
    if status >= _SERVER:
        return "failed"
    if status >= _REFUSED:
        return "refused"
    return "slow" if slow else "sampled"
