"""A stream answers each row once, as soon as it is due, and never takes an answer back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge

from tests.models.worlds import (
    DAY,
    HOUR,
    World,
    fraud,
    fraud_world,
    load,
    load_world,
    meter,
    meter_now,
    readings,
)
from windrow import Every, FeatureView, Label, PredictionService, Stream, TimeSplit
from windrow.errors import DeclarationError
from windrow.models.bundle import Bundle
from windrow.models.dataset import build_dataset, load_split
from windrow.models.scoring import score
from windrow.models.stream import due_rows, score_stream
from windrow.models.training import train
from windrow.stores.engine import engine
from windrow.stores.materialize import materialize_group

SERVICE = load(stream=Stream(lookback="6h"), model="tests.models.worlds:ridge")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = load_world(tmp_path)
    made.groups(SERVICE)
    return made


@pytest.fixture
def bundle(world: World) -> Bundle:
    return released(world, SERVICE)


def released(world: World, service: PredictionService) -> Bundle:
    made = build_dataset(service, world.lake, world.metadata, now=48 * HOUR, home=world.home)
    learn = load_split(made, service.view.contract, "train")
    fitted = Ridge().fit(learn.X, learn.y)
    release = train(service, made, registry=world.registry, metadata=world.metadata, estimator=fitted)
    return world.registry.load(release.id)


def step(world: World, bundle: Bundle, *, now: int) -> list[tuple[str, int]]:
    """The rows that one run appended: key, and hour of the tick."""
    made = score_stream(SERVICE, bundle, world.lake, engine(), now=now)
    hours = [t // HOUR for t in made["event_time"].cast("int64").to_pylist()]
    return list(zip(made["meter"].to_pylist(), hours, strict=True))


def all_of(world: World) -> list[dict[str, Any]]:
    rows = world.lake.table("stream/load").scan(engine())
    return rows.order_by("event_time", "meter").to_pyarrow().to_pylist()


def test_the_first_run_looks_back_and_the_next_one_goes_on_where_it_ended(world: World, bundle: Bundle) -> None:
    assert step(world, bundle, now=30 * HOUR) == [(m, h) for h in range(25, 31) for m in ("north", "south")]
    assert step(world, bundle, now=32 * HOUR) == [(m, h) for h in (31, 32) for m in ("north", "south")]


def test_a_second_run_appends_nothing_and_leaves_the_table_as_it_is(world: World, bundle: Bundle) -> None:
    step(world, bundle, now=30 * HOUR)
    before = world.lake.table("stream/load").stats()
    assert step(world, bundle, now=30 * HOUR) == []
    assert world.lake.table("stream/load").stats() == before


def test_however_the_time_is_cut_into_runs_the_answers_are_the_same(world: World, bundle: Bundle) -> None:
    step(world, bundle, now=30 * HOUR)
    for minutes in (7, 61, 60, 130, 131, 500):
        step(world, bundle, now=30 * HOUR + minutes * HOUR // 60)
    rows = all_of(world)
    assert [(r["meter"], r["event_time"].hour) for r in rows] == [
        (m, h % 24) for h in range(25, 39) for m in ("north", "south")
    ]
    batch = score(SERVICE, bundle, world.lake, engine(), start=25 * HOUR, end=39 * HOUR, now=48 * HOUR)
    assert [r["prediction"] for r in rows] == batch["prediction"].to_pylist()


def test_a_row_that_was_not_there_when_its_time_came_is_answered_when_it_is(world: World, bundle: Bundle) -> None:
    step(world, bundle, now=30 * HOUR)
    world.add(readings, meter=["west", "west"], mw=[90.0, 91.0], ts=[28 * HOUR, 20 * HOUR])
    materialize_group(meter_now, world.lake, world.metadata)
    assert step(world, bundle, now=30 * HOUR) == [("west", 28)]  # 20 h is further back than it looks


def test_a_correction_makes_no_second_answer(world: World, bundle: Bundle) -> None:
    step(world, bundle, now=30 * HOUR)
    said = all_of(world)
    at = pa.array([30 * HOUR, 30 * HOUR + 1]).cast(pa.timestamp("us", "UTC"))  # its time, and when it became known
    corrected = pa.table({"meter": ["north"], "mw": [500.0], "event_time": at[:1], "known_at": at[1:]})
    world.lake.table(meter_now.key).append(corrected)
    assert step(world, bundle, now=31 * HOUR - 1) == []
    assert all_of(world) == said


def test_a_row_is_due_at_the_first_tick_at_which_it_can_be_seen(world: World) -> None:
    view = FeatureView("load", spine=Every("1h", meter, offset="10m"), features=[meter_now])
    label = Label.value(readings, "mw", ahead="2h")
    service = PredictionService(
        "load", view, label, model="tests.models.worlds:ridge", split=TimeSplit(test="6h"), stream=Stream()
    )
    made = due_rows(service, world.lake, engine(), start=30 * HOUR, now=32 * HOUR)
    assert [t / HOUR for t in made["event_time"].cast("int64").unique().to_pylist()] == pytest.approx([31 + 1 / 6])


def test_rows_of_a_source_are_due_at_their_own_time(tmp_path: Path) -> None:
    world = fraud_world(tmp_path, days=5)
    service = fraud(stream=Stream(lookback="1d"), model="tests.models.worlds:linear")
    made = due_rows(service, world.lake, engine(), start=3 * DAY, now=3 * DAY + 2 * HOUR)
    assert made["payment_id"].to_pylist() == [19, 20]


def test_a_stream_that_looks_for_nothing_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Stream\(lookback='0s'\) looks for nothing"):
        Stream(lookback="0s")
