"""The tools that users are given: each passes what is right, and fails on a definition with the fault planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis
import numpy as np
import pytest

from windrow import (
    Entity,
    FeatureGroup,
    FeatureView,
    Parquet,
    Source,
    agg,
    aggregate,
    external_group,
    feature_group,
    sql_group,
)
from windrow.errors import DeclarationError, SchemaError, UnknownNameError
from windrow.testing import features_of, no_look_ahead, order_invariant, partition_invariant, rerun_changes_nothing

card, shop = Entity("card", card_id="int64"), Entity("shop", shop_id="int64")
COLUMNS = {
    "payment_id": "int64",
    "card_id": "int64",
    "shop_id": "int64",
    "amount": "float64",
    "kind": "string",
    "n": "int64",
    "ok": "bool",
}
payments = Source("payments", id="payment_id", event_time="ts", columns=COLUMNS)
late = Source("late", id="payment_id", event_time="ts", delay="1h", columns=COLUMNS)
shops = Source("shops", event_time="opened", columns={"shop_id": "int64", "rate": "float64"})
ROWS = [
    {"payment_id": i, "card_id": i % 3, "shop_id": i % 2, "amount": float(i * i % 7), "kind": "ab"[i % 2], "n": i, "ok": i % 2 == 0, "ts": f"2026-01-{1 + i:02}"}
    for i in range(7)
]  # fmt: skip
RATES = [{"shop_id": s, "rate": 0.1 * s, "opened": "2025-01-01"} for s in (0, 1)]


def profile(payments):
    so_far = ibis.cumulative_window(group_by=payments.card_id, order_by=payments.ts)
    return payments.select("card_id", mean=payments.amount.mean().over(so_far), kind=payments.kind)


def rated(payments, shops):
    both = payments.join(shops, "shop_id")
    return both.select("card_id", payments.event_time, payments.known_at, fee=payments.amount * shops.rate)


spend = aggregate("spend", payments, by=card, features={"sum_7d": agg.sum("amount", "7d"), "n_7d": agg.count("7d")})
limits = external_group(
    "limits", card, connect=Parquet("limits.parquet"), event_time="since", features={"limit": "float64"}
)
LIMITS = [{"card_id": c, "limit": 100.0 + c, "event_time": f"2026-01-{d:02}"} for c in range(3) for d in (1, 6)]


def group(function: Callable[..., Any] = profile) -> FeatureGroup:
    return feature_group(card)(function)


LAWS = [no_look_ahead, order_invariant, partition_invariant, rerun_changes_nothing]


@pytest.mark.parametrize("law", LAWS)
def test_what_is_right_passes_every_law(law: Callable[..., None]) -> None:
    law(group(), payments=ROWS)
    law(group(rated), payments=ROWS, shops=RATES)
    law(sql_group("cents", card, "select card_id, amount * 100 as cents from payments"), payments=ROWS)


@pytest.mark.parametrize("law", LAWS)
def test_aggregates_external_groups_and_views_of_them_pass_every_law(law: Callable[..., None]) -> None:
    law(spend, payments=ROWS)
    law(limits, limits=LIMITS)
    view = FeatureView("v", spine=payments, features=[spend, limits, group(), payments.amount])
    law(view, payments=ROWS, limits=LIMITS)


def test_an_entity_found_through_another_group_passes() -> None:
    @feature_group(card)
    def favourite(payments):
        return payments.select("card_id", favourite_shop=payments.shop_id)

    @feature_group(shop)
    def fees(shops):
        return shops.select("shop_id", "rate")

    view = FeatureView("v", spine=payments, features=[fees.of(favourite.favourite_shop), favourite])
    for law in (no_look_ahead, order_invariant):
        law(view, payments=ROWS, shops=RATES)


def test_values_of_an_aggregate_group_are_told_at_each_event() -> None:
    made = features_of(
        spend, payments=[{"payment_id": i, "card_id": 1, "amount": 5.0, "ts": f"2026-01-0{1 + i}"} for i in range(3)]
    )
    assert [row["n_7d"] for row in made] == [0, 1, 2]


# No look-ahead


@pytest.mark.parametrize("column", ["n", "kind", "ok", "amount"])
def test_a_column_of_any_dtype_read_from_the_future_is_caught(column: str) -> None:
    def ahead(payments):
        by_time = ibis.window(group_by=payments.card_id, order_by=payments.ts)
        return payments.select("card_id", following=payments[column].lead().over(by_time))

    with pytest.raises(AssertionError, match="'following' of 'ahead' reads the future"):
        no_look_ahead(group(ahead), payments=ROWS)


@pytest.mark.parametrize("column", ["n", "kind", "amount"])
def test_a_changed_value_alone_is_enough_to_be_caught(column: str) -> None:
    # The rows are all there in both cases, only their values differ: nothing but the replaced future shows it.
    def largest(payments):
        known = payments.ts < ibis.timestamp("2026-01-02 00:00:00", timezone="UTC")
        last = payments[column].max().over(ibis.window(group_by=payments.card_id))
        return payments.filter(~known | (payments.n >= 0)).select("card_id", last=last)

    with pytest.raises(AssertionError, match="'last' of 'largest' reads the future"):
        no_look_ahead(group(largest), payments=ROWS)


def test_an_external_group_whose_rows_are_given_is_part_of_the_proof() -> None:
    @feature_group(card)
    def newest(limits):
        return limits.select("card_id", share=limits["limit"] / limits["limit"].max())

    newest.function.__globals__["limits"] = limits
    with pytest.raises(AssertionError, match="'share' of 'v' reads the future"):
        no_look_ahead(
            FeatureView("v", spine=payments, features=[newest]),
            payments=ROWS,
            limits=[*LIMITS[:5], {**LIMITS[5], "limit": 999.0}],
        )


def test_a_spine_whose_rows_are_known_late_is_no_look_ahead() -> None:
    def lagging(late):
        so_far = ibis.cumulative_window(group_by=late.card_id, order_by=late.ts)
        return late.select("card_id", mean=late.amount.mean().over(so_far))

    no_look_ahead(FeatureView("v", spine=late, features=[group(lagging)]), late=ROWS)


# Order, partitions, running again


def first_seen(payments):
    return payments.mutate(first=payments.amount.first().over(ibis.window(group_by=payments.card_id))).select(
        "card_id", "first"
    )


def test_the_first_of_rows_in_no_order_is_caught() -> None:
    with pytest.raises(AssertionError, match="'first' of 'first_seen' depends on the order of rows: at .* it is .* or"):
        order_invariant(group(first_seen), payments=ROWS)
    with pytest.raises(AssertionError, match="'first' of 'v' depends on the order of rows"):
        order_invariant(FeatureView("v", spine=payments, features=[group(first_seen)]), payments=ROWS)


def over_all(payments):
    so_far = ibis.cumulative_window(order_by=payments.ts)
    return payments.select("card_id", mean=payments.amount.mean().over(so_far))


def test_a_window_over_every_entity_is_caught() -> None:
    with pytest.raises(AssertionError, match="'mean' of 'over_all' depends on rows of other entities: at .* it is"):
        partition_invariant(group(over_all), payments=ROWS)
    with pytest.raises(AssertionError, match="'mean' of 'over_all' depends on rows of other entities"):
        partition_invariant(FeatureView("v", spine=payments, features=[group(over_all)]), payments=ROWS)


def test_inputs_without_the_keys_of_the_entity_cannot_be_split() -> None:
    def renamed(payments):
        return payments.select("amount", shop=payments.shop_id)

    made = feature_group(Entity("place", shop="int64"))(renamed)
    with pytest.raises(DeclarationError, match=r"no input of 'renamed' has the keys \['shop'\]"):
        partition_invariant(made, payments=ROWS)


def clock(payments):
    return payments.select("card_id", age=(ibis.now().cast("timestamp('UTC')") - payments.ts).cast("string"))


def test_a_definition_that_says_something_else_each_time_is_caught() -> None:
    def luck(payments):
        drawn = payments.assign(luck=np.random.default_rng().random(len(payments)))
        return drawn[["card_id", "luck", "event_time", "known_at"]]

    lucky = feature_group(card, frame="pandas", features={"luck": "float64"})(luck)
    with pytest.raises(AssertionError, match="computing 'luck' again over the same rows wrote 7 of 7 rows to the lake"):
        rerun_changes_nothing(lucky, payments=ROWS)
    with pytest.raises(AssertionError, match="computing 'luck' again"):
        rerun_changes_nothing(FeatureView("v", spine=payments, features=[lucky]), payments=ROWS)


# What is given


def test_a_given_value_that_its_dtype_cannot_hold_is_refused() -> None:
    with pytest.raises(SchemaError, match="column 'n', row 1: 1.7 cannot be int64 without changing"):
        features_of(group(), payments=[{**ROWS[0], "n": 1.7}])
    with pytest.raises(SchemaError, match="A given row of 'payments' holds a value that its dtype cannot"):
        features_of(group(), payments=[{**ROWS[0], "n": 1}, {**ROWS[0], "n": "one"}])


def test_rows_of_an_external_group_have_to_be_given() -> None:
    view = FeatureView("v", spine=payments, features=[limits])
    with pytest.raises(
        DeclarationError, match=r"'v' reads 'limits', of which no rows are given. Next: add limits=\[...\]"
    ):
        no_look_ahead(view, payments=ROWS)
    with pytest.raises(UnknownNameError, match="'limits' has no column 'limt'"):
        no_look_ahead(limits, limits=[{"card_id": 1, "limt": 1.0, "event_time": 0}])
