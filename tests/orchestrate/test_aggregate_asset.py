"""The asset of an aggregate group: nothing offline, every entity's state online."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from tests.orchestrate.conftest import settings_of
from windrow import Entity, Source, agg, aggregate
from windrow.errors import VersionError
from windrow.features.tiles import Tiles
from windrow.orchestrate.factories import group_asset, source_asset
from windrow.orchestrate.resources import Stores
from windrow.stores.online.store import open_online


def simulated() -> dict[str, Any]:
    times = (np.arange(3) * 1_000_000_000).astype("datetime64[us]")
    return {"card_id": np.array([1, 1, 2]), "amount": np.array([1.0, 2.0, 4.0]), "ts": times}


card = Entity("card", card_id="int64")
payments = Source("payments", event_time="ts", timezone="UTC", columns={"card_id": "int64", "amount": "float64"},
                  simulator=f"{__name__}:simulated")  # fmt: skip


def run(stores: Stores, window: str = "1d", **options: Any) -> dg.ExecuteInProcessResult:
    group = aggregate("spend", payments, by=card, features={"total": agg.sum("amount", window)}, **options)
    assets = [source_asset(payments, group="g"), group_asset(group, group="g")]
    return dg.materialize(assets, resources={"stores": stores}, raise_on_error=True)


def facts(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = done.asset_materializations_for_node("features__spend_v1")
    return {name: value.value for name, value in event.metadata.items()}


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(settings_of(tmp_path / "home"))


def test_the_states_of_all_entities_are_loaded_and_counted(stores: Stores) -> None:
    told = facts(run(stores))
    assert {n: told[n] for n in ("events", "events read", "online entities written", "online entities")} == {
        "events": 3, "events read": 3, "online entities written": 2, "online entities": 2,
    }  # fmt: skip
    group = aggregate("spend", payments, by=card, features={"total": agg.sum("amount", "1d")})
    with open_online(stores.settings.online) as online:
        rows = online.read([("spend_v1", (1,)), ("spend_v1", (2,))])
    made = Tiles(group.spec)
    assert [made.values(row.values[0], 3_000_000_000) for row in rows if row] == [((3.0,), 0), ((4.0,), 0)]
    assert not stores.lake.table("features/spend_v1").exists


def test_a_second_run_does_nothing_and_says_so(stores: Stores) -> None:
    run(stores)
    told = facts(run(stores))
    assert told["online entities written"] == 0
    assert told["skipped because"] == "no event is new since the states were made"


def test_another_function_under_the_same_version_is_refused(stores: Stores) -> None:
    run(stores)
    with pytest.raises(dg.Failure) as caught:
        run(stores, "7d")
    assert isinstance(caught.value.__cause__, VersionError)


def test_a_group_that_is_not_online_says_that_it_does_nothing(stores: Stores) -> None:
    assert facts(run(stores, online=False))["skipped because"].startswith("it is declared online=False")
