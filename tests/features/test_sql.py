"""SQL groups, checked when they are declared."""

from __future__ import annotations

from typing import Any

import pytest

from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.sql import sql_group
from windrow.testing import features_of, no_look_ahead, partition_invariant

card = Entity("card", card_id="int64")
payments = Source(
    "payments", event_time="ts", delay="1d",
    columns={"card_id": "int64", "shop_id": "int64", "amount": "float64", "note": "string", "n": "int32", "ok": "bool"},
)  # fmt: skip
shops = Source("shops", event_time="opened", columns={"shop_id": "int64", "margin": "float64"})
ROWS = [{"card_id": i % 2, "shop_id": 1, "amount": float(i), "ts": f"2026-01-0{1 + i}"} for i in range(6)]


@feature_group(card)
def spend(payments):
    return payments.select("card_id", cents=payments.amount * 100)


def group(query: str, name: str = "made", **options: Any) -> FeatureGroup:
    return sql_group(name, card, query, **options)


def test_a_query_knows_its_features_and_dtypes_without_data() -> None:
    made = group("SELECT card_id, amount * 2 AS twice, n, note, ok, ts AS seen FROM payments")
    assert made.features == {
        "twice": "float64", "n": "int32", "note": "string", "ok": "bool", "seen": "timestamp",
    }  # fmt: skip
    assert made.inputs == {"payments": payments}


def test_both_times_are_carried_though_the_query_names_neither() -> None:
    made = features_of(group("select card_id, amount from payments where amount > 4"), payments=ROWS)
    assert [(r["card_id"], r["amount"], r["event_time"].day, r["known_at"].day) for r in made] == [(1, 5.0, 6, 7)]


def test_times_are_carried_through_subqueries_and_windows() -> None:
    query = """
        with kept as (select card_id, amount, ts from payments where amount > 0)
        select card_id, sum(amount) over (partition by card_id order by ts) as total from kept
    """
    assert [r["total"] for r in features_of(group(query), payments=ROWS)] == [2.0, 6.0, 1.0, 4.0, 9.0]
    no_look_ahead(group(query), payments=ROWS)
    partition_invariant(group(query), payments=ROWS)


def test_a_join_says_where_its_times_come_from() -> None:
    query = "select card_id, amount * margin as gain{} from payments p join shops s using (shop_id)"
    with pytest.raises(DeclarationError, match="the result of feature group 'made' has no event_time"):
        group(query.format(""))
    made = group(query.format(", p.event_time, greatest(p.known_at, s.known_at) as known_at"))
    shop = [{"shop_id": 1, "margin": 0.5, "opened": "2025-01-01"}]
    assert features_of(made, payments=ROWS[:2], shops=shop)[1]["gain"] == 0.5


def test_a_query_over_a_group_reads_its_rows() -> None:
    assert features_of(group("select card_id, cents / 100 as euros from spend"), payments=ROWS[:1])[0]["euros"] == 0.0


def test_a_query_that_reads_the_future_is_caught() -> None:
    ahead = group("select card_id, lead(amount) over (partition by card_id order by ts) as following from payments")
    with pytest.raises(AssertionError, match="'following' of 'made' reads the future"):
        no_look_ahead(ahead, payments=ROWS)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("select card_id, amuont from payments", "the query of SQL group 'made' has no column 'amuont'.*did you mean 'amount'"),
        ("select card_id, amount from payment", "the module of SQL group 'made' has no source or group 'payment'.*did you mean"),
        ("selekt card_id from payments", "SQL group 'made' (cannot be read|is not one SELECT)"),
        ("drop table payments", "the query of SQL group 'made' is not one SELECT"),
        ("select card_id, amount from payments; select 1", "the query of SQL group 'made' is not one SELECT"),
        ("select card_id, uper(note) as x from payments", "the query of SQL group 'made' cannot run"),
        ("select amount from payments", "the result of feature group 'made' has no key column 'card_id'"),
        ("select card_id from payments", "feature group 'made' makes no feature"),
        ("select card_id, sum(amount) as x from payments group by card_id", "has no event_time"),
        ("select card_id, [amount] as x from payments", "column 'x' is array<float64>, which windrow does not store"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_right_is_refused(query: str, told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        group(query)


def test_the_fingerprint_does_not_change_with_layout_comments_and_case() -> None:
    one = group("select card_id, amount * 100 as cents from payments -- in cents")
    assert one.fingerprint == group("SELECT card_id,\n  amount*100 AS cents\nFROM payments").fingerprint
    assert one.fingerprint != group("select card_id, amount * 10 as cents from payments").fingerprint


def test_an_unknown_policy_or_version_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no policy on_bad 'drop'"):
        group("select card_id, amount from payments", on_bad="drop")
    with pytest.raises(DeclarationError, match="feature group 'made' has version 0"):
        group("select card_id, amount from payments", version=0)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("select card_id, random() as x from payments", "SQL group 'x' asks chance.*make it of the row's own columns"),
        ("select card_id, now() as x from payments", "SQL group 'x' asks the machine's clock.*measure from event_time"),
        ("select card_id, today() - ts::date as x from payments", "asks the machine's clock"),
        ("select card_id, amount from read_parquet('a.parquet')", "reads from READ_PARQUET.*declare a source for it"),
    ],
)
def test_a_query_reads_its_inputs_and_nothing_else(query: str, told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        sql_group("x", card, query)
