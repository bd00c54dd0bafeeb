"""The point-in-time join says what the oracle says, whatever the rows, their order and their delays, in every form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws.engines import ENGINES, Engine, each_form
from tests.laws.oracle import Answer, Row, Stored, ask
from tests.laws.worlds import ASKS, CASES, STATUS, World, held, table, worlds
from windrow.features.asof import Form
from windrow.features.join import point_in_time
from windrow.features.merge import Needles, match

CALM = {"deadline": None, "database": None, "derandomize": True}
CALM |= {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
# New cases at every run, but in CI: there Hypothesis derandomizes by itself, so that a change is judged by itself.
SEARCHING = {name: value for name, value in CALM.items() if name != "derandomize"}


def answers(made: pa.Table) -> list[dict[str, Answer]]:
    """What the join said, in the oracle's words."""
    times = [f"{STATUS[name]}__event_time" for name in ASKS]
    for name in times:
        made = made.set_column(made.column_names.index(name), name, made.column(name).cast("int64"))
    return [{name: _answer(row, name, group) for name, (group, _) in ASKS.items()} for row in made.to_pylist()]


def _answer(row: dict[str, Any], name: str, group: str) -> Answer:
    status, values = row[f"{STATUS[name]}__status"], {v: row[f"{name}.{v}"] for v in held(group)}
    assert status == 0 or set(values.values()) == {None}
    return Answer(status, row[f"{STATUS[name]}__event_time"], values if status == 0 else {})


def join(world: World, con: Any = None, **options: Any) -> pa.Table:
    return point_in_time(con or ENGINES[0].open(), world.spine, world.lookups, world.tables, **options)


def expected(world: World) -> list[dict[str, Answer]]:
    return [ask(world.groups, ASKS, request, t) for request, t in world.asked]


@each_form
@settings(max_examples=1000 // CASES, **CALM)
@given(world=worlds())
def test_every_form_says_what_the_oracle_says_in_1000_cases(engine: Engine, form: Form, world: World) -> None:
    assert answers(join(world, engine.open(), form=form)) == expected(world)


@pytest.mark.slow
@each_form
@settings(max_examples=20_000 // CASES, **SEARCHING)
@given(world=worlds())
def test_every_form_says_what_the_oracle_says_in_20000_cases(engine: Engine, form: Form, world: World) -> None:
    assert answers(join(world, engine.open(), form=form)) == expected(world)


@settings(max_examples=1000 // CASES, **CALM)
@given(worlds(), st.integers(1, 7), st.sampled_from(["sorted", "as it comes"]))
def test_one_pass_over_batches_of_any_size_says_what_the_oracle_says(world: World, batch: int, order: str) -> None:
    rows = [r for r in world.groups["place"].rows if None not in r.key]
    if order == "sorted":
        rows = sorted(rows, key=lambda r: (r.key, r.event_time, r.known_at, r.seq))
    spine, stored = world.spine, table("place", rows)
    asked = spine.column("event_time").cast("int64").to_numpy()
    needles = Needles.of([spine.column("id"), spine.column("area")], asked)
    kept = stored.select(["n", "event_time"]).schema
    made = match(stored.to_batches(batch), needles, keys=["id", "area"], schema=kept, n=len(asked))
    assert made is not None
    found = pa.array(made.place, mask=made.place < 0)
    said = [made.rows.column(c).cast("int64").take(found).to_pylist() for c in ("event_time", "n")]
    plain = world._replace(groups=world.groups | {"place": Stored(rows)})
    wanted = [answer["place"] for answer in expected(plain)]
    assert list(zip(*said, strict=True)) == [(a.event_time, a.values.get("n")) for a in wanted]
    assert made.rows.num_rows <= 2 * len(asked)


def test_what_later_rows_surpass_is_not_kept() -> None:
    rows = [Row((1, "N"), at, at, at, {"n": at, "s": None}) for at in range(50)]
    stored = table("place", rows)
    needles = Needles.of([pa.chunked_array([[1, 1]]), pa.chunked_array([["N", "N"]])], np.array([49, 20]))
    made = match(stored.to_batches(1), needles, keys=["id", "area"], schema=stored.select(["n"]).schema, n=2)
    assert made is not None
    assert made.rows["n"].take(pa.array(made.place)).to_pylist() == [49, 20]
    assert made.rows.num_rows <= 4


@settings(max_examples=2, **CALM)
@given(worlds())
def test_as_of_answers_as_if_later_writes_were_not_there(world: World) -> None:
    half = max((len(stored.rows) for stored in world.groups.values()), default=0) // 2
    before = world.with_rows(lambda rows: [r for r in rows if r.seq <= half])
    assert join(world, as_of=half).equals(join(before))
