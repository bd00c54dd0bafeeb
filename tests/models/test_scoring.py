"""Batch scoring answers every spine row of a stretch of time, with what was known then."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from tests.models.worlds import HOUR, World, load, load_world, readings
from windrow import Notebook
from windrow.models.dataset import build_dataset, load_split
from windrow.models.scoring import score, score_latest
from windrow.models.training import train
from windrow.stores.engine import engine

SERVICE = load(model=Notebook("train_load.ipynb"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    made = load_world(tmp_path_factory.mktemp("load"))
    made.add(readings, meter=["west"], mw=[None], ts=[40 * HOUR])  # a meter without a value
    made.groups(SERVICE)
    return made


@pytest.fixture(scope="module")
def bundle(world):
    made = build_dataset(SERVICE, world.lake, world.metadata, now=48 * HOUR, home=world.home)
    learn = load_split(made, SERVICE.view.contract, "train")
    release = train(
        SERVICE, made, registry=world.registry, metadata=world.metadata, estimator=Ridge().fit(learn.X, learn.y)
    )
    return world.registry.load(release.id)


def test_every_tick_of_a_stretch_is_answered_by_the_release(world, bundle):
    made = score(SERVICE, bundle, world.lake, engine(), start=20 * HOUR, end=22 * HOUR, now=48 * HOUR)
    assert made["meter"].to_pylist() == ["north", "south"] * 2
    assert made.column_names == ["meter", "event_time", "known_at", "prediction", "release", "status"]
    assert set(made["release"].to_pylist()) == {bundle.id}
    expected = bundle.predict({"mw": np.array([100.0 + (20 * 7 + 5) % 24], dtype="float32")})
    assert made["prediction"][0].as_py() == expected[0]


def test_nothing_is_answered_for_times_after_now(world, bundle):
    made = score(SERVICE, bundle, world.lake, engine(), start=20 * HOUR, end=30 * HOUR, now=21 * HOUR)
    assert made.num_rows == 4
    assert set(made["known_at"].cast("int64").to_pylist()) == {21 * HOUR}


def test_a_row_that_the_model_does_not_take_has_no_prediction_and_says_why(world, bundle):
    made = score(SERVICE, bundle, world.lake, engine(), start=41 * HOUR, end=42 * HOUR, now=48 * HOUR)
    assert made["meter"].to_pylist() == ["north", "south", "west"]
    assert [p is None for p in made["prediction"].to_pylist()] == [False, False, True]
    assert made["status"].to_pylist() == [0, 0, 1]


def test_the_newest_row_of_each_key_is_answered_once(world, bundle):
    made = score_latest(SERVICE, bundle, world.lake, engine(), now=48 * HOUR)
    assert dict(zip(made["meter"].to_pylist(), made["event_time"].cast("int64").to_pylist(), strict=True)) == {
        "north": 47 * HOUR, "south": 47 * HOUR, "west": 40 * HOUR,
    }  # fmt: skip
