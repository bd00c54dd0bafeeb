"""How far ahead of now an event may lie: clocks differ, but one event from far ahead would move everybody's."""

from __future__ import annotations

import time

from windrow.clock import Clock, duration

AHEAD = duration("5m")


def ahead(event: int, known: int | None, *, now: int, clock: Clock) -> str:
    """Return ``event_time`` or ``known_at``, whichever lies too far ahead to be taken in, or "".

    Parameters
    ----------
    event, known
        UTC microseconds; `known` only where the row says it itself.
    now
        By the project's clock; the machine's own counts too, where it is later.
    clock
        With ``data`` now is the latest known time of all rows: a row that says it will be known in ten years would make
        everything else ten years old. With the others such a row is held back until its time.

    Examples
    --------
    >>> century = duration("36525d")
    >>> ahead(0, 3 * century, now=0, clock=Clock("data")), ahead(0, 3 * century, now=0, clock=Clock("real"))
    ('known_at', '')
    >>> ahead(3 * century, None, now=0, clock=Clock("real"))
    'event_time'
    """
    latest = max(now, time.time_ns() // 1000) + AHEAD
    if event > latest:
        return "event_time"
    return "known_at" if known is not None and known > latest and clock.kind == "data" else ""
