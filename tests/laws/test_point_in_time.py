"""The point-in-time join says what the oracle says, whatever the rows, their order and their delays."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws.oracle import Answer, look_up
from tests.laws.worlds import CASES, NAMES, World, table, worlds
from windrow.features.join import point_in_time
from windrow.features.merge import Needles, match
from windrow.stores.engine import engine

CALM = {"deadline": None, "database": None, "derandomize": True}
CALM |= {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


def answers(made: pa.Table) -> list[Answer]:
    """What the join said, in the oracle's words."""
    said = []
    for row in made.to_pylist():
        status, moment = row["world_v1__status"], row["world_v1__event_time"]
        values = {n: row[n] for n in NAMES} if status == 0 else {}
        assert status == 0 or all(row[n] is None for n in NAMES)
        said.append(Answer(status, None if moment is None else moment.microsecond, values))
    return said


def join(world: World, **options: Any) -> pa.Table:
    return point_in_time(engine(), world.spine, [world.lookup], {"world_v1": world.table}, **options)


def check(world: World) -> None:
    expected = [look_up(world.rows, key, t, ttl=world.ttl) for key, t in world.asked]
    shown = [answer._replace(event_time=_wrapped(answer.event_time)) for answer in expected]
    assert answers(join(world)) == shown


def _wrapped(micros: int | None) -> int | None:
    return None if micros is None else micros % 1_000_000


@settings(max_examples=1000 // CASES, **CALM)
@given(worlds())
def test_the_join_says_what_the_oracle_says_in_1000_cases(world: World) -> None:
    check(world)


@pytest.mark.slow
@settings(max_examples=20_000 // CASES, **CALM | {"derandomize": False})
@given(worlds())
def test_the_join_says_what_the_oracle_says_in_20000_cases(world: World) -> None:
    check(world)


@settings(max_examples=1000 // CASES, **CALM)
@given(worlds(), st.integers(1, 7), st.sampled_from(["sorted", "as it comes"]))
def test_one_pass_over_the_rows_says_what_the_oracle_says_in_1000_cases(world: World, batch: int, order: str) -> None:
    rows = (
        sorted(world.rows, key=lambda r: (r.key, r.event_time, r.known_at, r.seq)) if order == "sorted" else world.rows
    )
    spine, stored = world.spine, table(rows)
    times = spine.column("event_time").cast("int64").to_numpy()
    needles = Needles.of([spine.column("id"), spine.column("area")], times)
    made = match(
        stored.to_batches(batch),
        needles,
        keys=["id", "area"],
        schema=stored.select(["n", "event_time"]).schema,
        n=len(times),
    )
    assert made is not None
    found = pa.array(made.place, mask=made.place < 0)
    said = list(
        zip(*(made.rows.column(c).cast("int64").take(found).to_pylist() for c in ("event_time", "n")), strict=True)
    )
    expected = [look_up(world.rows, key, t) for key, t in world.asked]
    assert said == [(a.event_time, a.values.get("n")) for a in expected]


@settings(max_examples=15, **CALM)
@given(worlds())
def test_as_of_answers_as_if_later_writes_were_not_there(world: World) -> None:
    half = len(world.rows) // 2
    expected = join(world._replace(rows=[r for r in world.rows if r.seq <= half]))
    assert join(world, as_of=half).equals(expected)
