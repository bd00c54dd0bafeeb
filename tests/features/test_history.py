"""The history of a view and its latest rows, example by example; the laws are in tests/laws."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import windrow
from tests.features.on_demand_functions import distance, hour_of
from windrow import Entity, FeatureView, Source, feature_group, on_demand
from windrow.errors import DeclarationError, NotFoundError, TimeError, UnknownNameError
from windrow.features.history import ask_history, ask_latest
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.testing import MemoryTable, times

card, region = Entity("card", card_id="int64"), Entity("region", region_id="int64")
payments = Source("payments", event_time="ts", columns={"card_id": "int64", "region_id": "int64", "amount": "float64"})
customers = Source("customers", event_time="ts", columns={"card_id": "int64", "region_id": "int64", "limit": "float64"})
regions = Source("regions", event_time="ts", columns={"region_id": "int64", "risk": "float64"})


@feature_group(card)
def profile(customers):
    return customers.select("card_id", "region_id", "limit")


@feature_group(region)
def risk(regions):
    return regions.select("region_id", "risk")


@feature_group(region, ttl="5h")
def fresh(regions):
    return regions.select("region_id", "risk")


@feature_group()
def world(regions):
    """What is the same for everybody."""
    return regions.select(rate="risk")


NAN = float("nan")
TABLES = {
    "profile_v1": {"card_id": [1, 1, 1, 2], "region_id": [10, 10, 20, 10], "limit": [5.0, 5.0, NAN, 1.0], "event_time": times(1, 3, 5, 4)},
    "risk_v1": {"region_id": [10, 20, 20], "risk": [0.5, 0.25, 0.125], "event_time": times(2, 3, 6)},
    "fresh_v1": {"region_id": [10], "risk": [0.5], "event_time": times(2)},
    "world_v1": {"rate": [1.0, 1.0, 2.0], "event_time": times(1, 2, 4)},
}  # fmt: skip
HOUR = 3_600_000_000


def tables() -> dict[str, MemoryTable]:
    return {name: MemoryTable(f"features/{name}", pa.table(columns)) for name, columns in TABLES.items()}


def view(*features: Any) -> FeatureView:
    return FeatureView("fraud", spine=payments, features=features)


def told(*features: Any, span: tuple[int, int] = (0, 100), **options: Any) -> list[tuple[Any, ...]]:
    """Keys, time and features of a history."""
    chosen = view(*features)
    functions = {f.function.__name__: f.function for f in chosen.on_demand}
    made = ask_history(engine(), chosen.contract, tables(), span=span, functions=functions, **options)
    made = made.answer(engine(), tables())
    made = made.set_column(made.column_names.index("event_time"), "event_time", made["event_time"].cast("int64"))
    shown = [name for name in made.column_names if "__" not in name]
    return [tuple(row.values()) for row in made.select(shown).to_pylist()]


def test_a_row_that_repeats_the_values_is_no_change() -> None:
    made = [(key, at) for key, at, _ in told(profile["limit"])]
    assert made == [(1, 1), (1, 5), (2, 4)]


def test_a_row_in_the_span_is_a_change_only_if_it_differs_from_what_was_said_before_it() -> None:
    assert told(profile["limit"], span=(3, 4)) == [(2, 4, 1.0)]


def test_a_value_that_stays_not_a_number_does_not_change() -> None:
    assert [row[1] for row in told(profile["limit"], span=(5, 9))] == [5]


def test_a_value_found_through_another_group_changes_with_either() -> None:
    assert told(risk["risk"].of(profile.region_id)) == [(1, 2, 0.5), (1, 5, 0.25), (1, 6, 0.125), (2, 4, 0.5)]


def test_a_value_that_expires_is_a_change() -> None:
    assert told(fresh["risk"], span=(0, 6 * HOUR)) == [(10, 2, 0.5), (10, 5 * HOUR + 3, None)]


def test_what_is_the_same_for_everybody_changes_for_each_entity() -> None:
    made = told(profile["limit"], world, span=(2, 4), keys=[{"card_id": 2}, {"card_id": 9}])
    assert made == [(2, 4, 1.0, 2.0), (9, 4, None, 2.0)]


def test_a_view_about_everybody_has_one_entity_without_keys() -> None:
    assert told(world) == [(1, 1.0), (4, 2.0)]


def test_functions_of_stored_values_are_told_and_those_of_a_request_are_not() -> None:
    far, hour = on_demand(distance, x=profile.limit, y=profile.limit), on_demand(hour_of, at=payments.ts)
    assert told(far, hour, payments.amount, profile["limit"])[-1] == (2, 4, 0.0, 1.0)


def test_only_the_entities_asked_about_are_told() -> None:
    assert told(profile["limit"], keys=[{"card_id": 2}]) == [(2, 4, 1.0)]


def test_groups_of_different_keys_need_to_be_told_whom_to_ask_about() -> None:
    with pytest.raises(
        DeclarationError,
        match=r"asks about 'card_id', 'region_id' together.*keys=\[\{'card_id': ..., 'region_id': ...\}\]",
    ):
        told(profile["limit"], risk)
    made = told(profile["limit"], risk, keys=[{"card_id": 2, "region_id": 20}])
    assert made == [(2, 20, 3, None, 0.25), (2, 20, 4, 1.0, 0.25), (2, 20, 6, 1.0, 0.125)]


def test_keys_that_lack_a_field_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="the keys of a history has no column 'card_id'.*did you mean 'card'"):
        told(profile["limit"], keys=[{"card": 2}])


def test_nothing_stored_is_no_row_and_every_column() -> None:
    empty = {name: MemoryTable(t.key, t.rows.slice(0, 0)) for name, t in tables().items()}
    made = ask_history(engine(), view(profile["limit"], world).contract, empty, span=(0, 100))
    made = made.answer(engine(), empty)
    assert (made.num_rows, made.column_names[:4]) == (0, ["card_id", "event_time", "limit", "rate"])


def test_a_view_without_groups_never_changes() -> None:
    assert told(payments.amount) == []


def test_the_latest_rows_are_one_per_entity_seen_by_then() -> None:
    made = ask_latest(engine(), view(profile["limit"]).contract, tables(), now=3).answer(engine(), tables())
    assert made.select(["card_id", "limit", "profile_v1__status"]).to_pylist() == [
        {"card_id": 1, "limit": 5.0, "profile_v1__status": 0}
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Where the tables of the view are stored."""
    made = Settings.read({"WINDROW_HOME": str(tmp_path)})
    rows = pa.table(TABLES["profile_v1"])
    Lake(made.lake).table(profile.key).append(rows.append_column("known_at", rows["event_time"]))
    return made


def test_the_front_door_reads_the_projects_tables(settings: Settings) -> None:
    made = windrow.history(view(profile["limit"]), 0, 100, settings=settings)
    assert made["card_id"].to_pylist() == [1, 1, 2]
    newest = windrow.latest(view(profile["limit"]), settings=settings)
    assert newest["event_time"].cast("int64").to_pylist() == [5, 5]
    assert windrow.latest(view(profile["limit"]), "1970-01-02", [{"card_id": 7}], settings=settings).num_rows == 1


def test_the_front_door_writes_to_a_file_what_it_would_return(settings: Settings, tmp_path: Path) -> None:
    chosen, path = view(profile["limit"]), tmp_path / "made" / "rows.parquet"
    spine = pa.table({"card_id": [2, 1], "event_time": times(9, 4)})
    for ask in (
        partial(windrow.history, chosen, 0, 100),
        partial(windrow.latest, chosen),
        partial(windrow.point_in_time, chosen, spine),
    ):
        made = ask(settings=settings)
        assert ask(to=str(path), settings=settings) == made.num_rows
        assert repr(pq.read_table(path).to_pylist()) == repr(made.to_pylist())  # NaN too
    assert made["limit"].to_pylist() == [1.0, 5.0]
    assert windrow.point_in_time(chosen, spine.to_reader(), settings=settings).equals(made)


def test_a_history_that_ends_before_it_starts_is_refused(settings: Settings) -> None:
    with pytest.raises(DeclarationError, match="The history would end before it starts. Next: swap start and end"):
        windrow.history(view(profile), "2026-01-02", "2026-01-01", settings=settings)


def test_a_time_without_zone_is_refused(settings: Settings) -> None:
    with pytest.raises(TimeError, match="has no time zone"):
        windrow.history(view(profile), "2026-01-02T00:00:00", "2026-01-03", settings=settings)


def test_something_else_than_a_view_is_refused(settings: Settings) -> None:
    with pytest.raises(DeclarationError, match="the view of a history is the text 'fraud'"):
        windrow.latest("fraud", settings=settings)


def test_a_group_that_was_never_materialised_is_named(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="Nothing is stored under 'features/risk_v1'"):
        windrow.latest(view(risk), settings=settings)
