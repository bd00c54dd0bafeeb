"""What is kept of a model's outputs, so that a vector that was answered is not answered again: declared and checked."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from windrow.clock import duration
from windrow.errors import DeclarationError


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Keep outputs by release and vector: new features and another release never find old ones.

    Parameters
    ----------
    entries, megabytes
        How much one release keeps in a worker; the least recently used goes first. Where `WINDROW_CACHE` names a
        Redis server, it keeps the outputs instead, for all workers, and its own ``maxmemory`` says how many.
    ttl
        How long an output is kept, such as ``"1h"``: room for vectors that nobody asks about any more.
    compiled
        Whether to keep the outputs of a compiled model too: it takes microseconds, so there is little to save.

    Examples
    --------
    >>> Cache(entries=10_000, ttl="10m").seconds
    600.0
    >>> Cache(entries=0)
    Traceback (most recent call last):
    windrow.errors.DeclarationError: Cache(entries=0) keeps nothing. Next: give a number above 0, or write cache=None.
    """

    entries: int = 100_000
    megabytes: float = 64
    ttl: str = "1h"
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (("entries", int), ("megabytes", int | float)):
            value: Any = getattr(self, name)
            number = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
            if not (number and value > 0):
                raise DeclarationError(
                    f"Cache({name}={value!r}) keeps nothing", next_step="give a number above 0, or write cache=None"
                )
        if duration(self.ttl, where="ttl= of Cache()") <= 0:
            raise DeclarationError(
                f"Cache(ttl={self.ttl!r}) keeps nothing", next_step='give a time, such as ttl="1h", or write cache=None'
            )
        if not isinstance(self.compiled, bool):
            raise DeclarationError(f"Cache(compiled={self.compiled!r}) is neither", next_step="write True or False")

    @property
    def seconds(self) -> float:
        """How long an output is kept."""
        return duration(self.ttl) / 1_000_000
