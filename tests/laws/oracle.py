"""The law: what was known of a key at a time, in plain Python and as slowly as it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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


class Asks(NamedTuple):
    """One look-up of a view: a group, and per key a field of the request or (look-up, column) of an earlier one."""

    group: str
    keys: tuple[str | tuple[str, str], ...]


@dataclass(frozen=True)
class Stored:
    """All rows of a group and the age after which they are expired."""

    rows: Sequence[Row]
    ttl: int | None = None

    @cached_property
    def of(self) -> dict[tuple[Any, ...], list[Row]]:
        """The rows by key."""
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.key, []).append(row)
        return found


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


def ask(
    groups: Mapping[str, Stored], lookups: Mapping[str, Asks], request: Mapping[str, Any], t: int
) -> dict[str, Answer]:
    """Return what each look-up of a view says about a request at `t`; a later one may use what an earlier one says."""
    said: dict[str, Answer] = {}
    for name, asks in lookups.items():
        key = tuple(request[k] if isinstance(k, str) else said[k[0]].values.get(k[1]) for k in asks.keys)
        stored = groups[asks.group]
        said[name] = look_up(stored.of.get(key, []), key, t, ttl=stored.ttl)
    return said


def changes(
    groups: Mapping[str, Stored], lookups: Mapping[str, Asks], request: Mapping[str, Any], span: range
) -> list[tuple[int, dict[str, Answer]]]:
    """Return (t, what is said) for each microsecond of `span` at which a status or value is not what it was just before."""
    found = []
    before = _said(ask(groups, lookups, request, span.start - 1))
    for t in span:
        now = ask(groups, lookups, request, t)
        if _said(now) != before:
            found.append((t, now))
        before = _said(now)
    return found


def _said(answers: Mapping[str, Answer]) -> list[Any]:
    return [(answer.status, answer.values) for answer in answers.values()]
