from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis
import pandera.ibis as pandera
import pyarrow as pa
import pytest

from windrow.errors import DeclarationError, SchemaError
from windrow.features.group import FeatureGroup, feature_group
from windrow.features.source import Source
from windrow.features.validation import validate
from windrow.schema import Entity

UTC = pa.timestamp("us", "UTC")
cards = Source("cards", event_time="ts", columns={"card_id": "int64", "limit": "float64", "plan": "string"})


def group_with(checks: Any = None) -> FeatureGroup:
    def card_profile(cards: Any) -> Any:
        return cards.select("card_id", "limit", "plan")

    return feature_group(Entity("card", card_id="int64"), checks=checks)(card_profile)


def rows(**columns: list[Any]) -> pa.Table:
    count = len(next(iter(columns.values())))
    given = {"card_id": list(range(count)), "limit": [1.0] * count, "plan": ["a"] * count}
    given |= {"event_time": list(range(count)), **columns}
    given = {"known_at": given["event_time"], **given}
    types = {"card_id": pa.int64(), "limit": pa.float64(), "plan": pa.string(), "event_time": UTC, "known_at": UTC}
    return pa.table({name: pa.array(given[name], kind) for name, kind in types.items()})


class Limits(pandera.DataFrameModel):
    limit: float = pandera.Field(ge=0, nullable=True)
    plan: str = pandera.Field(isin=["a", "b"], nullable=True)


def test_rows_that_pass_come_back_as_they_were() -> None:
    given = rows(limit=[3.0, None, 2.0])
    verdict = validate(group_with(Limits), given)
    assert (verdict.good.equals(given), verdict.bad.num_rows, verdict.reasons) == (True, 0, {})


def test_bad_rows_carry_every_reason_and_good_ones_keep_their_order() -> None:
    verdict = validate(group_with(Limits), rows(limit=[3.0, -1.0, 2.0, -2.0], plan=["a", "z", "b", "b"]))
    assert verdict.good.column("limit").to_pylist() == [3.0, 2.0]
    assert verdict.bad.select(["limit", "reasons"]).to_pylist() == [
        {"limit": -1.0, "reasons": "limit: greater_than_or_equal_to(0); plan: isin(['a', 'b'])"},
        {"limit": -2.0, "reasons": "limit: greater_than_or_equal_to(0)"},
    ]


def test_reasons_are_counted() -> None:
    verdict = validate(group_with(Limits), rows(limit=[-1.0, -2.0, 1.0], plan=["a", "z", "b"]))
    assert verdict.reasons == {"limit: greater_than_or_equal_to(0)": 2, "plan: isin(['a', 'b'])": 1}


def test_an_ibis_table_is_taken_as_well() -> None:
    table = ibis.duckdb.connect().create_table("given", rows(limit=[1.0, -1.0]))
    assert validate(group_with(Limits), table).bad.num_rows == 1


@pytest.mark.parametrize("name", ["card_id", "event_time", "known_at"])
def test_a_missing_key_or_time_is_bad_without_any_schema(name: str) -> None:
    verdict = validate(
        group_with(), rows(**{"card_id": [1, 2], "event_time": [1, 1], "known_at": [1, 1], name: [1, None]})
    )
    assert verdict.reasons == {f"{name} is missing": 1}


def test_known_before_it_happened_is_bad() -> None:
    verdict = validate(group_with(), rows(event_time=[5, 5], known_at=[4, 5]))
    assert verdict.reasons == {"known_at is before event_time": 1}


def test_two_rows_for_one_key_and_time_are_both_bad() -> None:
    verdict = validate(group_with(), rows(card_id=[1, 1, 2], event_time=[7, 7, 7], limit=[1.0, 2.0, 3.0]))
    assert (verdict.reasons, verdict.good.column("card_id").to_pylist()) == (
        {"several rows for one (card_id, event_time, known_at)": 2}, [2],
    )  # fmt: skip


def test_a_correction_that_was_known_later_is_no_duplicate() -> None:
    assert validate(group_with(), rows(card_id=[1, 1], event_time=[7, 7], known_at=[7, 9])).bad.num_rows == 0


def test_a_column_that_may_not_be_null_names_the_rows_that_are() -> None:
    class Present(pandera.DataFrameModel):
        limit: float

    verdict = validate(group_with(Present), rows(limit=[1.0, None, float("nan")]))
    assert (verdict.reasons, verdict.bad.column("card_id").to_pylist()) == ({"limit is missing": 2}, [1, 2])


def test_unique_of_one_column_is_checked_although_pandera_forgets_it() -> None:
    class Once(pandera.DataFrameModel):
        plan: str = pandera.Field(unique=True)

    verdict = validate(group_with(Once), rows(plan=["a", "b", "a"]))
    assert (verdict.reasons, verdict.bad.column("card_id").to_pylist()) == ({"(plan) is not unique": 2}, [0, 2])


def test_unique_of_several_columns_names_the_rows() -> None:
    class Once(pandera.DataFrameModel):
        plan: str
        limit: float

        class Config:
            unique = ["plan", "limit"]  # noqa: RUF012 - pandera's form

    verdict = validate(group_with(Once), rows(plan=["a", "a", "a"], limit=[1.0, 2.0, 1.0]))
    assert (verdict.reasons, verdict.bad.column("card_id").to_pylist()) == ({"(plan, limit) is not unique": 2}, [0, 2])


def test_a_check_of_ones_own_names_its_rows() -> None:
    class Even(pandera.DataFrameModel):
        limit: float

        @pandera.check("limit")
        def even(cls, data: pandera.IbisData) -> Any:
            return data.table[data.key] % 2 == 0

    verdict = validate(group_with(Even), rows(limit=[2.0, 3.0, 4.0]))
    assert (verdict.reasons, verdict.bad.column("card_id").to_pylist()) == ({"limit: even": 1}, [1])


def test_a_check_over_other_rows_names_the_right_row_whatever_order_the_engine_answers_in() -> None:
    class Rising(pandera.DataFrameModel):
        @pandera.dataframe_check
        def rising(cls, data: pandera.IbisData) -> Any:
            before = data.table["limit"].lag().over(ibis.window(order_by=data.table.event_time))
            return data.table.select(rising=(data.table["limit"] > before).fill_null(True))

    verdict = validate(group_with(Rising), rows(event_time=[3, 1, 2], limit=[5.0, 4.0, 3.0]))
    assert (verdict.reasons, verdict.bad.column("card_id").to_pylist()) == ({"rising": 1}, [2])


def test_a_check_of_the_whole_table_fails_every_row() -> None:
    class Many(pandera.DataFrameModel):
        @pandera.dataframe_check
        def many(cls, data: pandera.IbisData) -> Any:
            return data.table.count() > 10

    assert validate(group_with(Many), rows(limit=[1.0, 2.0])).reasons == {"many": 2}


class _WrongType(pandera.DataFrameModel):
    limit: int


class _WrongName(pandera.DataFrameModel):
    limits: float


class _Strict(pandera.DataFrameModel):
    limit: float

    class Config:
        strict = True


class _Coerced(pandera.DataFrameModel):
    limit: float = pandera.Field(coerce=True)


class _Broken(pandera.DataFrameModel):
    limit: float

    @pandera.check("limit")
    def broken(cls, data: pandera.IbisData) -> Any:
        return data.table.nothing > 1


@pytest.mark.parametrize(
    ("checks", "error", "told"),
    [
        (_WrongType, SchemaError, "do not fit its rows: expected column 'limit' to have type int64, got float64"),
        (_WrongName, SchemaError, "ask for a column 'limits'.*did you mean 'limit'"),
        (_Strict, SchemaError, "know nothing of 'card_id', 'plan'"),
        (_Coerced, DeclarationError, "asks for coerce, which pandera does not do on Ibis"),
        (_Broken, DeclarationError, "cannot run"),
        (lambda: 3, DeclarationError, "is int, not a pandera schema"),
    ],
)
def test_checks_that_cannot_judge_the_rows_are_refused(
    checks: Callable[..., Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        validate(group_with(checks), rows(limit=[1.0]))


def test_a_function_may_make_the_schema() -> None:
    def schema() -> pandera.DataFrameSchema:
        return pandera.DataFrameSchema({"limit": pandera.Column(float, pandera.Check.le(2), nullable=True)})

    assert validate(group_with(schema), rows(limit=[1.0, 3.0])).reasons == {"limit: less_than_or_equal_to(2)": 1}
