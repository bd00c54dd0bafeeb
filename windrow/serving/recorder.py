"""How the model's inputs go into the log: by name, in the forms that are quickest to write.

A struct is made and packed in a third of a dictionary's time, and bytes that are packed already in none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec


class Recorder:
    """Gives `LogRecord.vector` and `LogRecord.statuses` for the rows of one contract.

    Parameters
    ----------
    features
        Their names, in the contract's order.

    Examples
    --------
    >>> recorder = Recorder(["limit", "amount"])
    >>> msgspec.msgpack.decode(msgspec.msgpack.encode(recorder.vector([500.0, float("nan")], finite=False)))
    {'limit': 500.0, 'amount': None}
    >>> msgspec.msgpack.decode(recorder.statuses({"limit": 0, "amount": 1}))
    {'limit': 0, 'amount': 1}
    """

    def __init__(self, features: Sequence[str]) -> None:
        self._features, self._named = tuple(features), _named(features)
        # As for answers: most rows have one of a few patterns.
        self._statuses = lru_cache(maxsize=256)(self._packed)
        self._last: tuple[Mapping[str, int], Any] = {}, msgspec.Raw(b"\x80")

    def vector(self, values: Sequence[Any], *, finite: bool) -> Any:
        """Return a row by name: floats, text as the model saw it, None for a missing number."""
        return self._named(*values) if finite else self._named(*[None if v != v else v for v in values])

    def statuses(self, status: Mapping[str, int]) -> Any:
        """Return what is known of each value, packed."""
        # The transformer gives one and the same mapping to all rows that have everything.
        last, packed = self._last
        if status is not last:
            packed = self._statuses(tuple(status.values()))
            self._last = status, packed
        return packed

    def _packed(self, states: tuple[int, ...]) -> msgspec.Raw:
        return msgspec.Raw(msgspec.msgpack.encode(dict(zip(self._features, states, strict=True))))


def _named(names: Sequence[str]) -> Callable[..., Any]:
    # Fields are numbered, because a feature may have a name that no attribute can have.
    numbered = {f"f{i}": name for i, name in enumerate(names)}
    try:
        return msgspec.defstruct("Vector", list(numbered), rename=numbered, gc=False)
    except ValueError:  # a name that no JSON field is given, such as one with a quote
        return lambda *values: dict(zip(names, values, strict=True))
