"""Sums and deviations of a window are right beside its own values, however great the values around it are."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.features.ranges import Limbs, Spans, Squares, deviation

NONE = np.zeros(0, np.int64)
# A key's values are of one size, and sizes of keys lie as far apart as float64 lets them.
SIZES = st.sampled_from([1e-300, 1e-30, 1e-3, 1.1, 1e5, 1e22, 3.4e38, 1e300])
CALM = settings(deadline=None, max_examples=200)


@st.composite
def keys(draw: st.DrawFn, sizes: st.SearchStrategy[float] = SIZES) -> list[list[float]]:
    near = st.floats(-10.0, 10.0).map(lambda value: round(value, 9))
    several = st.lists(st.tuples(sizes, st.lists(near, min_size=1, max_size=5)), min_size=1, max_size=8)
    return [[size * value for value in values] for size, values in draw(several)]


def each(values: list[list[float]]) -> tuple[np.ndarray, Spans]:
    """All values, and one window over each key's."""
    end = np.cumsum([len(v) for v in values])
    start = end - [len(v) for v in values]
    return np.concatenate([np.array(v) for v in values]), Spans(start, end, NONE, NONE, start)


@CALM
@given(keys())
def test_the_sum_of_a_key_is_right_beside_values_of_any_size(values: list[list[float]]) -> None:
    together, windows = each(values)
    for made, own in zip(Limbs.of(together).sums(windows).tolist(), values, strict=True):
        error = abs(Fraction(made) - sum(map(Fraction, own)))
        assert error <= Fraction(2) ** -50 * sum(abs(Fraction(v)) for v in own)


@CALM
@given(keys(st.sampled_from([1e-30, 1.1, 1e5, 1e22, 3.4e38, 1e100])))
def test_the_deviation_of_a_key_is_right_beside_values_of_any_size(values: list[list[float]]) -> None:
    together, windows = each(values)
    n = windows.lengths()
    made = deviation(n, Limbs.of(together).over(windows), Squares.of(together).over(windows))
    for said, own in zip(made.tolist(), values, strict=True):
        if len(own) < 2:
            assert math.isnan(said)
        else:
            assert said == pytest.approx(statistics.stdev(own), rel=1e-9, abs=1e-14 * max(map(abs, own)))


def test_a_value_of_one_key_takes_nothing_from_another_key() -> None:
    together, windows = each([[3.4e38], [1.1] * 1000, [5e-324, 5e-324]])
    assert Limbs.of(together).sums(windows).tolist() == [3.4e38, pytest.approx(1100.0), 1e-323]
