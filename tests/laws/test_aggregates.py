"""History says of every window what the oracle says, whatever the order, the delays and the copies of events."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws.windows_oracle import Event, answer, first_versions, status
from tests.laws.windows_worlds import FIELDS, World, table, worlds
from windrow import Entity, Source, aggregate
from windrow.clock import SECOND
from windrow.errors import PastError
from windrow.features import windows as history_of
from windrow.features.agg import Agg
from windrow.features.asof import Spine
from windrow.features.tiles import Tiles
from windrow.features.traces import Event as Pushed
from windrow.features.windows import windows
from windrow.stores.engine import engine
from windrow.stores.states import states

CALM = {"deadline": None, "database": None, "derandomize": True}
CALM |= {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
# New cases at every run, but in CI: there Hypothesis derandomizes by itself, so that a change is judged by itself.
SEARCHING = {name: value for name, value in CALM.items() if name != "derandomize"}


SCALE = {"x": 1e9, "n": 2.0**60, "b": 1.0}  # the greatest values that the worlds have


def same(made: Agg, said: Any, expected: Any) -> bool:
    """Counts, extremes and single values exactly; sums within 1e-9; deviations also beside the greatest value."""
    if made.kind not in ("sum", "mean", "std") or said is None or expected is None:
        return bool(said == expected) and type(said) is type(expected)
    beside = 1e-15 * SCALE[made.column or ""] if made.kind == "std" else 1e-12
    return math.isclose(said, expected, rel_tol=1e-9, abs_tol=beside)


def history(world: World) -> list[dict[str, Any]]:
    spine = world.spine
    asked = Spine("", spine.select(["key"]), spine.column("event_time").cast(pa.int64()).to_numpy())
    names = list(world.spec.features)
    made = windows(
        engine(), world.spec, names, table=world.table.scan(engine()), spine=asked, fields=["key"], current=spine
    )
    columns = {name: made.values(name).to_pylist() for name in names} | {"status": made.statuses().to_pylist()}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(world.asked))]


def check(world: World, said: list[dict[str, Any]]) -> None:
    for (key, t, own), row in zip(world.asked, said, strict=True):
        assert row["status"] == status(world.events, key, t)
        for name, made in world.spec.features.items():
            expected = answer(world.events, made, key, t, own)
            assert same(made, row[name], expected), (name, made, row[name], expected)


def stream(world: World, dice: Random) -> tuple[list[Event], list[tuple[Any, ...]]]:
    """Push the events in the order of writing, some at a time, and ask in between; return what counted and was said."""
    tiles, states, pushed, said = Tiles(world.spec), dict[Any, bytes](), list[Event](), list[tuple[Any, ...]]()
    todo = list(world.events)
    while todo or len(said) < len(world.asked):
        batch, todo = todo[: (n := dice.choice([0, 1, 1, 3, 10]))], todo[n:]
        for key in dict.fromkeys(e.key for e in batch):
            new = [e for e in batch if e.key == key and not folded(e, pushed, tiles, states)]
            pushed += new
            states[key] = tiles.append(states.get(key), [as_pushed(e, world) for e in new])
        for key, t, own in world.asked if not todo else dice.sample(world.asked, min(2, len(world.asked))):
            known = list(pushed)
            if key in states and t < tiles.watermark(states[key]):
                with pytest.raises(PastError, match="before the events that were summed up"):
                    tiles.values(states[key], t, own)
                t = tiles.watermark(states[key]) + dice.choice([0, 1, SECOND, 40 * SECOND])
            said.append((known, key, t, own, *tiles.values(states.get(key), t, own)))
        if not world.asked:
            break
    return pushed, said


def folded(event: Event, pushed: list[Event], tiles: Tiles, states: dict[Any, bytes]) -> bool:
    """Whether a version of the event was folded into the state: from then on whoever pushes remembers its id."""
    first = [e for e in pushed if e.id is not None and e.id == event.id]
    return any(max(e.event_time + 1, e.eff) <= tiles.watermark(states[e.key]) for e in first)


def as_pushed(event: Event, world: World) -> Pushed:
    return Pushed(event.event_time, event.known_at, event.id, tuple(event.values[c] for c in world.spec.columns))


def check_stream(world: World, seed: int) -> None:
    _, said = stream(world, Random(seed))
    for known, key, t, own, values, state in said:
        assert state == status(known, key, t)
        for (name, made), value in zip(world.spec.features.items(), values, strict=True):
            expected = answer(known, made, key, t, own)
            assert same(made, value, expected), (name, made, value, expected)


@settings(max_examples=150, **CALM)
@given(worlds(truthful=True), st.integers(0, 2**32))
def test_a_state_says_what_the_oracle_says_while_events_are_pushed(world: World, seed: int) -> None:
    check_stream(world, seed)


@pytest.mark.slow
@settings(max_examples=10_000, **SEARCHING)
@given(worlds(truthful=True), st.integers(0, 2**32))
def test_a_state_says_what_the_oracle_says_in_10000_worlds(world: World, seed: int) -> None:
    check_stream(world, seed)


@settings(max_examples=80, **CALM)
@given(worlds())
def test_history_says_what_the_oracle_says(world: World) -> None:
    check(world, history(world))


@settings(max_examples=40, **CALM)
@given(worlds(), st.sampled_from([1, 5, 20]), st.sampled_from([1, 4]))
def test_history_says_the_same_in_parts(world: World, rows: int, holes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_of, "_CHUNK", rows)
        patch.setattr(history_of, "_HOLES", holes)
        check(world, history(world))


@pytest.mark.slow
@settings(max_examples=5000, **SEARCHING)
@given(worlds())
def test_history_says_what_the_oracle_says_in_5000_worlds(world: World) -> None:
    check(world, history(world))


@settings(max_examples=40, **CALM)
@given(worlds(truthful=True))
def test_states_made_from_history_say_what_states_say_that_a_stream_made(world: World) -> None:
    features = {name: made for name, made in world.spec.features.items() if not made.include_current}
    source = Source("world", id=world.spec.id, event_time="ts", columns={"key": "string", "id": "int64", **FIELDS})
    group = aggregate("world", source, by=Entity("key", key="string"), features=features)
    rows = ibis.memtable(table(world.events))
    loaded = {key[0]: row.values[0] for key, row in states(group, rows)}
    tiles, pushed = Tiles(group.spec), dict[Any, bytes]()
    for event in first_versions(world.events):
        values = tuple(event.values[c] for c in group.spec.columns)
        one = Pushed(event.event_time, event.known_at, event.id, values)
        pushed[event.key] = tiles.append(pushed.get(event.key), [one])
    assert loaded.keys() == pushed.keys()
    for key, state in pushed.items():
        assert tiles.newest(state) == tiles.newest(loaded[key])
        # A burst in another order may have been folded sooner or later; from the later watermark on both tell the same.
        begin = max(tiles.watermark(state), tiles.watermark(loaded[key]))
        for t in (begin, begin + 1, begin + 20 * SECOND, begin + 100 * SECOND):
            told, expected = tiles.values(loaded[key], t), tiles.values(state, t)
            assert told[1] == expected[1]
            for made, a, b in zip(features.values(), told[0], expected[0], strict=True):
                assert same(made, a, b), (made, t, a, b)
