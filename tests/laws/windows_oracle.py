"""The law of aggregates: what a window holds at a time, in plain Python and as slowly as it likes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from windrow.features.agg import Agg

PRESENT, NOT_FOUND = 0, 2


class Event(NamedTuple):
    """One event; times are whole microseconds, `seq` the order of writing."""

    key: Any
    event_time: int
    known_at: int
    id: int | None
    values: dict[str, Any]
    seq: int = 0

    @property
    def eff(self) -> int:
        return max(self.event_time, self.known_at)


def first_versions(events: Iterable[Event]) -> list[Event]:
    """Of the events with one id, the one that was known first."""
    first: dict[Any, Event] = {}
    for number, event in enumerate(sorted(events, key=lambda e: (e.eff, e.event_time, e.seq))):
        first.setdefault(("no id", number) if event.id is None else event.id, event)
    return list(first.values())


def status(events: Iterable[Event], key: Any, t: int) -> int:
    known = [e for e in first_versions(events) if e.key == key and e.event_time < t and e.eff <= t]
    return PRESENT if known else NOT_FOUND


def answer(events: Iterable[Event], made: Agg, key: Any, t: int, current: Mapping[str, Any] | None = None) -> Any:
    """Return the value of the function `made` for `key` at `t`, the request's own event being `current`."""
    length = made.window
    head, tail = t - made.delay, t - made.delay - length
    if made.hop is not None:
        tail = tail // made.hop * made.hop
        head = head // made.hop * made.hop if made.delay else head
    inside = [e for e in first_versions(events) if e.key == key and tail <= e.event_time < head and e.eff <= t]
    rows = sorted(inside, key=lambda e: _moment(e, made))
    found = [e.values for e in rows]
    if made.include_current and current is not None:
        found.append(dict(current))
    counted = [v for v in found if made.where is None or v[made.where]]
    if made.kind == "count":
        return len(counted)
    return folded(made.kind, [v[made.column] for v in counted if v[made.column] is not None])


def _moment(event: Event, made: Agg) -> Any:
    """By time, known_at and id, then by value; of one moment what ends a streak comes last."""
    value = event.values[made.column] if made.column else None
    if made.kind == "streak":
        return (event.event_time, not value)
    return (event.event_time, event.known_at, -1 if event.id is None else event.id, value is not None, value)


def folded(kind: str, values: Sequence[Any]) -> Any:
    """Return one number of the values, oldest first."""
    if kind == "distinct":
        return len(set(values))
    if kind == "streak":
        trues = next((i for i, v in enumerate(reversed(values)) if not v), len(values))
        return min(trues, 10_000)
    if kind == "sum":
        return math.fsum(values)
    if len(values) < (2 if kind == "std" else 1):
        return None
    made = {"mean": lambda: math.fsum(values) / len(values), "min": lambda: min(values), "max": lambda: max(values)}
    made |= {
        "last": lambda: values[-1],
        "first": lambda: values[0],
        "std": lambda: statistics.stdev(map(float, values)),
    }
    return made[kind]()
