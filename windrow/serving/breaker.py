"""A circuit breaker: who failed again and again is left alone for a while, then tried once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half_open", "open"]
THRESHOLD = 5  # failures in a row
COOL_DOWN, LONGEST = 1.0, 16.0  # seconds: of the first rest, and of the longest


class Breaker:
    """Says whether to ask something that may fail.

    For the threads of one interpreter, without a lock: two of them may at worst make one probe too many.

    Parameters
    ----------
    threshold
        Failures in a row that open it.
    cool_down, longest
        Seconds of rest after it has opened; twice as long after each probe that fails, up to `longest`.
    clock
        Seconds, never going back.

    Examples
    --------
    >>> now = [0.0]
    >>> breaker = Breaker(threshold=2, cool_down=1.0, clock=lambda: now[0])
    >>> breaker.failed(), breaker.failed(), breaker.state, breaker.allows()
    (None, None, 'open', False)
    >>> now[0] = 1.0
    >>> breaker.state, breaker.allows(), breaker.allows()  # one probe, and no second one beside it
    ('half_open', True, False)
    >>> breaker.succeeded()
    >>> breaker.state
    'closed'

    References
    ----------
    M. Nygard, *Release It!*, 2007, chapter 5.
    """

    def __init__(
        self,
        *,
        threshold: int = THRESHOLD,
        cool_down: float = COOL_DOWN,
        longest: float = LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold, self._cool_down, self._longest, self._clock = threshold, cool_down, longest, clock
        self._until, self._rest, self._probe_until = 0.0, cool_down, 0.0
        self.failures = 0
        """In a row; 0 while all is well, which is all that a good request looks at."""

    @property
    def state(self) -> State:
        """``closed`` (asked), ``open`` (left alone) or ``half_open`` (one probe may ask, or is asking)."""
        if self.failures < self._threshold:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    @property
    def retry_after(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._until - self._clock()) if self.failures >= self._threshold else 0.0

    def allows(self) -> bool:
        """Whether to ask now; a True after the cool-down is the one probe, until that is told of or takes too long."""
        if self.failures < self._threshold:
            return True
        now = self._clock()
        if now < self._until or now < self._probe_until:
            return False
        self._probe_until = now + self._rest  # a probe that never says how it ended must not be the last
        return True

    def succeeded(self) -> None:
        """It answered: closed."""
        self.failures, self._rest, self._probe_until = 0, self._cool_down, 0.0

    def failed(self, *, times: int = 1) -> None:
        """It failed; `times` is more for what costs callers more, such as a time-out."""
        now, was_open = self._clock(), self.failures >= self._threshold
        if was_open and now < self._until:
            return  # asked before it opened: nothing new
        self.failures += times
        if self.failures < self._threshold:
            return
        if was_open:
            self._rest = min(2 * self._rest, self._longest)
        self._until, self._probe_until = now + self._rest, 0.0
