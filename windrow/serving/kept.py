"""What is kept for a while: the least recently used goes first, and everything goes when its time is over."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
_NONE: tuple[float, None, int] = (0.0, None, 0)


class Kept(Generic[T]):
    """A few values by key; several threads may use it.

    Parameters
    ----------
    most
        How many.
    most_bytes
        How many bytes all of them may take, as those say who put them there.
    clock
        Seconds that only grow.

    Attributes
    ----------
    evicted
        How many went because there was no room.

    Examples
    --------
    >>> kept = Kept(2)
    >>> for key in "abc":
    ...     kept.put(key, key.upper(), seconds=60)
    >>> kept.get("a"), kept.get("b"), kept.get("c")
    (None, 'B', 'C')
    """

    def __init__(self, most: int, *, most_bytes: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._most_bytes, self._clock = most, most_bytes, clock
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, T, int]] = OrderedDict()
        self._bytes, self.evicted = 0, 0

    def put(self, key: Hashable, value: T, *, seconds: float, size: int = 0) -> None:
        """Keep a value of `size` bytes for some time."""
        with self._lock:
            values = self._values
            if key in values:
                self._bytes -= values.pop(key)[2]
            self._bytes += size
            values[key] = (self._clock() + seconds, value, size)
            while len(values) > self._most or self._bytes > self._most_bytes:
                _, (_, _, freed) = values.popitem(last=False)
                self._bytes -= freed
                self.evicted += 1

    def get(self, key: Hashable) -> T | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            until, value, size = self._values.get(key, _NONE)
            if value is None:
                return None
            if until <= self._clock():
                del self._values[key]
                self._bytes -= size
                return None
            self._values.move_to_end(key)
            return value
