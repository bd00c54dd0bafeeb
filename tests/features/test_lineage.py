"""What groups and views read, column by column, read off their declarations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis
import pytest

from tests.features import on_demand_functions as od
from windrow import Entity, Every, FeatureGroup, FeatureView, Source, agg, aggregate, feature_group, on_demand
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.external import external_group
from windrow.features.lineage import column_lineage, contract_lineage, lineage
from windrow.features.place import Parquet
from windrow.features.query_lineage import Reads
from windrow.features.source import Constant
from windrow.features.sql import sql_group

card, region = Entity("card", card_id="int64"), Entity("region", region_id="int64")
payments = Source(
    "payments",
    id="payment_id",
    event_time="ts",
    known_at="received",
    columns={"payment_id": "int64", "card_id": "int64", "amount": "float64", "abroad": "bool", "note": "string"},
)
cards = Source(
    "cards",
    event_time="ts",
    columns={"card_id": "int64", "region_id": "int64", "limit": "float64", "limit_": "float64"},
)
regions = Source("regions", event_time=Constant("2020-01-01"), columns={"region_id": "int64", "rate": "float64"})


@feature_group(card)
def card_profile(cards):
    return cards.select("card_id", "region_id", "limit")


@feature_group(region)
def region_rate(regions):
    return regions.select("region_id", "rate")


card_spend = aggregate(
    "card_spend",
    payments,
    by=card,
    features={
        "spend": agg.sum("amount", "1d"),
        "abroad": agg.count("7d", where="abroad"),
        "now": agg.mean("amount", "1h", include_current=True),
    },
)


def told(reads: Reads) -> str:
    return " ".join(sorted(f"{r.table.partition('/')[2]}.{r.column}:{r.kind}" for r in reads))


def declared(function: Callable[..., Any]) -> FeatureGroup:
    return feature_group(card)(function)


def test_rows_are_told_apart_from_values_with_keys_and_declared_times() -> None:
    def big(payments):
        return payments.filter(payments.abroad).select("card_id", cents=payments.amount * 100)

    made = lineage(declared(big))
    assert told(made.features["cents"]) == "payments.amount:value"
    assert told(made.rows) == "payments.abroad:filter payments.card_id:key payments.received:time payments.ts:time"
    assert made.reads("cents") == made.features["cents"] | made.rows


def test_a_known_at_that_is_not_declared_comes_from_the_event_time() -> None:
    assert told(lineage(card_profile).rows) == "cards.card_id:key cards.ts:time"


def test_a_source_with_one_constant_time_has_no_time_column_to_lose() -> None:
    assert told(lineage(region_rate).rows) == "regions.region_id:key"


def test_rows_written_into_a_definition_come_from_no_column() -> None:
    def rated(cards):
        rates = ibis.memtable({"region_id": [1, 2], "rate": [0.1, 0.2]})
        return cards.join(rates, "region_id").select("card_id", "rate", "event_time", "known_at")

    made = lineage(declared(rated))
    assert told(made.features["rate"]) == ""
    assert told(made.rows) == "cards.card_id:key cards.region_id:join cards.ts:time"


def test_a_part_that_ibis_writes_once_and_uses_twice_is_read_both_times() -> None:
    def twice(cards, regions):
        dear = regions.filter(regions.rate > 0.5)
        kept = cards.filter(cards.region_id.isin(dear.region_id))
        return kept.mutate(n=kept.limit_).filter(kept.region_id.isin(dear.region_id)).select("card_id", "n")

    made = lineage(declared(twice))
    assert told(made.features["n"]) == "cards.limit_:value"
    assert "cards.region_id:filter" in told(made.rows)
    assert "regions.rate:filter" in told(made.rows)


def test_the_same_group_is_read_off_once() -> None:
    assert lineage(card_profile) is lineage(card_profile)


def test_an_aggregate_reads_its_column_its_condition_and_what_orders_events() -> None:
    made = lineage(card_spend)
    assert {name: told(reads) for name, reads in made.features.items()} == {
        "spend": "payments.amount:value",
        "abroad": "payments.abroad:filter",
        "now": "payments.amount:value",
    }
    assert told(made.rows) == "payments.card_id:key payments.payment_id:group payments.received:time payments.ts:time"


def test_an_external_group_reads_the_columns_of_its_table() -> None:
    group = external_group(
        "limits", card, connect=Parquet("limits/*.parquet"), event_time="valid_from",
        features={"credit": "float64"}, columns={"credit": "eur"},
    )  # fmt: skip
    made = lineage(group)
    assert told(made.features["credit"]) == "limits.eur:value"
    assert told(made.rows) == "limits.card_id:key limits.valid_from:time"


def test_dagster_is_told_what_values_come_from_and_of_a_count_what_decides_it() -> None:
    assert column_lineage(card_spend) == {
        "spend": [("sources/payments", "amount")],
        "abroad": [("sources/payments", "abroad")],
        "now": [("sources/payments", "amount")],
    }


def inputs(view: FeatureView, spine: Source | None) -> dict[str, str]:
    return {name: told(reads) for name, reads in contract_lineage(view.contract, spine).items()}


def test_a_model_input_is_a_feature_found_by_keys_at_a_time() -> None:
    view = FeatureView("v", spine=payments, features=[card_profile["limit"], payments.amount])
    assert inputs(view, payments) == {
        "limit": "card_profile_v1.limit:value payments.card_id:key payments.ts:time",
        "amount": "payments.amount:value",
    }


def test_a_key_found_through_another_group_is_followed_to_its_own_key() -> None:
    rate = region_rate.of(card_profile.region_id)
    view = FeatureView("v", spine=payments, features=[rate])
    assert inputs(view, payments) == {
        "rate": "card_profile_v1.region_id:key payments.card_id:key payments.ts:time region_rate_v1.rate:value"
    }


def test_a_function_passes_its_inputs_on() -> None:
    view = FeatureView("v", spine=payments, features=[on_demand(od.distance, x=payments.amount, y=card_profile.limit)])
    assert inputs(view, payments) == {
        "distance": "card_profile_v1.limit:value payments.amount:value payments.card_id:key payments.ts:time"
    }


def test_a_window_that_counts_the_requests_own_event_reads_the_request() -> None:
    view = FeatureView("v", spine=payments, features=[card_spend["now", "spend"]])
    assert inputs(view, payments) == {
        "now": "card_spend_v1.now:value payments.amount:value payments.card_id:key payments.ts:time",
        "spend": "card_spend_v1.spend:value payments.card_id:key payments.ts:time",
    }


def test_a_clocks_keys_and_ticks_are_columns_of_the_clock() -> None:
    view = FeatureView("v", spine=Every("1h", card), features=[card_profile["limit"]])
    assert inputs(view, None) == {"limit": "card_profile_v1.limit:value every_1h.card_id:key every_1h.event_time:time"}


@pytest.mark.parametrize("group", [card_profile, card_spend, region_rate], ids=lambda g: g.name)
def test_every_feature_has_a_lineage(group: FeatureGroup) -> None:
    assert list(lineage(group).features) == list(group.features)


def test_an_sql_group_reads_what_its_query_reads() -> None:
    group = sql_group("loud", card, "select card_id, amount * 2 as twice from payments where abroad")
    made = lineage(group)
    assert told(made.features["twice"]) == "payments.amount:value"
    assert told(made.rows) == "payments.abroad:filter payments.card_id:key payments.received:time payments.ts:time"


def frame(payments):
    return payments[["card_id", "amount", "event_time", "known_at"]]


def test_a_function_on_dataframes_may_read_anything_until_it_is_declared_or_probed() -> None:
    group = feature_group(card, frame="pandas", features={"amount": "float64"})(frame)
    assert {r.kind for r in lineage(group).features["amount"]} == {"assumed"}
    assert {r.column for r in lineage(group).features["amount"]} == {*payments.columns, "ts", "received"}


def test_declared_reads_are_the_lineage_of_a_function_on_dataframes() -> None:
    reads = {"amount": ["payments.amount"], "rows": ["payments.abroad"]}
    group = feature_group(card, frame="pandas", features={"amount": "float64"}, reads=reads)(frame)
    made = lineage(group)
    assert told(made.features["amount"]) == "payments.amount:value"
    assert told(made.rows) == "payments.abroad:filter payments.card_id:key payments.received:time payments.ts:time"


def test_a_feature_left_out_of_the_declared_reads_may_read_anything() -> None:
    features = {"amount": "float64", "other": "float64"}
    group = feature_group(card, frame="pandas", features=features, reads={"amount": ["payments.amount"]})(frame)
    assert {r.kind for r in lineage(group).features["other"]} == {"assumed"}


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        ({"amuont": ["payments.amount"]}, "has no feature 'amuont'.*did you mean 'amount'"),
        ({"amount": ["payments.amuont"]}, "has no column 'payments.amuont'.*did you mean 'payments.amount'"),
        ({"amount": "payment.amount"}, "has no column 'payment.amount'.*did you mean 'payments.amount'"),
    ],
)
def test_declared_reads_must_exist(reads: Any, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        feature_group(card, frame="pandas", features={"amount": "float64"}, reads=reads)(frame)


def test_an_ibis_definition_needs_no_declared_reads() -> None:
    def plain(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(DeclarationError, match="declares reads=, but an Ibis definition says itself what it reads"):
        feature_group(card, reads={"amount": ["payments.amount"]})(plain)
