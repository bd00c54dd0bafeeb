"""The state of one entity: bounded, exact near now, and clear about what it no longer tells."""

from __future__ import annotations

import subprocess
import sys
from random import Random
from typing import Any

import pytest

from windrow.clock import SECOND, duration
from windrow.errors import DataError, PastError
from windrow.features import agg
from windrow.features.agg import Agg, Aggregate
from windrow.features.tiles import RECENT, SLACK, Tiles
from windrow.features.traces import Event

START = 1_700_000_000 * SECOND
MINUTE = 60 * SECOND


def tiles(**features: Agg) -> Tiles:
    fields = {"x": "float64", "s": "string", "b": "bool"}
    read = dict.fromkeys(c for made in features.values() for c in made.columns)
    return Tiles(Aggregate("sources/p", ("k",), "id", {c: fields[c] for c in read}, features))


def event(at: int, number: int, *values: Any, known: int = 0) -> Event:
    return Event(at, known or at, number, values)


def test_a_state_does_not_grow_with_the_number_of_events() -> None:
    made = tiles(
        n=agg.count("1h"),
        s=agg.sum("x", "1d"),
        top=agg.max("x", "14d"),
        last=agg.last("x", "90d"),
        low=agg.min("x", "90d"),
    )
    dice, sizes, state = Random(0), list[int](), made.empty()
    for number in range(30):
        batch = [
            event(START + number * duration("7d") + i * 5 * MINUTE, number * 2016 + i, dice.random())
            for i in range(2016)
        ]
        state = made.append(state, batch)
        sizes.append(len(state))
    assert sizes[20:] == pytest.approx(sizes[15:25], rel=0.02)
    assert max(sizes) < 30_000


def test_events_of_the_moment_asked_about_are_not_counted_and_those_before_it_are() -> None:
    made = tiles(n=agg.count("1h"))
    state = made.append(None, [event(START, i) for i in range(3)] + [event(START - 1, 9)])
    assert [made.values(state, START + after) for after in (-1, 0, 1)] == [((0,), 2), ((1,), 0), ((4,), 0)]


def test_an_event_counts_from_when_it_is_known_whenever_it_was_pushed() -> None:
    made = tiles(n=agg.count("1h"))
    state = made.append(None, [event(START, 1, known=START + MINUTE)])
    assert [made.values(state, START + m * MINUTE)[0] for m in (0, 1, 30)] == [(0,), (1,), (1,)]


def test_a_state_is_read_whatever_the_order_in_which_its_functions_and_columns_are_named() -> None:
    """A release that comes from its file names them in the order of the alphabet."""
    functions = {
        "z": agg.sum("x", "1h"),
        "most": agg.distinct("s", "1d"),
        "n": agg.count("7d", where="b"),
        "a": agg.last("x", "1d"),
    }
    columns = {"x": "float64", "s": "string", "b": "bool"}
    declared = Tiles(Aggregate("sources/p", ("k",), "id", columns, functions))
    released = Tiles(
        Aggregate("sources/p", ("k",), "id", dict(sorted(columns.items())), dict(sorted(functions.items())))
    )
    events = [event(START + i * MINUTE, i, float(i), "ab"[i % 2], i % 3 == 0) for i in range(100)]
    state = declared.append(None, events)
    moment = START + 100 * MINUTE
    by_name = dict(zip(functions, declared.values(state, moment)[0], strict=True))
    assert by_name == {"z": sum(range(40, 100)), "most": 2, "n": 34, "a": 99.0}
    assert dict(zip(sorted(functions), released.values(state, moment)[0], strict=True)) == by_name


def test_a_copy_of_an_event_counts_once() -> None:
    made = tiles(s=agg.sum("x", "1h"))
    state = made.append(None, [event(START, 1, 5.0), event(START, 1, 7.0)])
    state = made.append(state, [event(START, 1, 9.0, known=START + 1)])
    assert made.values(state, START + MINUTE) == ((5.0,), 0)


def test_what_was_asked_a_moment_ago_is_still_answered() -> None:
    made = tiles(n=agg.count("1h"))
    state = made.append(None, [event(START + i * SECOND, i) for i in range(RECENT)])
    assert made.watermark(state) == START + (RECENT - 1) * SECOND - SLACK
    assert [made.values(state, START + i * SECOND)[0] for i in (1, 5, 31)] == [(1,), (5,), (31,)]


def test_a_time_before_what_was_summed_up_is_refused_and_says_what_to_do() -> None:
    made = tiles(n=agg.count("1h"))
    state = made.append(None, [event(START, 1), event(START + 10 * MINUTE, 2)])
    with pytest.raises(PastError, match="before the events that were summed up. Next: ask about now"):
        made.values(state, START + 9 * MINUTE - 1)
    assert made.values(state, START + 9 * MINUTE)[0] == (1,)


def test_a_burst_is_folded_early_so_that_reads_stay_short() -> None:
    made = tiles(n=agg.count("1h"))
    state = made.append(None, [event(START + i, i) for i in range(1000)])
    assert made.watermark(state) == START + 1000 - RECENT
    assert made.values(state, START + 1000)[0] == (1000,)


def test_an_exact_window_takes_10_000_events_and_refuses_one_more() -> None:
    made = tiles(s=agg.sum("x", "1d", hop=None))
    state = made.append(None, [event(START + i, i, 1.0) for i in range(10_000 + RECENT)])
    assert made.values(state, START + 20_000)[0] == (10_032.0,)
    with pytest.raises(DataError, match="more than 10,000 events in the window of a feature with hop=None"):
        made.append(state, [event(START + 11_000, 10_032, 1.0)])


def test_a_streak_is_told_up_to_10_000() -> None:
    made = tiles(run=agg.streak("b", "90d"))
    state = made.append(None, [event(START + i * SECOND, i, True) for i in range(12_000)])
    assert made.values(state, START + 13_000 * SECOND)[0] == (10_000,)
    state = made.append(
        state, [event(START + 12_000 * SECOND, 12_000, False), event(START + 12_001 * SECOND, 12_001, True)]
    )
    assert made.values(state, START + 13_000 * SECOND)[0] == (1,)


def test_of_the_events_of_one_moment_a_false_one_ends_a_streak() -> None:
    made = tiles(run=agg.streak("b", "1d"))
    state = made.append(None, [event(START, 2, True), event(START, 1, False), event(START - 1, 3, True)])
    assert made.values(state, START + 1)[0] == (0,)


def test_texts_are_kept_and_told_apart() -> None:
    made = tiles(last=agg.last("s", "1d"), first=agg.first("s", "1d"), n=agg.distinct("s", "1d"))
    words = ["ä", "", "b", "ä", None]
    state = made.append(None, [event(START + i * 2 * MINUTE, i, word) for i, word in enumerate(words)])
    assert made.values(state, START + 60 * MINUTE)[0] == ("ä", "ä", 3)


def test_the_requests_own_event_counts_only_where_it_is_asked_for() -> None:
    made = tiles(
        n=agg.count("1h"), own=agg.count("1h", include_current=True), top=agg.max("x", "1h", include_current=True)
    )
    state = made.append(None, [event(START, 1, 5.0)])
    assert made.values(state, START + MINUTE, {"x": 9.0})[0] == (1, 2, 9.0)
    assert made.values(None, START, {"x": None})[0] == (0, 1, None)


def test_a_state_of_another_definition_is_refused() -> None:
    state = tiles(n=agg.count("1h")).append(None, [event(START, 1)])
    with pytest.raises(DataError, match="written by another definition of its group"):
        tiles(n=agg.count("1h"), d=agg.distinct("x", "1d")).values(state, START)


def test_the_one_who_reads_states_needs_numpy_and_msgspec_only() -> None:
    code = (
        "import sys, windrow.features.tiles; print(sorted({'ibis', 'pyarrow', 'duckdb', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
