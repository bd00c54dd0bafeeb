"""Write order: one growing number for every append, given before the rows are written."""

from __future__ import annotations

import os
import threading
import time

from windrow.clock import parse_time

# 63 bits hold microseconds since 1970 only with 12 bits to spare until 2041; from 2020 on they last until 2091.
WRITER_BITS = 12
_EPOCH = parse_time("2020-01-01")


class Sequence:
    """Numbers that strictly increase within a process, even when its clock stands still or steps back.

    The number is microseconds since 2020 in the high bits and a writer id in the low 12, so that
    two processes that write in the same microsecond do not share a number.

    Examples
    --------
    >>> numbers = Sequence(writer=7)
    >>> numbers.next(now=_EPOCH + 1), numbers.next(now=_EPOCH + 1), numbers.next(now=_EPOCH)
    (4103, 8199, 12295)
    """

    def __init__(self, writer: int | None = None) -> None:
        self._writer = int.from_bytes(os.urandom(2), "big") % (1 << WRITER_BITS) if writer is None else writer
        self._last = 0
        self._lock = threading.Lock()

    def next(self, *, now: int | None = None) -> int:
        """Return the next number; `now` is UTC microseconds, default the wall clock."""
        moment = (time.time_ns() // 1000 if now is None else now) - _EPOCH
        with self._lock:
            self._last = max(moment, self._last + 1)
            return (self._last << WRITER_BITS) | self._writer


def at(moment: int) -> int:
    """Return the greatest number that was given up to `moment` (UTC microseconds): ``as_of=at(t)``.

    Examples
    --------
    >>> Sequence(writer=7).next(now=_EPOCH + 5) <= at(_EPOCH + 5) < Sequence(writer=0).next(now=_EPOCH + 6)
    True
    """
    return ((moment - _EPOCH + 1) << WRITER_BITS) - 1


def moment(seq: int) -> int:
    """Return when (UTC microseconds) the number `seq` was given.

    Examples
    --------
    >>> moment(Sequence().next(now=_EPOCH + 5)) - _EPOCH
    5
    """
    return (seq >> WRITER_BITS) + _EPOCH


_process = Sequence()


def next_seq() -> int:
    """Return this process's next number.

    Examples
    --------
    >>> next_seq() < next_seq()
    True
    """
    return _process.next()


def _renew_after_fork() -> None:
    # A child that kept its parent's writer id and clock could give the parent's numbers again.
    global _process
    _process = Sequence()


os.register_at_fork(after_in_child=_renew_after_fork)
