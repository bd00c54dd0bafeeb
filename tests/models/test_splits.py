"""Every row is in one split, the same one in any order; no group is in two, and no class is left out of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.worlds import DAY, World, fraud, fraud_world
from windrow import GroupSplit, RandomSplit, StratifiedSplit, TimeSplit
from windrow.errors import DataError, DeclarationError, UnknownNameError
from windrow.models.dataset import build_dataset, load_split
from windrow.models.recreate import recreate
from windrow.models.split import describe_split
from windrow.models.splits import assign

AT = np.zeros(60, dtype=np.int64)
LABELS = (np.arange(60) % 10 == 0).astype(float)
ROWS = pa.table({"row": list(range(60)), "card_id": [n % 12 for n in range(60)]})
SPLITS = [
    RandomSplit(0.25, validation=0.25),
    StratifiedSplit(0.25, validation=0.25),
    GroupSplit("card_id", 0.25, validation=0.25),
    TimeSplit("10d", gap="2d", validation="10d"),
]


def shares(made: np.ndarray, chosen: np.ndarray | None = None) -> dict[str, int]:
    kept = made if chosen is None else made[chosen]
    return {name: int((kept == name).sum()) for name in ("train", "validation", "test", "gap") if (kept == name).any()}


def test_a_validation_split_has_its_exact_share_beside_the_test_split():
    assert shares(assign(RandomSplit(0.25, validation=0.1), AT, ROWS)) == {"train": 39, "validation": 6, "test": 15}


def test_rows_of_the_test_split_stay_there_when_a_validation_split_is_declared():
    alone, beside = (assign(RandomSplit(0.25, validation=share), AT, ROWS) for share in (0.0, 0.2))
    assert (alone == "test").tolist() == (beside == "test").tolist()


def test_a_stratified_split_has_the_same_share_of_every_class():
    made = assign(StratifiedSplit(0.5), AT, ROWS, labels=LABELS)
    assert (shares(made, LABELS == 1), shares(made, LABELS == 0)) == (
        {"train": 3, "test": 3},
        {"train": 27, "test": 27},
    )


def test_no_group_is_in_two_splits():
    made = assign(GroupSplit("card_id", 0.25, validation=0.25), AT, ROWS)
    cards = np.array(ROWS["card_id"].to_pylist())
    assert [len(set(made[cards == card])) for card in range(12)] == [1] * 12
    assert shares(made) == {"train": 30, "validation": 15, "test": 15}


def test_a_gap_stands_before_the_test_and_before_the_validation_split():
    made = assign(TimeSplit("2d", gap="1d", validation="2d"), np.arange(10, dtype=np.int64) * DAY, ROWS.slice(0, 10))
    assert made.tolist() == ["train"] * 4 + ["gap"] + ["validation"] * 2 + ["gap"] + ["test"] * 2


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: type(s).__name__)
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(60)))
def test_a_split_does_not_depend_on_the_order_of_rows(split, order):
    times, turned = np.arange(60, dtype=np.int64) * DAY, np.array(order)
    made = assign(split, times, ROWS, labels=LABELS)
    again = assign(split, times[turned], ROWS.take(pa.array(order)), labels=LABELS[turned])
    assert again.tolist() == made[turned].tolist()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = fraud_world(tmp_path_factory.mktemp("fraud"))
    made.groups(fraud())
    return made


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: type(s).__name__)
def test_a_dataset_of_any_split_is_made_again_as_it_was(world: World, tmp_path: Path, split) -> None:
    service = fraud(split=split)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    assert list(made.splits) == ["train", "validation", "test"]
    assert recreate(made, service, world.lake, world.metadata).same


def test_the_validation_split_is_loaded_by_its_name(world: World, tmp_path: Path) -> None:
    service = fraud(split=TimeSplit("10d", gap="2d", validation="5d"))
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    days = {name: load_split(made, service.view.contract, name).rows["event_time"].cast("int64").to_numpy() // DAY for name in made.splits}  # fmt: skip
    assert made.splits == {"train": 181, "validation": 30, "test": 60}
    assert (days["train"].max(), days["validation"].min(), days["validation"].max(), days["test"].min()) == (
        31,
        33,
        38,
        40,
    )


def test_the_split_of_one_snapshot_brings_its_own_validation_split():
    split = TimeSplit("1d", one_snapshot=StratifiedSplit(0.25, validation=0.25))
    assert shares(assign(split, AT, ROWS, labels=LABELS)) == {"train": 30, "validation": 14, "test": 16}


def test_a_stratified_split_of_numbers_is_refused():
    many = np.arange(200, dtype=float)
    with pytest.raises(DataError, match=r"the label has 200 different values.*Next: write RandomSplit"):
        assign(StratifiedSplit(), np.zeros(200, dtype=np.int64), pa.table({"row": list(range(200))}), labels=many)


def test_a_group_that_is_no_field_of_the_spine_is_refused_when_declared():
    with pytest.raises(UnknownNameError, match=r"group of the split 'card'.*'card_id'"):
        fraud(split=TimeSplit("1d", one_snapshot=GroupSplit("card")))


def test_too_few_groups_for_a_split_say_what_there_was():
    with pytest.raises(DataError, match=r"the test split has no row.*60 labelled rows: 60 train, 0 test \(GroupSplit"):
        assign(GroupSplit("card_id", 0.01), AT, ROWS)


BAD = [
    (lambda: RandomSplit(0.6, validation=0.4), r"leaves nothing to train on"),
    (lambda: StratifiedSplit(0.0), r"StratifiedSplit\(test=0\.0\) is no share"),
    (lambda: GroupSplit("card_id", 0.2, validation=-1), r"GroupSplit\(validation=-1\) is no share"),
    (lambda: GroupSplit(3), r"by= of GroupSplit\(\) is an int"),
    (lambda: TimeSplit("1d", validation="0s"), r"TimeSplit\(validation='0s'\) holds nothing"),
    (lambda: TimeSplit("1d", one_snapshot=TimeSplit("1d")), r"one_snapshot= of TimeSplit\(\) is a TimeSplit"),
]


@pytest.mark.parametrize(("declare", "message"), BAD)
def test_what_can_be_no_split_is_refused_when_declared(declare, message):
    with pytest.raises(DeclarationError, match=message):
        declare()


def test_two_splits_that_differ_in_kind_only_are_two_declarations():
    one, two = (TimeSplit("1d", one_snapshot=kind(0.25)) for kind in (RandomSplit, StratifiedSplit))
    assert describe_split(one) != describe_split(two)
