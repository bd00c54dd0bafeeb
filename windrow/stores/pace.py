"""The pace of work beside a service: a little, then a rest, so that no request waits for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WORK, _REST = 0.003, 0.009  # seconds of processor time before a rest, and of a rest


@contextmanager
def paced() -> Iterator[None]:
    """Rest after each 3 ms of processor time, so that this process takes about a quarter of one; for its main thread.

    Work that takes a processor for half a second, all at once, slows the process on the one beside it, and that one's
    requests queue up; the same work in small pieces does not. Native code that runs for longer is not interrupted.

    Examples
    --------
    >>> with paced():
    ...     total = sum(range(1000))
    """
    signal.signal(signal.SIGPROF, _rest)
    signal.siginterrupt(signal.SIGPROF, False)  # native code that reads or writes a file goes on
    signal.setitimer(signal.ITIMER_PROF, _WORK, _WORK)
    try:
        yield
    finally:
        # Python gives signals back as it ends: one more of these would kill the process then.
        signal.setitimer(signal.ITIMER_PROF, 0)


def _rest(number: int, frame: object) -> None:
    time.sleep(_REST)
