"""Feature groups, checked when they are declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis
import pytest

from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.external import external_group
from windrow.features.lineage import column_lineage
from windrow.features.place import Parquet
from windrow.features.sql import sql_group
from windrow.testing import features_of

card = Entity("card", card_id="int64")
payments = Source(
    "payments", event_time="ts", columns={"card_id": "int64", "shop_id": "int64", "amount": "float64", "note": "string"}
)
shops = Source("shops", event_time="ts", columns={"shop_id": "int64", "margin": "float64", "kind": "string"})


@feature_group(card, version=2, ttl="400d", owner="team:cards")
def spend(payments):
    """What a card spends."""
    return payments.select("card_id", "amount", cents=(payments.amount * 100).cast("int64"))


def of_spend(spend):
    return spend.select("card_id", euros=spend.cents / 100)


def declare(function: Callable[..., Any], **options: Any) -> FeatureGroup:
    return feature_group(options.pop("entity", card), **options)(function)


def test_a_group_knows_its_features_and_dtypes_without_data() -> None:
    assert spend.features == {"amount": "float64", "cents": "int64"}


def test_a_group_knows_its_name_key_ttl_and_text() -> None:
    assert (spend.table_name, spend.key, spend.ttl) == ("spend_v2", "features/spend_v2", 34_560_000_000_000)
    assert (spend.description, spend.owner, spend.online, spend.on_bad) == (
        "What a card spends.",
        "team:cards",
        True,
        "reject",
    )


def test_both_times_are_carried_though_the_definition_names_neither() -> None:
    assert spend.expression.columns == ("card_id", "amount", "cents", "event_time", "known_at")


def test_rows_that_are_told_apart_by_what_was_selected_stay_so() -> None:
    def shops_of_card(payments):
        first = payments.select("card_id", "shop_id").distinct()
        return payments.join(first, "card_id").select("card_id", "event_time", "known_at", other=first.shop_id)

    paid = [{"card_id": 1, "shop_id": 7, "ts": at} for at in (1, 2, 3)]
    assert [row["other"] for row in features_of(declare(shops_of_card), payments=paid)] == [7, 7, 7]


def test_a_group_reads_another_group() -> None:
    assert declare(of_spend).inputs == {"spend": spend}


def test_an_input_that_the_module_does_not_have_is_refused() -> None:
    def total(payment):
        return payment

    with pytest.raises(
        UnknownNameError,
        match="the module of feature group 'total' has no source or group 'payment'.*did you mean 'payments'",
    ):
        declare(total)


def test_a_group_cannot_read_itself() -> None:
    def circle(circle):
        return circle

    with pytest.raises(UnknownNameError, match="the module of feature group 'circle' has no source or group 'circle'"):
        declare(circle)


@pytest.mark.parametrize("read", [lambda t: t.amuont, lambda t: t["amuont"], lambda t: ibis._.amuont])
def test_a_column_that_the_input_does_not_have_is_refused(read: Callable[[Any], Any]) -> None:
    def wrong(payments):
        return payments.select("card_id", cents=read(payments))

    with pytest.raises(
        UnknownNameError, match="the input of feature group 'wrong' has no column 'amuont'.*did you mean 'amount'"
    ):
        declare(wrong)


def test_an_expression_that_ibis_cannot_build_is_refused() -> None:
    def wrong(payments):
        return payments.select("card_id", loud=payments.amount.upper())

    with pytest.raises(
        DeclarationError,
        match="feature group 'wrong' cannot be built: 'FloatingColumn' object has no attribute 'upper'",
    ):
        declare(wrong)


@pytest.mark.parametrize(("made", "told"), [(None, "None"), ("payments", "the text 'payments'"), ({}, "a dict")])
def test_a_function_that_returns_no_table_is_refused(made: Any, told: str) -> None:
    def wrong(payments):
        return made

    with pytest.raises(
        DeclarationError,
        match=f"what the function of feature group 'wrong' returns is {told}. Next: write return <an Ibis",
    ):
        declare(wrong)


def test_a_decorator_without_its_entity_is_refused() -> None:
    with pytest.raises(
        DeclarationError, match="the entity of a feature group is the function 'of_spend'.*Next: write @feature"
    ):
        feature_group(of_spend)  # type: ignore[arg-type]


def test_a_missing_key_is_refused() -> None:
    def keyless(payments):
        return payments.select("amount", card="card_id")

    with pytest.raises(
        UnknownNameError, match="the result of feature group 'keyless' has no key column 'card_id'.*did you mean 'card'"
    ):
        declare(keyless)


def test_a_key_of_another_dtype_is_refused() -> None:
    def text_key(payments):
        return payments.select("amount", card_id=payments.card_id.cast("string"))

    with pytest.raises(
        DeclarationError,
        match="feature group 'text_key': key 'card_id' is string, but entity 'card' says int64. Next: cast it",
    ):
        declare(text_key)


def test_a_dtype_that_cannot_be_stored_is_refused() -> None:
    def listing(payments):
        return payments.select("card_id", notes=ibis.array([payments.note]))

    with pytest.raises(
        DeclarationError, match="feature group 'listing': column 'notes' is array<string>, which windrow does not store"
    ):
        declare(listing)


def test_an_aggregation_that_loses_the_times_is_refused() -> None:
    def total(payments):
        return payments.group_by("card_id").agg(total=payments.amount.sum())

    with pytest.raises(
        DeclarationError,
        match="the result of feature group 'total' has no event_time. Next: keep event_time in every aggregation",
    ):
        declare(total)


def test_a_group_without_features_is_refused() -> None:
    def bare(payments):
        return payments.select("card_id")

    with pytest.raises(DeclarationError, match="feature group 'bare' makes no feature"):
        declare(bare)


def test_a_reserved_name_is_refused() -> None:
    def services(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(DeclarationError, match="feature group cannot be called 'services'"):
        declare(services)


def test_a_version_starts_at_one() -> None:
    def early(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(DeclarationError, match="feature group 'early' has version 0. Next: start at version=1"):
        declare(early, version=0)


def test_a_ttl_is_a_duration() -> None:
    def dated(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(DeclarationError, match="ttl= of feature group '[a-z_]*' is 'a year', which is not a duration"):
        declare(dated, ttl="a year")


def test_a_ttl_that_would_expire_everything_is_refused() -> None:
    told = r"has ttl='0d': every value would be expired at once. Next: write how old a value may be, such as \"30d\""

    def fleeting(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(DeclarationError, match=f"feature group 'fleeting' {told}"):
        declare(fleeting, ttl="0d")
    with pytest.raises(DeclarationError, match=f"SQL group 'fleeting' {told}"):
        sql_group("fleeting", card, "select card_id, amount from payments", ttl="0d")
    with pytest.raises(DeclarationError, match=f"external group 'fleeting' {told}"):
        external_group("fleeting", card, connect=Parquet("*.parquet"), event_time="ts", features={"eur": "float64"}, ttl="0d")  # fmt: skip


def test_an_unknown_policy_is_refused() -> None:
    def strict(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(
        UnknownNameError, match="feature group 'strict' has no policy on_bad 'drop'. It has 'quarantine', 'reject'"
    ):
        declare(strict, on_bad="drop")


def test_checks_that_name_no_schema_are_refused() -> None:
    def checked(payments):
        return payments.select("card_id", "amount")

    with pytest.raises(DeclarationError, match="'CardProfile' does not name a function"):
        declare(checked, checks="CardProfile")


def test_an_unknown_feature_offers_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="feature group 'spend' has no feature 'amout'.*did you mean 'amount'"):
        _ = spend["amout"]


def test_a_role_names_one_field_per_key() -> None:
    with pytest.raises(
        DeclarationError,
        match=r"group 'spend' has keys \('card_id',\), but of\(\) got \('a', 'b'\). Next: name one request field per key",
    ):
        spend.of("a", "b")


def test_a_role_prefixes_its_features() -> None:
    assert spend["cents"].of("payer", prefix="payer_").columns == {"payer_cents": "cents"}


def same(payments):
    return payments.select("card_id", "amount", cents=(payments.amount * 100).cast("int64"))


def test_the_fingerprint_changes_with_the_definition() -> None:
    def other(payments):
        return payments.select("card_id", "amount", cents=(payments.amount * 10).cast("int64"))

    assert declare(same).fingerprint != declare(other).fingerprint


def test_the_fingerprint_does_not_change_with_names_and_comments() -> None:
    def renamed(payments):
        """Another text."""
        columns = ["card_id", "amount"]
        return payments.select(*columns, cents=(payments.amount * 100).cast("int64"))

    assert declare(same).fingerprint == declare(renamed).fingerprint


def test_the_fingerprint_changes_with_an_inputs() -> None:
    late = Source("payments", event_time="ts", delay="1d", columns=payments.columns)
    group = declare(same)
    moved = FeatureGroup(group.name, card, 1, same, {"payments": late})
    assert moved.fingerprint != group.fingerprint


def test_the_fingerprint_changes_with_the_ttl() -> None:
    assert declare(same, ttl="1d").fingerprint != declare(same).fingerprint


def test_a_groups_rows_carry_the_times_of_their_source() -> None:
    made = features_of(spend, payments=[{"card_id": 1, "amount": 2.5, "ts": "2026-01-01T10:00:00Z"}])
    assert [(r["cents"], r["event_time"].hour, r["known_at"].hour) for r in made] == [(250, 10, 10)]


def test_a_delay_of_the_source_is_when_rows_are_known() -> None:
    slow = Source("slow", event_time="ts", delay="2d", columns={"card_id": "int64", "amount": "float64"})
    group = FeatureGroup("g", card, 1, lambda slow: slow.select("card_id", "amount"), {"slow": slow})
    made = features_of(group, slow=[{"card_id": 1, "amount": 2.5, "ts": "2026-01-01"}])
    assert made[0]["known_at"].day == 3


def test_rows_of_a_group_can_be_given_or_made() -> None:
    group = declare(of_spend)
    assert features_of(group, payments=[{"card_id": 1, "amount": 2.5, "ts": 0}])[0]["euros"] == 2.5
    assert features_of(group, spend=[{"card_id": 1, "cents": 70, "event_time": 0}])[0]["euros"] == 0.7


def test_a_column_left_out_is_null_and_an_unknown_one_refused() -> None:
    assert features_of(spend, payments=[{"card_id": 1, "ts": 0}])[0]["amount"] is None
    with pytest.raises(UnknownNameError, match="'payments' has no column 'amout'"):
        features_of(spend, payments=[{"card_id": 1, "amout": 1.0, "ts": 0}])


def test_rows_without_a_time_are_refused() -> None:
    with pytest.raises(DeclarationError, match="a row of 'payments' has no time. Next: give each row its ts"):
        features_of(spend, payments=[{"card_id": 1}])


def test_sources_without_rows_are_named() -> None:
    with pytest.raises(
        DeclarationError, match="'spend' reads 'payments', of which no rows are given. Next: add payments="
    ):
        features_of(spend)


def test_rows_of_what_the_group_does_not_read_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'spend' has no source or group 'payment'.*did you mean 'payments'"):
        features_of(spend, payment=[])


def lineage(function: Callable[..., Any]) -> dict[str, list[tuple[str, str]]]:
    return column_lineage(declare(function))


def test_lineage_names_the_columns_that_a_feature_is_computed_from() -> None:
    assert column_lineage(spend) == {
        "amount": [("sources/payments", "amount")],
        "cents": [("sources/payments", "amount")],
    }


def test_lineage_of_a_group_over_a_group_stops_at_its_table() -> None:
    assert lineage(of_spend) == {"euros": [("features/spend_v2", "cents")]}


def test_lineage_goes_through_filters_joins_and_windows() -> None:
    def margins(payments, shops):
        paid = payments.filter(payments.amount > 0)
        both = paid.join(shops.select("shop_id", "margin"), "shop_id")
        return both.select(
            "card_id", "event_time", "known_at",
            gain=both.amount * both.margin,
            mean=both.margin.mean().over(group_by=both.card_id),
        )  # fmt: skip

    assert lineage(margins) == {
        "gain": [("sources/payments", "amount"), ("sources/shops", "margin")],
        "mean": [("sources/shops", "margin")],
    }


def test_lineage_goes_through_aggregations_and_unions() -> None:
    def daily(payments):
        both = payments.union(payments)
        day = both.group_by("card_id").agg(total=both.amount.sum(), event_time=both.ts.max(), known_at=both.ts.max())
        return day.select("card_id", "total", "event_time", "known_at")

    assert lineage(daily) == {"total": [("sources/payments", "amount")]}


def test_lineage_of_a_rank_is_what_orders_it() -> None:
    def ranked(payments):
        window = ibis.window(group_by=payments.card_id, order_by=payments.amount)
        return payments.select("card_id", place=ibis.row_number().over(window))

    assert lineage(ranked) == {"place": [("sources/payments", "amount"), ("sources/payments", "card_id")]}


def test_a_definition_that_asks_the_clock_or_chance_is_refused() -> None:
    def age(payments):  # type: ignore[no-untyped-def]
        return payments.select("card_id", age=(ibis.now() - payments.event_time).cast("int64"))

    def luck(payments):  # type: ignore[no-untyped-def]
        return payments.select("card_id", luck=ibis.random())

    with pytest.raises(DeclarationError, match="feature group 'age' asks the machine's clock"):
        _ = feature_group(card)(age).features
    with pytest.raises(DeclarationError, match="feature group 'luck' asks chance"):
        _ = feature_group(card)(luck).features
