"""The law: what was known of a key at a time, in plain Python and as slowly as it likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

PRESENT, NOT_FOUND, EXPIRED = 0, 2, 3


class Row(NamedTuple):
    """One stored row; `key` is a tuple, `values` what it says, times are whole microseconds."""

    key: tuple[Any, ...]
    event_time: int
    known_at: int
    seq: int
    values: dict[str, Any]


class Answer(NamedTuple):
    """What a look-up says; `event_time` is None where nothing was known."""

    status: int
    event_time: int | None
    values: dict[str, Any]


def look_up(rows: Sequence[Row], key: tuple[Any, ...], t: int, *, ttl: int | None = None) -> Answer:
    """Return what `rows` say about `key` at `t`."""
    if None in key:
        return Answer(NOT_FOUND, None, {})
    known = [r for r in rows if r.key == key and max(r.event_time, r.known_at) <= t]
    if not known:
        return Answer(NOT_FOUND, None, {})
    newest = max(known, key=lambda r: (r.event_time, r.known_at, r.seq))
    if ttl is not None and t - newest.event_time > ttl:
        return Answer(EXPIRED, newest.event_time, {})
    return Answer(PRESENT, newest.event_time, newest.values)
