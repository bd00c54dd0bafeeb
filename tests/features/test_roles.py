"""Roles: one group for several entities, keys found through another group, and groups that are the same for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.features.on_demand_functions import distance
from windrow import Entity, FeatureView, Source, feature_group, on_demand
from windrow.errors import DeclarationError
from windrow.features.join import view_frame
from windrow.schema import Status
from windrow.serving.transformer import Transformer
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.materialize import materialize_group
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import OnlineStore, open_online
from windrow.stores.publish import publish_online
from windrow.testing import MemoryTable, features_of, no_look_ahead, times

HOUR = 3_600_000_000
card, region, country = (
    Entity("card", card_id="int64"),
    Entity("region", region_id="int64"),
    Entity("land", land="string"),
)
payments = Source("payments", event_time="ts", columns={"card_id": "int64", "payee_id": "int64", "amount": "float64"})
customers = Source("customers", event_time="ts", columns={"card_id": "int64", "region_id": "int64", "limit": "float64"})
regions = Source("regions", event_time="ts", columns={"region_id": "int64", "land": "string", "risk": "float64"})
lands = Source("lands", event_time="ts", columns={"land": "string", "vat": "float64"})
rates = Source("rates", event_time="ts", columns={"eur": "float64", "holiday": "bool"})


@feature_group(card)
def profile(customers):
    return customers.select("card_id", "region_id", "limit")


@feature_group(region, ttl="2h")
def region_risk(regions):
    return regions.select("region_id", "land", "risk")


@feature_group(country)
def tax(lands):
    return lands.select("land", "vat")


@feature_group()
def market(rates):
    """What is the same for everybody."""
    return rates.select("eur", "holiday")


def view(*features: Any) -> FeatureView:
    return FeatureView("fraud", spine=payments, features=features)


def contract(*features: Any) -> Any:
    return view(*features).contract


def test_a_key_found_through_another_group_is_read_from_its_value() -> None:
    made = contract(region_risk["risk"].of(profile.region_id))
    assert [f.name for f in made.request] == ["card_id"]
    assert made.feature_names == ("risk",)
    assert [(x.group, x.keys, x.stored) for x in made.lookups] == [
        ("region_risk_v1", {"region_id": "profile.region_id"}, ("region_id",)),
        ("profile_v1", {"card_id": "card_id"}, ()),
    ]


def test_a_selection_of_one_feature_is_a_key_too() -> None:
    by_column, by_selection = (contract(region_risk["risk"].of(k)) for k in (profile.region_id, profile["region_id"]))
    assert by_column == by_selection


def test_a_key_that_is_also_a_feature_is_looked_up_once() -> None:
    made = contract(profile, region_risk["risk"].of(profile.region_id))
    assert [x.keys for x in made.lookups] == [{"card_id": "card_id"}, {"region_id": "region_id"}]
    assert made.lookups[1].stored == ("region_id",)


def test_keys_can_be_found_in_several_steps() -> None:
    made = contract(tax.of(region_risk.of(profile.region_id).land))
    assert [(x.group, x.keys) for x in made.lookups] == [
        ("tax_v1", {"land": "profile.region_id.region_risk.land"}),
        ("region_risk_v1", {"region_id": "profile.region_id"}),
        ("profile_v1", {"card_id": "card_id"}),
    ]


def test_two_roles_of_one_entity_have_keys_of_their_own_behind_them() -> None:
    payee = profile.of("payee_id", prefix="payee_")
    made = contract(region_risk["risk"].of(profile.region_id), region_risk["risk"].of(payee.region_id, prefix="payee_"))
    assert [f.name for f in made.request] == ["card_id", "payee_id"]
    assert [x.keys for x in made.lookups[:2]] == [
        {"region_id": "profile.region_id"},
        {"region_id": "payee_id.profile.region_id"},
    ]


def test_a_column_of_the_spine_is_a_key_like_its_name() -> None:
    assert contract(profile.of(payments.payee_id)) == contract(profile.of("payee_id"))


def test_an_on_demand_function_reads_a_role() -> None:
    payee = profile.of("payee_id", prefix="payee_")
    made = contract(on_demand(distance, x=profile.limit, y=payee.limit))
    assert made.on_demand[0].inputs == {"x": "stored.profile.limit", "y": "stored.payee_id.profile.limit"}
    chosen = contract(payee["limit"], on_demand(distance, x=payments.amount, y=payee.limit))
    assert chosen.on_demand[0].inputs["y"] == "stored.payee_limit"


def test_a_key_of_another_dtype_is_refused() -> None:
    with pytest.raises(
        DeclarationError,
        match="view 'fraud': feature 'limit' of group 'profile' is float64, but key 'region_id' of group 'region_risk' is int64",
    ):
        contract(region_risk.of(profile.limit))


def test_a_column_of_another_source_is_no_key() -> None:
    with pytest.raises(
        DeclarationError, match=r"customers\.region_id cannot be the key of a group.*the spine 'payments'"
    ):
        contract(region_risk.of(customers.region_id))


def test_a_key_is_one_feature() -> None:
    with pytest.raises(DeclarationError, match=r"profile\.of\('card_id'\) has 2 features, but a key is one"):
        region_risk.of(profile["region_id", "limit"])


def test_a_number_is_no_key() -> None:
    with pytest.raises(DeclarationError, match=r"a key of 'region_risk'.of\(...\) is an int"):
        region_risk.of(7)


def test_a_group_without_entity_is_looked_up_by_time_alone() -> None:
    made = contract(market, payments.amount)
    assert (made.lookups[0].keys, [f.name for f in made.request]) == ({}, ["amount"])
    assert market.entity.keys == ()


def test_a_group_without_entity_makes_rows_without_keys() -> None:
    made = features_of(market, rates=[{"eur": 1.5, "ts": 5}, {"eur": 1.25, "ts": 3}])
    assert [(row["eur"], row["event_time"].microsecond) for row in made] == [(1.25, 3), (1.5, 5)]


WHOLE = view(
    market["eur"],
    profile["limit"],
    region_risk["risk"].of(profile.region_id),
    region_risk["risk"].of(profile.of("payee_id").region_id, prefix="payee_"),
    tax.of(region_risk.of(profile.region_id).land),
)
TABLES = {
    "profile": {"card_id": [1, 2, 3, 4], "region_id": [10, 20, None, 99], "limit": [1.0, 2.0, 3.0, 4.0]},
    "region_risk": {"region_id": [10, 20], "land": ["N", "Ö"], "risk": [0.5, 0.25]},
    "tax": {"land": ["N", "Ö"], "vat": [7.0, None]},
    "market": {"eur": [1.25], "holiday": [False]},
}
AT = {"profile": 0, "region_risk": HOUR, "tax": 0, "market": 2 * HOUR}
REQUESTS = [{"card_id": c, "payee_id": p} for c, p in [(1, 2), (2, 1), (3, 4), (4, 3), (5, 1)]]
# limit, risk, payee's risk, vat; the groups of card 3 have no region, those of card 4 one that nobody knows
EXPECTED = [
    [1.0, 0.5, 0.25, 7.0],
    [2.0, 0.25, 0.5, None],
    [3.0, None, None, None],
    [4.0, None, None, None],
    [None, None, 0.5, None],
]


def _group_tables() -> dict[str, pa.Table]:
    made = {}
    for group in WHOLE.groups:
        columns = TABLES[group.name]
        rows = len(next(iter(columns.values())))
        made[group.table_name] = pa.table({**columns, "event_time": times(*[AT[group.name]] * rows)})
    return made


def _frame(now: int) -> pa.Table:
    spine = pa.Table.from_pylist(REQUESTS).append_column("event_time", times(*[now] * len(REQUESTS)))
    tables = {name: MemoryTable(f"features/{name}", rows) for name, rows in _group_tables().items()}
    return view_frame(engine(), WHOLE.contract, spine, tables, functions={})


def test_each_row_finds_what_its_keys_lead_to() -> None:
    made = _frame(3 * HOUR).select(["limit", "risk", "payee_risk", "vat"])
    assert [list(row.values()) for row in made.to_pylist()] == EXPECTED


def test_behind_an_expired_row_nothing_is_found() -> None:
    made = _frame(4 * HOUR)
    assert made["risk"].to_pylist() == [None] * 5
    status = "stored.profile.region_id.region_risk_v1__status"
    assert made[status].to_pylist() == [Status.EXPIRED, Status.EXPIRED, *[Status.NOT_FOUND] * 3]
    assert set(made["stored.profile.region_id.region_risk.land.tax_v1__status"].to_pylist()) == {Status.NOT_FOUND}


def test_a_view_without_groups_needs_no_table() -> None:
    spine = pa.table({"amount": [1.5], "event_time": times(5)})
    assert view_frame(engine(), contract(payments.amount), spine, {}, functions={})["amount"].to_pylist() == [1.5]


def test_keys_through_groups_do_not_read_the_future() -> None:
    profiles = [{"card_id": 1, "region_id": r, "limit": 1.0, "ts": t} for r, t in [(10, 1), (20, 4)]]
    risks = [{"region_id": r, "land": "N", "risk": r / 8, "ts": t} for r, t in [(10, 2), (20, 3), (10, 6)]]
    asked = [{"card_id": 1, "payee_id": 1, "amount": 1.0, "ts": t} for t in range(1, 8)]
    given = {"customers": profiles, "regions": risks, "rates": [{"eur": 1.0, "holiday": True, "ts": 3}]}
    no_look_ahead(view(market["eur"], region_risk["risk"].of(profile.region_id)), payments=asked, **given)


@pytest.fixture
def online(tmp_path: Path) -> Iterator[OnlineStore]:
    """Everything materialized and published as a project does it."""
    lake, metadata = Lake(str(tmp_path / "lake")), Metadata(f"sqlite:///{tmp_path}/metadata.db")
    inputs = {"profile": customers, "region_risk": regions, "tax": lands, "market": rates}
    with open_online(f"lmdb://{tmp_path}/online", write=True) as store:
        for group in WHOLE.groups:
            rows = _group_tables()[group.table_name]
            rows = rows.append_column("ts", rows["event_time"]).append_column("known_at", rows["event_time"])
            lake.table(inputs[group.name].key).append(rows)
            assert materialize_group(group, lake, metadata).rows_written == rows.num_rows
            assert materialize_group(group, lake, metadata).rows_written == 0
            assert publish_online(group, lake, store, now=3 * HOUR).entities == rows.num_rows
    with open_online(f"lmdb://{tmp_path}/online") as store:
        yield store


@pytest.mark.parametrize("now", [3 * HOUR, 4 * HOUR])
def test_a_request_is_answered_as_the_past_was(online: OnlineStore, now: int) -> None:
    made = Transformer(WHOLE.contract, online).vectors(REQUESTS, [now] * len(REQUESTS))
    frame = _frame(now)
    names = [f.name for f in WHOLE.contract.features]
    assert made.rows() == frame.select(names).to_pylist()
    said = {"risk": "stored.profile.region_id.region_risk_v1", "limit": "profile_v1", "eur": "market_v1"}
    for value, status in said.items():
        assert [row[value] for row in made.statuses] == frame[f"{status}__status"].to_pylist()


def test_only_an_entity_that_the_request_names_is_unknown(online: OnlineStore) -> None:
    made = Transformer(WHOLE.contract, online).vectors(REQUESTS, [3 * HOUR] * len(REQUESTS))
    assert made.unknown == {4: ("profile_v1",)}


def test_one_request_alone_is_answered_like_many(online: OnlineStore) -> None:
    transformer = Transformer(WHOLE.contract, online)
    many = transformer.vectors(REQUESTS, [3 * HOUR] * len(REQUESTS)).rows()
    assert [transformer.vectors([row], [3 * HOUR]).rows()[0] for row in REQUESTS] == many
