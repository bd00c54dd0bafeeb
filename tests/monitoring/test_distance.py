from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitoring.conftest import words
from windrow.monitoring.distance import (
    chance_distance,
    counted,
    jensen_shannon,
    null_rate_by_chance,
    unseen_share,
)

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=20).filter(any)


def distance_of(reference: np.ndarray, current: np.ndarray) -> float:
    return float(jensen_shannon(*counted(reference, current)))


def test_distance_of_a_third_against_two_thirds_is_the_one_of_the_textbook() -> None:
    # JS divergence of (1/3, 2/3) and (2/3, 1/3) is ln 2 - H(1/3) = 0.056633 nats.
    assert float(jensen_shannon(np.array([1, 2]), np.array([2, 1]))) == pytest.approx(0.237977, abs=1e-5)


@given(counts)
def test_distance_of_equal_shares_is_zero(reference: list[int]) -> None:
    array = np.array(reference)
    assert float(jensen_shannon(array, 7 * array)) == pytest.approx(0.0, abs=1e-7)


@given(counts)
def test_distance_is_symmetric_and_at_most_the_root_of_ln_2(reference: list[int]) -> None:
    a = np.array(reference)
    b = np.roll(a, 1)
    there, back = float(jensen_shannon(a, b)), float(jensen_shannon(b, a))
    assert there == pytest.approx(back)
    assert 0.0 <= there <= 0.832555


@settings(max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=200), st.data())
def test_every_value_is_counted_once(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    before, after = counted(np.array(values[:cut], "float32"), np.array(values[cut:], "float32"))
    assert (before.sum(), after.sum()) == (cut, len(values) - cut)
    assert before.shape == after.shape
    assert len(before) <= 20


def test_one_outlier_does_not_hide_a_shift() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=5000), rng.normal(1, 1, size=3000)
    after[0] = 1e6  # bins of equal width would put everything else into one
    assert distance_of(before, after) == pytest.approx(0.33, abs=0.02)


def test_a_shift_of_a_skewed_amount_is_as_visible_as_that_of_its_logarithm() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=5000), rng.normal(1, 1, size=3000)
    assert distance_of(np.exp(3 * before), np.exp(3 * after)) == distance_of(before, after)


def test_few_different_values_are_bins_of_their_own() -> None:
    before, after = counted(np.array([0.0, 1.0, 1.0, 3.0]), np.array([3.0, 2.0]))
    assert (before.tolist(), after.tolist()) == ([1, 2, 0, 1], [0, 0, 1, 1])


def test_rare_categories_are_counted_together() -> None:
    before, after = counted(words([f"id-{i}" for i in range(1000)]), words(["id-1"] * 10))
    assert (len(before), before.sum(), after.sum(), after.max()) == (50, 1000, 10, 10)


def test_chance_reaches_the_distance_of_the_chi_square_law() -> None:
    # 8 n JSD is about chi-square with k - 1 degrees, n = 1 / (1/3000 + 1/300): 36.19 at 0.99 for 19 degrees.
    before, after = np.full(20, 150), np.full(20, 15)
    expected = np.sqrt(36.19 / (8 / (1 / 3000 + 1 / 300)))
    assert chance_distance(before, after, tail=0.01) == pytest.approx(expected, rel=0.03)


def test_chance_is_the_same_each_time_it_is_asked() -> None:
    before, after = np.array([50, 60, 70]), np.array([5, 6, 7])
    assert chance_distance(before, after, tail=0.001) == chance_distance(before, after, tail=0.001)


def test_unseen_identifiers_are_explained_by_chance() -> None:
    rng = np.random.default_rng(0)
    before, after = ([f"id-{i}" for i in rng.integers(0, 3000, 1000)] for _ in range(2))
    share, chance = unseen_share(words(before), words(after), tail=0.001)
    assert 0.5 < share < chance


def test_an_unseen_plan_is_not_explained_by_chance() -> None:
    share, chance = unseen_share(words(["basic"] * 3000), words(["basic"] * 280 + ["gold"] * 20), tail=0.001)
    assert share == pytest.approx(20 / 300)
    assert chance == 0.0


def test_null_rates_differ_by_chance_as_a_binomial_does() -> None:
    # 2.326 standard deviations of the difference of two shares of 100 rows each, at one half.
    assert null_rate_by_chance(0.5, (100, 100), tail=0.01) == pytest.approx(2.326 * 0.0707, abs=1e-3)
