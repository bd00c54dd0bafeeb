"""What is kept for a while: the least recently used goes first, and everything goes when its time is over."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """A few values by key; several threads may use it.

    Parameters
    ----------
    most
        How many.
    clock
        Seconds that only grow.

    Examples
    --------
    >>> kept = Kept(2)
    >>> for key in "abc":
    ...     kept.put(key, key.upper(), seconds=60)
    >>> kept.get("a"), kept.get("b"), kept.get("c")
    (None, 'B', 'C')
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    def put(self, key: Hashable, value: T, *, seconds: float) -> None:
        """Keep a value for some time."""
        with self._lock:
            self._values[key] = (self._clock() + seconds, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def get(self, key: Hashable) -> T | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            until, value = self._values.get(key, (0.0, None))
            if value is None:
                return None
            if until <= self._clock():
                del self._values[key]
                return None
            self._values.move_to_end(key)
            return value
