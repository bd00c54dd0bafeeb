"""What two releases answer differently is told by the answers themselves: of three classes or more, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.football import CLASSES, football, football_world
from tests.models.worlds import DAY
from windrow.errors import ModelError
from windrow.models.dataset import build_dataset
from windrow.models.prediction_diff import ClassDiff, PredictionDiff, differences, prediction_diff
from windrow.models.release import Release
from windrow.models.training import train
from windrow.stores.engine import engine

IDS = ("football-1", "football-2")


def answers(made: Sequence[Sequence[float] | None], names: Sequence[str] = CLASSES) -> pa.Table:
    """Answers as batch scoring writes them; None is a row that is not answered."""
    rows: dict[str, Any] = {
        "match_id": list(range(len(made))),
        "event_time": pa.array([0] * len(made), pa.timestamp("us", "UTC")),
        "prediction": pa.array([None if row is None else float(np.argmax(row)) for row in made], pa.float64()),
    }
    columns = {
        f"probability_{n}": pa.array([None if row is None else row[at] for row in made], pa.float64())
        for at, n in enumerate(names)
    }
    return pa.table({**rows, **columns})


def compared(before: pa.Table, after: pa.Table, names: Sequence[str] = CLASSES) -> PredictionDiff:
    return differences("football", IDS, before, after, task="multiclass", names=names)


def test_probabilities_that_moved_are_a_difference_though_the_likeliest_class_stayed():
    found = compared(answers([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]), answers([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]]))
    assert (found.rows, found.changed, found.classes) == (2, 1, 0)
    assert (found.mean, found.most) == pytest.approx((0.1, 0.2))
    assert found.by_class["home"] == ClassDiff(pytest.approx(0.1), pytest.approx(0.2))
    assert found.by_class["away"] == ClassDiff(pytest.approx(0.05), pytest.approx(0.1))


def test_a_likeliest_class_that_changed_is_counted_once_and_named_however_far_apart_the_places_are():
    found = compared(answers([[0.5, 0.1, 0.4]]), answers([[0.4, 0.1, 0.5]]))
    assert (found.changed, found.classes, round(found.most, 9)) == (1, 1, 0.1)
    (row,) = found.largest
    assert (row["match_id"], row["before"], row["after"], row["class"]) == (0, "home", "away", "home")
    assert row["difference"] == pytest.approx(-0.1)


def test_classes_in_another_order_and_a_class_that_is_new_are_compared_by_name():
    turned = answers([[0.2, 0.3, 0.5]], ["away", "draw", "home"])
    assert compared(answers([[0.5, 0.3, 0.2]]), turned).changed == 0
    wider = answers([[0.5, 0.3, 0.1, 0.1]], [*CLASSES, "off"])
    found = compared(answers([[0.5, 0.3, 0.2]]), wider, [*CLASSES, *CLASSES, "off"])
    assert (found.classes, round(found.by_class["off"].most, 9), found.by_class["home"].most) == (0, 0.1, 0.0)


def test_a_row_that_only_one_release_answers_is_counted_and_moves_no_figure():
    found = compared(answers([None, [0.5, 0.3, 0.2], None]), answers([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], None]))
    assert (found.unanswered, found.changed, found.classes, found.most) == (1, 1, 0, 0.0)


@given(st.lists(st.lists(st.integers(1, 9), min_size=6, max_size=6), min_size=1, max_size=8))
def test_no_class_is_further_apart_than_the_rows_are_and_nothing_differs_from_itself(made):
    shares = np.array(made, float)
    before, after = (answers((p / p.sum(axis=1, keepdims=True)).tolist()) for p in (shares[:, :3], shares[:, 3:]))
    found = compared(before, after)
    assert max(of.most for of in found.by_class.values()) == found.most >= found.mean
    assert all(of.mean <= found.mean + 1e-12 for of in found.by_class.values())
    same = compared(before, before)
    assert (same.changed, same.classes, same.most, same.largest) == (0, 0, 0.0, [])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A world with two releases of three classes, the second one of another forest."""
    from sklearn.ensemble import RandomForestClassifier

    world = football_world(tmp_path_factory.mktemp("football"))
    dataset = build_dataset(football(), world.lake, world.metadata, now=299 * DAY, home=world.home)
    forests = [lambda n=n: RandomForestClassifier(10, max_depth=n, random_state=0) for n in (4, 2)]
    made = [train(football(model=f), dataset, registry=world.registry, metadata=world.metadata) for f in forests]
    return world, [world.registry.load(release.id) for release in made]


def test_two_releases_of_three_classes_differ_by_what_their_probabilities_do(two):
    world, (before, after) = two
    found = prediction_diff(football(), before, after, world.lake, engine(), now=299 * DAY, start=0)
    assert (found.rows, found.unanswered) == (300, 0)
    assert 0 < (found.classes or 0) < found.changed <= 300
    assert set(found.by_class) == set(CLASSES)
    assert 0 < found.mean < found.most < 1
    assert {row["class"] for row in found.largest} <= set(CLASSES)


def test_releases_of_different_kinds_are_not_compared(two):
    from msgspec.structs import replace

    world, (before, after) = two
    other: Release = replace(after.release, task="regression", classes=())
    numbers = type(after)(other, after.model, after.golden)
    with pytest.raises(
        ModelError, match=r"answers with one probability for each class, and 'football-2-.*' with a number: no row"
    ):
        prediction_diff(football(), before, numbers, world.lake, engine(), now=299 * DAY, start=0)
