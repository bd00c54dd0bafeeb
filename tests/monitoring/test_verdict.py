from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitoring.conftest import FIELDS, words
from windrow.errors import DataError, UnknownNameError
from windrow.features.contract import Frame
from windrow.models.service import Drift
from windrow.monitoring.verdict import ColumnVerdict, compare
from windrow.schema import Field

Draw = Callable[..., Frame]
X = (Field("x", "float64"),)
PLAN = (Field("plan", "string"),)


def words_of(verdicts: list[ColumnVerdict]) -> dict[str, str]:
    return {v.feature: v.verdict for v in verdicts}


def false_alarms(draw: Draw, rows: int, *, repetitions: int, effect: float = 0.2) -> int:
    monitor = Drift(effect=effect, min_rows=100)
    runs = (compare(draw(3000, 2 * s), draw(rows, 2 * s + 1), FIELDS, monitor) for s in range(repetitions))
    return sum(any(not v.passed for v in run) for run in runs)


@pytest.mark.parametrize("rows", [300, 3000])
def test_without_drift_99_of_100_reports_pass(draw: Draw, rows: int) -> None:
    assert false_alarms(draw, rows, repetitions=100) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("rows", [300, 3000])
def test_without_drift_98_of_100_reports_pass_even_where_any_effect_would_count(draw: Draw, rows: int) -> None:
    # Only the law of chance guards here; it allows one report in a hundred.
    assert false_alarms(draw, rows, repetitions=200, effect=0.001) <= 4


@pytest.mark.parametrize("rows", [300, 3000])
def test_a_shift_by_one_standard_deviation_is_caught_and_nothing_else(draw: Draw, rows: int) -> None:
    for seed in range(20):
        found = words_of(compare(draw(3000, seed), draw(rows, 1000 + seed, shift=1.0), FIELDS, Drift()))
        drifted = sorted(name for name, word in found.items() if word == "drift")
        assert drifted == ["amount", "load"]


def test_drift_names_the_distance_the_effect_and_what_chance_can_give() -> None:
    # Chance: 0.99 quantile of chi-square with one degree, 6.635, over 8 n; n = 1 / (1/1000 + 1/400).
    found = compare({"x": np.arange(1000) % 2.0}, {"x": np.ones(400)}, X, Drift())[0]
    assert found.why == "distance 0.465 is above 0.2, and above 0.054 that chance can give here"
    assert (found.verdict, found.passed, found.kind) == ("drift", False, "number")


@pytest.mark.parametrize("name", [f.name for f in FIELDS])
def test_a_feature_that_lost_all_values_is_missing(draw: Draw, name: str) -> None:
    window = draw(300, 1)
    window[name] = words([None] * 300) if window[name].dtype == object else np.full(300, np.nan, np.float32)
    found = words_of(compare(draw(3000, 0), window, FIELDS, Drift(min_rows=100)))
    assert found == {f.name: "missing" if f.name == name else "ok" for f in FIELDS}


def test_a_null_rate_that_rose_by_more_than_a_tenth_is_missing() -> None:
    window = {"x": np.where(np.arange(1000) < 150, np.nan, 1.0)}
    found = compare({"x": np.ones(1000)}, window, X, Drift())[0]
    assert (found.verdict, found.why) == ("missing", "15.0% of the rows have no value, 0.0% in the training data")


def test_a_null_rate_that_rose_by_less_than_a_tenth_is_ok() -> None:
    window = {"x": np.where(np.arange(1000) < 90, np.nan, 1.0)}
    assert compare({"x": np.ones(1000)}, window, X, Drift())[0].verdict == "ok"


def test_a_null_rate_that_chance_explains_is_ok() -> None:
    before = {"x": np.where(np.arange(200) < 100, np.nan, 1.0)}
    window = {"x": np.where(np.arange(60) < 37, np.nan, 1.0)}  # up by 0.117, of 60 rows
    assert compare(before, window, X, Drift(min_rows=10))[0].verdict == "ok"


def test_values_that_are_not_finite_count_as_missing() -> None:
    window = {"x": np.where(np.arange(1000) < 500, np.inf, 1.0)}
    assert compare({"x": np.ones(1000)}, window, X, Drift())[0].verdict == "missing"


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_an_unseen_category_is_drift(draw: Draw, share: float) -> None:
    window = draw(300, 1)
    window["plan"] = np.where(np.arange(300) < share * 300, "gold", window["plan"]).astype(object)
    assert words_of(compare(draw(3000, 0), window, FIELDS, Drift()))["plan"] == "drift"


def test_an_unseen_category_below_the_effect_is_named() -> None:
    window = {"plan": words(["basic"] * 280 + ["gold"] * 20)}
    found = compare({"plan": words(["basic"] * 3000)}, window, PLAN, Drift())[0]
    assert found.why == "6.7% of the values are categories that the training data does not have"


def test_an_unseen_number_code_is_drift() -> None:
    before, window = {"x": np.arange(3000) % 3.0}, {"x": np.where(np.arange(300) < 60, 9.0, np.arange(300) % 3.0)}
    assert compare(before, window, X, Drift())[0].verdict == "drift"


def test_a_window_with_few_rows_is_never_drift(draw: Draw) -> None:
    found = compare(draw(3000, 0), draw(199, 1, shift=5.0), FIELDS, Drift(min_rows=200))
    assert {v.verdict for v in found} == {"too few rows"}
    assert found[0].why == "the window has 199 rows, 200 are wanted"


def test_an_empty_window_is_too_few_rows(draw: Draw) -> None:
    assert {v.verdict for v in compare(draw(3000, 0), draw(0, 1), FIELDS, Drift())} == {"too few rows"}


def test_a_feature_with_few_values_among_enough_rows_is_not_judged() -> None:
    sparse = {"x": np.where(np.arange(1000) % 10 == 0, 1.0, np.nan)}
    found = compare(sparse, sparse, X, Drift(min_rows=200))[0]
    assert found.why == "only 100 of 1000 rows have a value, 200 are wanted"


def test_values_where_the_training_data_had_none_are_drift() -> None:
    found = compare({"x": np.full(500, np.nan)}, {"x": np.ones(500)}, X, Drift())[0]
    assert (found.verdict, found.distance) == ("drift", None)


def test_a_constant_that_stays_is_ok_and_one_that_changes_is_drift() -> None:
    same = compare({"x": np.ones(500)}, {"x": np.ones(500)}, X, Drift())[0]
    other = compare({"x": np.ones(500)}, {"x": np.zeros(500)}, X, Drift())[0]
    assert (same.verdict, other.verdict) == ("ok", "drift")


def test_ignored_features_are_left_out_of_the_report(draw: Draw) -> None:
    found = compare(draw(3000, 0), draw(300, 1, shift=1.0), FIELDS, Drift(ignore=["load", "amount"]))
    assert [v.feature for v in found] == ["gaps", "flag", "count", "plan", "city"]


def test_a_frame_without_a_feature_is_named_with_the_closest_one(draw: Draw) -> None:
    with pytest.raises(UnknownNameError, match=r"the window has no feature 'load'\. .* did you mean 'loads'"):
        compare(draw(10, 0), {"loads": np.ones(3)}, FIELDS, Drift())


def test_training_data_without_rows_is_an_error_with_the_next_step() -> None:
    with pytest.raises(DataError, match="has no row to compare with. Next: materialize the training dataset again"):
        compare({"x": np.ones(0)}, {"x": np.ones(500)}, X, Drift())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=60),
    st.lists(st.floats(width=32), min_size=0, max_size=60),
    st.integers(1, 50),
)
def test_no_numbers_make_it_fail(before: list[float], after: list[float], min_rows: int) -> None:
    sides = {"x": np.array(before, "float32")}, {"x": np.array(after, "float32")}
    found = compare(*sides, X, Drift(min_rows=min_rows))[0]
    assert found.verdict in ("ok", "drift", "missing", "too few rows")
    assert found.distance is None or 0 <= found.distance <= 0.8326


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=3), min_size=1, max_size=60),
    st.lists(st.none() | st.text(max_size=3), max_size=60),
)
def test_no_words_make_it_fail(before: list[str | None], after: list[str | None]) -> None:
    found = compare({"plan": words(before)}, {"plan": words(after)}, PLAN, Drift(min_rows=1))[0]
    assert found.verdict in ("ok", "drift", "missing", "too few rows")
