"""Training rows know what could be known at their time, and labels count only when they are mature."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.models.worlds import (
    DAY,
    HOUR,
    World,
    chargebacks,
    customers,
    fraud,
    fraud_world,
    load,
    load_world,
    payment_view,
    payments,
    readings,
)
from windrow import (
    Constant,
    Entity,
    FeatureView,
    Label,
    PredictionService,
    RandomSplit,
    Source,
    TimeSplit,
    feature_group,
)
from windrow.clock import duration
from windrow.errors import DataError, DeclarationError, ModelError, NotFoundError, StoreError
from windrow.models.content import content_hash
from windrow.models.dataset import TrainingDataset, build_dataset, load_split, spine_rows
from windrow.models.labels import label_rows
from windrow.models.splits import assign
from windrow.stores.engine import engine


def times(table: pa.Table) -> list[int]:
    return table["event_time"].cast("int64").to_pylist()


def labelled(service, world: World, *, now: int, **columns) -> pa.Table:
    micros = columns.pop("event_time")
    spine = pa.table({**columns, "event_time": pa.array(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))})
    return label_rows(service, world.lake, engine(), spine, now=now)


# labels


def test_a_joined_label_is_known_after_maturity_and_absence_means_what_was_declared(tmp_path):
    world = World(tmp_path)
    world.add(chargebacks, payment_id=[1], card_id=[7], ts=[3 * DAY], seen=[3 * DAY])
    made = labelled(fraud(), world, now=11 * DAY, payment_id=[1, 2], event_time=[DAY, DAY])
    assert made["label"].to_pylist() == [1.0, 0.0]
    assert made["label_state"].to_pylist() == ["known", "known"]


def test_an_immature_row_has_no_label_even_if_something_is_known_of_it_already(tmp_path):
    world = World(tmp_path)
    world.add(chargebacks, payment_id=[1], card_id=[7], ts=[3 * DAY], seen=[3 * DAY])
    made = labelled(fraud(), world, now=11 * DAY - 1, payment_id=[1, 2], event_time=[DAY, DAY])
    assert made["label"].to_pylist() == [None, None]
    assert made["label_state"].to_pylist() == ["immature", "immature"]


def test_an_outcome_that_becomes_known_after_maturity_changes_nothing_that_was_final(tmp_path):
    world = World(tmp_path)
    world.add(chargebacks, payment_id=[1, 2], card_id=[7, 7], ts=[3 * DAY] * 2, seen=[11 * DAY, 11 * DAY + 1])
    before = labelled(fraud(), world, now=11 * DAY, payment_id=[1, 2], event_time=[DAY] * 2)
    after = labelled(fraud(), world, now=40 * DAY, payment_id=[1, 2], event_time=[DAY] * 2)
    assert (before["label"].to_pylist(), after["label"].to_pylist()) == ([1.0, 0.0], [1.0, 0.0])


def test_without_a_rule_for_absence_a_mature_row_is_unknown(tmp_path):
    world = World(tmp_path)
    world.add(chargebacks, payment_id=[1], card_id=[7], ts=[3 * DAY], seen=[3 * DAY])
    service = fraud(label=Label.joined(chargebacks, on="payment_id", matures_after="10d"))
    made = labelled(service, world, now=30 * DAY, payment_id=[1, 2], event_time=[DAY, DAY])
    assert made["label_state"].to_pylist() == ["known", "unknown"]


def test_a_row_without_the_labels_key_is_unknown_not_negative(tmp_path):
    world = World(tmp_path)
    world.add(chargebacks, payment_id=[1], card_id=[7], ts=[3 * DAY], seen=[3 * DAY])
    made = labelled(fraud(), world, now=30 * DAY, payment_id=pa.array([None], pa.int64()), event_time=[DAY])
    assert made["label_state"].to_pylist() == ["unknown"]


def test_a_label_within_a_window_leaves_out_its_begin_and_includes_its_end(tmp_path):
    world = World(tmp_path)
    cards, at = [1, 2, 3, 4], [DAY, DAY + 1, 6 * DAY, 6 * DAY + 1]
    world.add(chargebacks, payment_id=cards, card_id=cards, ts=at, seen=at)
    service = fraud(label=Label.within(chargebacks, "5d", matures_after="5d"))
    made = labelled(service, world, now=20 * DAY, card_id=[1, 2, 3, 4, 5], event_time=[DAY] * 5)
    assert made["label"].to_pylist() == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_a_label_within_a_window_finds_the_first_event_after_each_row_in_any_order(tmp_path):
    world = World(tmp_path)
    world.add(chargebacks, payment_id=[1, 2], card_id=[1, 1], ts=[3 * DAY, 9 * DAY], seen=[3 * DAY, 9 * DAY])
    service = fraud(label=Label.within(chargebacks, "2d", matures_after="2d"))
    made = labelled(service, world, now=30 * DAY, card_id=[1, 1, 1], event_time=[8 * DAY, 4 * DAY, 2 * DAY])
    assert made["label"].to_pylist() == [1.0, 0.0, 1.0]


def test_a_value_label_is_taken_at_exactly_the_time_ahead(tmp_path):
    world = World(tmp_path)
    world.add(readings, meter=["n", "n"], mw=[5.0, 7.0], ts=[2 * HOUR, 3 * HOUR + 1])
    made = labelled(load(), world, now=99 * HOUR, meter=["n", "n", "s"], event_time=[0, HOUR, 0])
    assert made["label"].to_pylist() == [5.0, None, None]
    assert made["label_state"].to_pylist() == ["known", "unknown", "unknown"]


def test_a_corrected_value_replaces_the_first_one(tmp_path):
    world = World(tmp_path)
    world.add(readings, meter=["n"], mw=[5.0], ts=[2 * HOUR])
    world.add(readings, meter=["n"], mw=[6.0], ts=[2 * HOUR])
    assert labelled(load(), world, now=99 * HOUR, meter=["n"], event_time=[0])["label"].to_pylist() == [6.0]


def test_a_label_source_without_the_spines_keys_is_refused(tmp_path):
    world, other = World(tmp_path), Source("storms", event_time="ts", columns={"zone": "string"})
    world.add(other, zone=["z"], ts=[DAY])
    with pytest.raises(DeclarationError, match=r"source 'storms' lacks its keys.*spine's keys are 'card_id'"):
        labelled(fraud(label=Label.within(other, "5d")), world, now=DAY, card_id=[1], event_time=[DAY])


# spines


def test_a_source_spine_has_the_newest_row_of_each_id_known_by_now(tmp_path):
    world = World(tmp_path)
    world.add(payments, payment_id=[1, 2, 3], card_id=[1, 1, 1], amount=[1.0, 2.0, 3.0], ts=[DAY, 2 * DAY, 9 * DAY])
    world.add(payments, payment_id=[2], card_id=[1], amount=[20.0], ts=[2 * DAY])
    made = spine_rows(fraud(), world.lake, engine(), now=5 * DAY)
    assert made["amount"].to_pylist() == [1.0, 20.0]
    assert made.column_names == ["payment_id", "card_id", "amount", "event_time"]


def test_a_spine_is_cut_from_start_to_before_the_end(tmp_path):
    world = World(tmp_path)
    world.add(payments, payment_id=[1, 2, 3], card_id=[1, 1, 1], amount=[1.0, 2.0, 3.0], ts=[DAY, 2 * DAY, 3 * DAY])
    made = spine_rows(fraud(), world.lake, engine(), start=DAY, end=3 * DAY, now=9 * DAY)
    assert made["payment_id"].to_pylist() == [1, 2]


def test_a_clock_ticks_for_each_key_from_its_first_to_its_last_row(tmp_path):
    world, service = load_world(tmp_path, hours=12), load()
    world.groups(service)
    made = spine_rows(service, world.lake, engine(), now=99 * HOUR)
    assert made.num_rows == 12 + 2
    assert made.filter(pc.equal(made["meter"], "south"))["event_time"].cast("int64").to_pylist() == [
        10 * HOUR,
        11 * HOUR,
    ]


def test_a_clock_ticks_on_to_now_when_asked_about_a_stretch(tmp_path):
    world, service = load_world(tmp_path, hours=12), load()
    world.groups(service)
    made = spine_rows(service, world.lake, engine(), start=11 * HOUR, end=15 * HOUR, now=13 * HOUR)
    assert times(made) == [11 * HOUR] * 2 + [12 * HOUR] * 2 + [13 * HOUR] * 2


def test_a_clock_never_ticks_after_now(tmp_path):
    world, service = load_world(tmp_path, hours=12), load()
    world.groups(service)
    assert max(times(spine_rows(service, world.lake, engine(), now=4 * HOUR))) == 4 * HOUR


# datasets


def test_a_dataset_counts_what_it_leaves_out(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    # 59 days of 6 payments; the last days are immature; test is 10 days, the gap 2 days of 6.
    assert made.excluded == {"immature": 59, "gap": 12}
    assert made.splits == {"train": 223, "test": 60}
    assert made.rows == 283
    assert made.features == ["limit", "plan", "amount", "share"]


def test_a_values_row_that_no_one_measured_is_counted_as_unknown(tmp_path):
    world, service = World(tmp_path), load()
    hours = [t for t in range(30) if t != 20]
    world.add(readings, meter=["n"] * 29, mw=[float(t) for t in hours], ts=[t * HOUR for t in hours])
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=29 * HOUR, home=tmp_path)
    assert made.excluded == {"immature": 2, "unknown": 1}


def test_the_same_rows_have_the_same_hash_however_they_were_written(tmp_path):
    service, made = fraud(), []
    for order in (1, 2):
        world = fraud_world(tmp_path / str(order), order=order)
        world.groups(service)
        made.append(build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path / str(order)))
    assert made[0].content_hash == made[1].content_hash
    assert made[0].id == made[1].id


def test_another_value_gives_another_hash():
    assert content_hash(pa.table({"x": [1.0, 2.0]})) != content_hash(pa.table({"x": [1.0, 2.5]}))
    assert content_hash(pa.table({"x": ["ab", "c"]})) != content_hash(pa.table({"x": ["a", "bc"]}))
    assert content_hash(pa.table({"x": ["", "c"]})) != content_hash(pa.table({"x": [None, "c"]}))


def test_a_row_does_not_see_what_came_after_it(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.add(customers, card_id=[0], limit=[9_999.0], plan=["b"], ts=[30 * DAY], loaded=[31 * DAY])
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    train, test = (load_split(made, payment_view.contract, name) for name in ("train", "test"))
    limits = {
        t // DAY: limit
        for part in (train, test)
        for t, limit, c in zip(
            times(part.rows), part.frame["limit"].tolist(), part.rows["card_id"].to_pylist(), strict=True
        )
        if c == 0
    }
    assert (limits[30], limits[31], limits[48]) == (50.0, 9_999.0, 9_999.0)


def test_a_split_is_loaded_as_float32_and_text_with_its_labels_and_other_columns(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    train = load_split(made, service.view.contract, "train")
    assert train.X.dtypes.astype(str).to_dict() == {
        "limit": "float32",
        "plan": "object",
        "amount": "float32",
        "share": "float32",
    }
    assert (train.y.dtype, sorted(set(train.y.tolist()))) == (np.dtype("float64"), [0.0, 1.0])
    assert train.rows.column_names == ["payment_id", "card_id", "event_time"]
    assert train.X["share"].iloc[0] == pytest.approx(train.X["amount"].iloc[0] / train.X["limit"].iloc[0])


def test_a_dataset_is_recorded_and_read_back(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    assert msgspec.convert(world.metadata.datasets("fraud")[-1], TrainingDataset) == made
    assert Path(made.path).parent == tmp_path / "datasets" / "fraud"


def test_a_dataset_of_another_view_is_refused(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    with pytest.raises(
        ModelError, match=r"built for other features than view 'load'.*Next: build fraud/training_dataset again"
    ):
        load_split(made, load().view.contract, "train")


def test_a_lost_file_is_named(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    Path(made.path).unlink()
    with pytest.raises(NotFoundError, match="the file of dataset .* is gone"):
        load_split(made, service.view.contract, "train")


def test_nothing_is_visible_when_the_file_cannot_be_written(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    (tmp_path / "datasets").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    assert world.metadata.datasets("fraud") == []


def test_no_mature_row_is_an_error_with_the_counts(tmp_path):
    world, service = fraud_world(tmp_path), fraud()
    world.groups(service)
    with pytest.raises(DataError, match=r"no row of service 'fraud' has a known label.*6 immature, 0 unknown"):
        build_dataset(service, world.lake, world.metadata, now=2 * DAY - 1, home=tmp_path)


def test_groups_that_were_never_materialised_are_an_error(tmp_path):
    with pytest.raises(NotFoundError, match="Nothing is stored under 'features/card_profile_v1' yet"):
        build_dataset(fraud(), fraud_world(tmp_path).lake, World(tmp_path).metadata, now=60 * DAY, home=tmp_path)


def test_a_column_called_label_is_refused(tmp_path):
    view = FeatureView("odd", spine=labels_source, features=[labels_source["label"]])
    service = PredictionService(
        "odd", view, Label.joined(chargebacks, on="payment_id", matures_after="1d"), model=dict, split=RandomSplit()
    )
    with pytest.raises(DeclarationError, match="view 'odd' has a column called 'label'"):
        build_dataset(service, World(tmp_path).lake, World(tmp_path).metadata, now=0, home=tmp_path)


labels_source = Source("odd_rows", event_time="ts", columns={"payment_id": "int64", "label": "float64"})


# splits


def identity(n: int) -> pa.Table:
    return pa.table({"id": list(range(n))})


def test_a_random_split_has_the_exact_share_and_does_not_depend_on_order():
    at = np.zeros(40, dtype=np.int64)
    made = assign(RandomSplit(0.25, seed=1), at, identity(40))
    turned = assign(RandomSplit(0.25, seed=1), at, identity(40).take(pa.array(range(39, -1, -1))))
    assert (made == "test").sum() == 10
    assert turned[::-1].tolist() == made.tolist()


def test_another_seed_draws_other_rows():
    at = np.zeros(40, dtype=np.int64)
    assert (
        assign(RandomSplit(0.25, seed=1), at, identity(40)).tolist()
        != assign(RandomSplit(0.25, seed=2), at, identity(40)).tolist()
    )


def test_rows_of_one_time_need_a_random_split():
    at = np.full(8, DAY, dtype=np.int64)
    with pytest.raises(DataError, match=r"all 8 rows have one time \(1970-01-02\).*one_snapshot=RandomSplit"):
        assign(TimeSplit(test="1d"), at, identity(8))
    made = assign(TimeSplit(test="1d", one_snapshot=RandomSplit(0.25)), at, identity(8))
    assert (made == "test").sum() == 2


def test_a_split_that_leaves_nothing_to_train_on_is_an_error():
    at = np.arange(5, dtype=np.int64) * DAY
    with pytest.raises(DataError, match=r"the train split has no row.*5 labelled rows: 0 train, 5 test"):
        assign(TimeSplit(test="30d"), at, identity(5))


snapshot = Source("snapshot", event_time=Constant("2019-09-30"), columns={"customer_id": "string", "spend": "float64"})
gone = Source("gone", event_time=Constant("2019-10-30"), columns={"customer_id": "string"})


@feature_group(Entity("customer", customer_id="string"))
def spending(snapshot):
    return snapshot.select("customer_id", "spend")


def test_one_snapshot_becomes_a_dataset_with_a_random_split(tmp_path):
    world = World(tmp_path)
    at = Constant("2019-09-30").micros
    rows = pa.table({"customer_id": [f"c{i}" for i in range(40)], "spend": [float(i) for i in range(40)]})
    stamp = pa.array([at] * 40, pa.int64()).cast(pa.timestamp("us", "UTC"))
    world.lake.table(snapshot.key).append(rows.append_column("event_time", stamp).append_column("known_at", stamp))
    later = pa.array([Constant("2019-10-30").micros], pa.int64()).cast(pa.timestamp("us", "UTC"))
    world.lake.table(gone.key).append(pa.table({"customer_id": ["c3"], "event_time": later, "known_at": later}))
    view = FeatureView("snap", spine=snapshot, features=[spending])
    service = PredictionService(
        "snap", view, Label.within(gone, "30d"), model=dict, split=TimeSplit(test="30d", one_snapshot=RandomSplit(0.25))
    )
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=at + duration("30d"), home=tmp_path)
    labels = np.concatenate([load_split(made, view.contract, name).y for name in ("train", "test")])
    assert (made.splits, labels.sum()) == ({"train": 30, "test": 10}, 1.0)
