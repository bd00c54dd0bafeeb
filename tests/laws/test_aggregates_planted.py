"""The law has teeth: wrong ways to compute windows that are in use everywhere are caught by it.

Each way answers the same questions as history does; the oracle must find a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.laws.windows_oracle import Event, answer
from windrow.clock import SECOND
from windrow.features import agg
from windrow.features.agg import Agg
from windrow.stores.engine import engine

START = 1_700_000_000 * SECOND
MINUTE = 60 * SECOND
TOTAL = agg.sum("x", "1h", hop=None)

# Two cards; one event of "A" is told 30 minutes late, two share a moment, one is told twice.
EVENTS = [
    Event("A", START, START, 1, {"x": 1.0}),
    Event("A", START + 10 * MINUTE, START + 40 * MINUTE, 2, {"x": 10.0}),
    Event("B", START + 15 * MINUTE, START + 15 * MINUTE, 3, {"x": 100.0}),
    Event("A", START + 20 * MINUTE, START + 20 * MINUTE, 4, {"x": 1000.0}),
    Event("A", START + 20 * MINUTE, START + 20 * MINUTE, 5, {"x": 10000.0}),
    Event("A", START + 20 * MINUTE, START + 21 * MINUTE, 5, {"x": 10000.0}),
]
ASKED = [(e.key, e.event_time) for e in EVENTS] + [
    ("A", START + 30 * MINUTE),
    ("A", START + 65 * MINUTE),
    ("A", START + 80 * MINUTE),
]

Way = Callable[[str, int], float]


def by_engine(frame: str, *, partition: str = "PARTITION BY key", events: list[Event] = EVENTS) -> Way:
    """A window of the engine over events and the row that is asked about, which is none of them."""

    def ask(key: str, t: int) -> float:
        rows = [f"('{e.key}', {e.event_time}::BIGINT, {e.values['x']}::DOUBLE, false)" for e in events]
        rows.append(f"('{key}', {t}::BIGINT, 0::DOUBLE, true)")
        query = (
            f"SELECT total FROM (SELECT asked, sum(x) OVER ({partition} ORDER BY t RANGE BETWEEN {frame}) AS total "
            f"FROM (VALUES {', '.join(rows)}) v(key, t, x, asked)) WHERE asked"
        )
        (found,) = engine().raw_sql(query).fetchone()
        return found or 0.0

    return ask


def right(key: str, t: int) -> float:
    known = [e for e in EVENTS[:-1] if e.eff <= t]
    return by_engine(f"{60 * MINUTE} PRECEDING AND 1 PRECEDING", events=known)(key, t)


WRONG: dict[str, Way] = {
    "a plain RANGE window, which sees late events too early": by_engine(
        f"{60 * MINUTE} PRECEDING AND 1 PRECEDING", events=EVENTS[:-1]
    ),
    "a window that holds the current moment": by_engine(f"{60 * MINUTE} PRECEDING AND CURRENT ROW", events=EVENTS[:-1]),
    "a window over all cards": by_engine(f"{60 * MINUTE} PRECEDING AND 1 PRECEDING", partition="", events=EVENTS[:-1]),
    "a window that counts copies": lambda key, t: by_engine(
        f"{60 * MINUTE} PRECEDING AND 1 PRECEDING", events=[e for e in EVENTS if e.eff <= t]
    )(key, t),
    "a window by when events were known": lambda key, t: sum(
        e.values["x"] for e in EVENTS[:-1] if e.key == key and t - 60 * MINUTE <= e.eff < t
    ),
}


def differences(way: Way, made: Agg = TOTAL) -> list[Any]:
    return [(key, t) for key, t in ASKED if way(key, t) != answer(EVENTS, made, key, t)]


def test_the_right_way_passes() -> None:
    assert differences(right) == []


@pytest.mark.parametrize("name", WRONG)
def test_the_oracle_catches(name: str) -> None:
    assert differences(WRONG[name])
