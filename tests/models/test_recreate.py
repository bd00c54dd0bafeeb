from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.models.worlds import DAY, World, card, card_profile, chargebacks, customers, fraud, fraud_world, payments
from windrow import FeatureView
from windrow.errors import DataError
from windrow.models.dataset import TrainingDataset, build_dataset
from windrow.models.places import places
from windrow.models.recreate import recreate
from windrow.settings import Settings
from windrow.stores.compaction import compact
from windrow.stores.forgetting.forget import forget

NOW = 90 * DAY


def built(home: Path) -> tuple[World, TrainingDataset]:
    world, service = fraud_world(home), fraud()
    world.groups(service)
    return world, build_dataset(service, world.lake, world.metadata, now=NOW, home=home)


def forget_card(world: World, number: int) -> None:
    own = Settings.read({"WINDROW_HOME": str(world.home)})
    forget((number,), places(card, [fraud()], fraud().view.groups), own, world.metadata)


def test_a_dataset_is_made_again_after_rows_came_and_tables_were_compacted(tmp_path: Path) -> None:
    world, dataset = built(tmp_path)
    world.add(payments, payment_id=[9999], card_id=[1], amount=[5.0], ts=[3 * DAY])
    compact(world.lake.table("sources/payments"), everything=True)
    made = recreate(dataset, fraud(), world.lake, world.metadata)
    assert (made.same, made.rows, str(made)) == (
        True, dataset.rows, f"dataset {dataset.id} is the same: {dataset.rows} rows",
    )  # fmt: skip


CHANGES = st.lists(st.sampled_from(["late payment", "corrected payment", "corrected limit", "new outcome", "compaction", "second look"]), min_size=1, max_size=5)  # fmt: skip


def change(world: World, kind: str, number: int) -> None:
    """Something that happens to a project's tables after a dataset was built."""
    if kind == "late payment":
        world.add(payments, payment_id=[9000 + number], card_id=[1], amount=[5.0], ts=[3 * DAY])
    elif kind == "corrected payment":
        world.add(payments, payment_id=[6 + number], card_id=[0], amount=[99.0], ts=[DAY])
    elif kind == "corrected limit":
        world.add(customers, card_id=[2], limit=[1.0 + number], plan=["c"], ts=[0], loaded=[1 + number])
    elif kind == "new outcome":
        world.add(chargebacks, payment_id=[7 + number], card_id=[1], ts=[4 * DAY], seen=[4 * DAY])
    elif kind == "compaction":
        for table in ("sources/payments", "sources/customers", "sources/chargebacks", card_profile.key):
            compact(world.lake.table(table), everything=True)
    else:
        world.groups(fraud())


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=CHANGES)
@example(kinds=["corrected limit", "corrected limit", "second look"])
def test_a_dataset_is_the_same_whatever_came_was_corrected_or_was_compacted_since(tmp_path_factory, kinds) -> None:
    world, dataset = built(tmp_path_factory.mktemp("after"))
    for number, kind in enumerate(kinds):
        change(world, kind, number)
    assert recreate(dataset, fraud(), world.lake, world.metadata).same


def test_a_correction_makes_another_dataset_when_it_is_built_again(tmp_path: Path) -> None:
    world, dataset = built(tmp_path)
    change(world, "corrected payment", 0)
    again = build_dataset(fraud(), world.lake, world.metadata, now=NOW, home=tmp_path)
    assert again.content_hash != dataset.content_hash


def test_what_differs_by_a_forgotten_entity_is_told(tmp_path: Path) -> None:
    world, dataset = built(tmp_path)
    forget_card(world, 2)
    made = recreate(dataset, fraud(), world.lake, world.metadata)
    assert (made.same, made.forgotten, made.rows + made.forgotten) == (False, dataset.rows // 6, dataset.rows)
    assert made.passed
    assert (made.changed, made.added, made.unexplained, len(made.tombstones)) == (0, 0, 0, 1)
    assert str(made).endswith(f"differs in {made.forgotten} forgotten; 1 entities were forgotten since")


def test_a_difference_without_a_forgotten_entity_is_not_explained_away(tmp_path: Path) -> None:
    world, dataset = built(tmp_path)
    world.lake.table("sources/payments").replace(world.lake.table("sources/payments").schema.empty_table().drop_columns(["_seq"]), "card_id = 2")  # fmt: skip
    made = recreate(dataset, fraud(), world.lake, world.metadata)
    assert not made.passed
    assert (made.same, made.forgotten, made.unexplained, made.tombstones) == (False, 0, dataset.rows // 6, [])


def test_a_dataset_of_another_view_is_refused(tmp_path: Path) -> None:
    world, dataset = built(tmp_path)
    other = fraud(view=FeatureView("fraud", spine=payments, features=[card_profile, payments.amount]))
    with pytest.raises(DataError, match="was built for another view than service 'fraud' declares now"):
        recreate(dataset, other, world.lake, world.metadata)


def test_a_dataset_from_the_log_is_refused(tmp_path: Path) -> None:
    world, dataset = built(tmp_path)
    with pytest.raises(DataError, match="was built from the prediction log"):
        recreate(msgspec.structs.replace(dataset, kind="log"), fraud(), world.lake, world.metadata)
