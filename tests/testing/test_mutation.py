"""Spoiled rows find the checks that test nothing, and the faults that nothing tests for."""

from __future__ import annotations

from typing import Any

import pandera.ibis as pandera
import pytest

from windrow import Entity, FeatureGroup, Source, feature_group
from windrow.errors import DeclarationError, ValidationError
from windrow.testing import Mutation, mutate

card = Entity("card", card_id="int64")
COLUMNS = {"card_id": "int64", "lat": "float64", "lon": "float64", "amount": "float64", "kind": "string", "ok": "bool"}
payments = Source("payments", event_time="ts", columns=COLUMNS)
ROWS = [
    {"card_id": i, "lat": 48.0 + i, "lon": 2.0 + i, "amount": 10.0 + i, "kind": "ab"[i % 2], "ok": i % 2 == 0, "ts": f"2026-01-0{1 + i}"}
    for i in range(4)
]  # fmt: skip


def spend(payments):
    return payments.select("card_id", "lat", "lon", "amount", "kind", "ok")


def amount(payments):
    return payments.select("card_id", "amount")


def group(checks: Any = None) -> FeatureGroup:
    return feature_group(card, checks=checks)(spend)


class Sound(pandera.DataFrameModel):
    lat: float = pandera.Field(ge=-90, le=90)
    lon: float = pandera.Field(ge=-180, le=180)
    amount: float = pandera.Field(ge=0, le=1_000)
    kind: str = pandera.Field(isin=["a", "b"])

    class Config:
        unique = ["card_id"]  # noqa: RUF012 - pandera's own form

    @pandera.dataframe_check
    def north_of_east(cls, data: Any) -> Any:
        return data.table.lat > data.table.lon

    @pandera.dataframe_check
    def varies(cls, data: Any) -> Any:
        return data.table.amount.nunique() > 1

    @pandera.dataframe_check
    def of_this_year(cls, data: Any) -> Any:
        return data.table.event_time.year() == 2026


@pytest.fixture(scope="module")
def found() -> Mutation:
    return mutate(group(Sound), payments=ROWS)


def test_every_sound_check_can_be_made_to_fail(found: Mutation) -> None:
    assert found.never_fired == ()
    assert "varies" in found.checks
    assert "amount: in_range" not in found.checks


@pytest.mark.parametrize(
    ("mutant", "fired"),
    [
        ("amount half null", "amount is missing"),
        ("amount x 100", "amount: less_than_or_equal_to(1000)"),
        ("amount x -1", "amount: greater_than_or_equal_to(0)"),
        ("amount constant", "varies"),
        ("lat and lon swapped", "north_of_east"),
        ("kind of unknown text", "kind: isin(['a', 'b'])"),
        ("a row twice", "several rows for one (card_id, event_time, known_at)"),
        ("a row twice, a second apart", "(card_id) is not unique"),
        ("two years stale", "of_this_year"),
        ("card_id half null", "card_id is missing"),
        ("known before it happened", "known_at is before event_time"),
    ],
)
def test_each_fault_fires_the_check_that_is_meant_for_it(found: Mutation, mutant: str, fired: str) -> None:
    assert fired in found.fired(mutant)


def test_what_no_check_notices_is_named(found: Mutation) -> None:
    assert {"ok turned round", "amount / 100"} <= set(found.unnoticed)
    assert "amount x 100" not in found.unnoticed


def test_the_report_can_be_read(found: Mutation) -> None:
    assert "ok turned round: NOTHING FIRES" in str(found)
    assert str(found).endswith("checks that nothing makes fail: none")


class NeverNull(pandera.DataFrameModel):
    amount: float = pandera.Field(nullable=True)

    @pandera.check("amount")
    def present(cls, data: Any) -> Any:
        # Null compared with null is null, and not false.
        return data.table[data.key] == data.table[data.key]


class NeverMissing(pandera.DataFrameModel):
    amount: float = pandera.Field(nullable=True)

    @pandera.dataframe_check
    def no_nulls(cls, data: Any) -> Any:
        # How many rows there are, and not how many nulls.
        return data.table.amount.isnull().count() > 0


class NeverOut(pandera.DataFrameModel):
    amount: float = pandera.Field(ge=float("-inf"), nullable=True)


@pytest.mark.parametrize(
    ("checks", "named"),
    [(NeverNull, "amount: present"), (NeverMissing, "no_nulls"), (NeverOut, "amount: greater_than_or_equal_to(-inf)")],
)
def test_a_check_that_can_never_fail_is_named(checks: Any, named: str) -> None:
    only = feature_group(card, checks=checks)(amount)
    assert mutate(only, payments=ROWS[:3]).never_fired == (named,)


def test_a_group_without_checks_of_its_own_has_the_built_in_ones_and_all_can_fail() -> None:
    made = mutate(group(), payments=ROWS)
    assert made.checks == (
        "card_id is missing", "event_time is missing", "known_at is missing", "known_at is before event_time",
        "several rows for one (card_id, event_time, known_at)",
    )  # fmt: skip
    assert made.never_fired == ()


def test_rows_of_the_group_itself_can_be_given() -> None:
    rows = [{**{k: v for k, v in row.items() if k != "ts"}, "event_time": row["ts"]} for row in ROWS]
    assert mutate(group(), spend=rows).never_fired == ()


def test_rows_that_are_bad_already_are_refused() -> None:
    with pytest.raises(
        ValidationError, match="The rows given for 'spend' are not good.*amount: greater_than_or_equal_to"
    ):
        mutate(group(Sound), payments=[{**row, "amount": -1.0 - row["amount"]} for row in ROWS])


def test_two_checks_of_one_name_could_hide_each_other_and_are_refused() -> None:
    same = pandera.Check(lambda data: data.table[data.key] > 0, name="positive")
    other = pandera.Check(lambda data: data.table[data.key] < 1e9, name="positive")
    schema = pandera.DataFrameSchema({"amount": pandera.Column(float, [same, other])})
    with pytest.raises(
        DeclarationError, match="Two checks in .* of feature group 'amount' are called 'amount: positive'"
    ):
        mutate(feature_group(card, checks=lambda: schema)(amount), payments=ROWS)
