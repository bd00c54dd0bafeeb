"""The outputs of one release that are kept, between the vectors and the model.

The key is the vector itself, after every feature was read and computed for this request: whoever finds an output here
would be given the same one by the model. So nothing has to be invalidated, and nothing can be forgotten to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from windrow.models.cache import Cache
from windrow.models.release import Release
from windrow.schema import PredictionKey, fingerprint
from windrow.serving.answers import Output
from windrow.serving.kept import Kept
from windrow.serving.vectors import Vectors

ASKED = "prediction"
_OVERHEAD = 200  # bytes of an entry besides its key: its place, its time and the objects around them
_NUMBER = 32


class Shared(Protocol):
    """Keeps outputs for many workers; never raises: what it cannot give is not there."""

    def get(self, keys: Sequence[bytes]) -> list[Output | None]:
        """Return what is kept under each packed key."""
        ...

    def put(self, keys: Sequence[bytes], outputs: Sequence[Output], *, seconds: float) -> None:
        """Keep outputs for some time."""
        ...


class Found(NamedTuple):
    """The packed key of each row, and the output that was kept under it, or None."""

    keys: list[bytes]
    outputs: list[Output | None]


class OutputCache:
    """Outputs of one release.

    Parameters
    ----------
    release
        Whose.
    cache
        How many are kept, and how long.
    shared
        Keeps them instead of this process.

    Attributes
    ----------
    hits, misses
        Rows that were found, and not.
    """

    def __init__(self, release: Release, cache: Cache, *, shared: Shared | None = None) -> None:
        self._id, self._content = release.id, content_of(release)
        self._shared, self._seconds = shared, cache.seconds
        self._kept: Kept[Output] = Kept(cache.entries, most_bytes=cache.megabytes * 2**20)
        self.hits = self.misses = 0

    @property
    def evicted(self) -> int:
        """How many outputs went because there was no room."""
        return self._kept.evicted

    def find(self, vectors: Vectors) -> Found:
        """Return what is kept for each row."""
        keys = [PredictionKey(self._id, self._content, ASKED, values).packed for values in vectors.lists]
        outputs = [self._kept.get(key) for key in keys] if self._shared is None else self._shared.get(keys)
        missing = outputs.count(None)
        self.misses += missing
        self.hits += len(outputs) - missing
        return Found(keys, outputs)

    def keep(self, keys: Sequence[bytes], outputs: Sequence[Output]) -> None:
        """Keep what the model has said."""
        if self._shared is not None:
            self._shared.put(keys, outputs, seconds=self._seconds)
            return
        for key, output in zip(keys, outputs, strict=True):
            numbers = len(output) if isinstance(output, list) else 1
            self._kept.put(key, output, seconds=self._seconds, size=len(key) + _OVERHEAD + numbers * _NUMBER)


def content_of(release: Release) -> str:
    """Return what changes with anything that a release is: its files, its contract, its policies."""
    return fingerprint(msgspec.to_builtins(release))
