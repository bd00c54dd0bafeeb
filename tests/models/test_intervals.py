"""Intervals hold what they promise: the truth, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow import Calibration
from windrow.models.gates import check_calibration
from windrow.models.intervals import gap_interval, improvement, interval_of, size_interval
from windrow.models.metrics import metrics_of


def _classes(rng, n, skill=1.0):
    truth = (rng.random(n) < 0.3).astype(float)
    return truth, 1 / (1 + np.exp(-(skill * truth + rng.normal(size=n) - 1)))


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier", "accuracy"])
def test_the_interval_of_a_class_metric_holds_the_truth_in_95_of_100_samples(metric):
    rng = np.random.default_rng(1)
    whole = metrics_of("classification", *_classes(rng, 400_000))[metric]
    found = [interval_of(metric, *_classes(rng, 400)) for _ in range(400)]
    assert 0.92 <= np.mean([one.low <= whole <= one.high for one in found]) <= 0.98


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2"])
def test_the_interval_of_a_number_metric_holds_the_truth_in_95_of_100_samples(metric):
    rng = np.random.default_rng(2)

    def draw(n):
        truth = rng.normal(size=n)
        return truth, truth + rng.normal(scale=0.5, size=n)

    whole = metrics_of("regression", *draw(400_000))[metric]
    found = [interval_of(metric, *draw(400)) for _ in range(400)]
    assert 0.92 <= np.mean([one.low <= whole <= one.high for one in found]) <= 0.98


@pytest.mark.parametrize("metric", ["auc", "log_loss", "brier", "accuracy", "mae", "rmse"])
def test_the_value_in_an_interval_is_the_metric(metric):
    rng = np.random.default_rng(3)
    truth, answers = _classes(rng, 200)
    task = "regression" if metric in ("mae", "rmse") else "classification"
    assert interval_of(metric, truth, answers).value == pytest.approx(metrics_of(task, truth, answers)[metric])


def test_the_interval_of_an_auc_is_that_of_the_bootstrap():
    rng = np.random.default_rng(4)
    truth, answers = _classes(rng, 500)
    rows = (rng.integers(500, size=500) for _ in range(1_000))
    drawn = [metrics_of("classification", truth[r], answers[r])["auc"] for r in rows]
    found = interval_of("auc", truth, answers)
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_a_paired_difference_is_surer_than_two_intervals_are():
    rng = np.random.default_rng(5)
    truth, before = _classes(rng, 2_000)
    after = np.clip(before + 0.02 * (truth - 0.3), 0, 1)
    found = improvement("auc", truth, before, after)
    own = interval_of("auc", truth, before)
    assert found.low > 0
    assert found.high - found.low < (own.high - own.low) / 5


def test_an_improvement_is_positive_where_a_loss_falls():
    found = improvement("rmse", np.zeros(2), np.array([2.0, 2.0]), np.array([1.0, 1.0]))
    assert found.value == 1.0


@pytest.mark.parametrize(
    ("metric", "truth"), [("auc", np.zeros(3)), ("r2", np.ones(3)), ("mae", np.empty(0)), ("auc", np.empty(0))]
)
def test_rows_that_do_not_define_a_metric_give_no_interval(metric, truth):
    assert interval_of(metric, truth, np.full(len(truth), 0.5)) is None


@given(
    st.lists(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2, max_size=8)
)
def test_the_largest_difference_of_groups_lies_in_its_interval(groups):
    hits, rows = np.array(groups).T
    low, high = gap_interval(hits / rows, rows)
    assert 0 <= low <= np.ptp(hits / rows) <= high <= 1


@pytest.mark.parametrize(
    ("rates", "rows", "most"),
    [
        ([0.3, 0.3], 100, 0.97),  # the edge: no difference at all
        ([0.3, 0.4], 100, 0.985),
        ([0.01, 0.3], 50, 0.985),
        ([0.02, 0.02], 100, 1.0),  # of few hits an interval can only be too wide
        ([0.5] * 6, 100, 0.98),
        ([0.2, 0.3, 0.5, 0.5], 120, 1.0),  # of several differences only the largest one's upper edge can be missed
    ],
)
def test_the_interval_of_a_largest_difference_holds_the_truth_in_95_of_100_samples(rates, rows, most):
    rng, many = np.random.default_rng(6), np.full(len(rates), rows)
    found = [gap_interval(rng.binomial(rows, rates) / rows, many) for _ in range(1_000)]
    assert 0.935 <= np.mean([low <= np.ptp(rates) <= high for low, high in found]) <= most


def test_groups_that_are_treated_alike_have_an_interval_that_begins_at_nothing():
    rates = np.array([0.40000, 0.40067])  # a bootstrap turned about such a value ended below it
    low, high = gap_interval(rates, np.array([3_000, 3_000]))
    assert (low, round(high, 3)) == (0.0, 0.025)


@given(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_a_size_lies_in_its_interval(value, errors):
    low, high = size_interval(value, np.array(errors))
    assert 0 <= low <= value <= high


@pytest.mark.slow
@pytest.mark.parametrize(("tilt", "most"), [(0.0, 0.99), (0.3, 1.0)])
def test_the_interval_of_a_calibration_error_holds_the_truth_in_95_of_100_samples(tilt, most):
    rng, bar = np.random.default_rng(7), Calibration(0.1)

    def draw(n):
        answers = rng.uniform(0.05, 0.95, n)
        return answers, answers * (1 - tilt) + 0.5 * tilt

    answers, chances = draw(50_000)
    whole = check_calibration(bar, chances, answers).value
    found = []
    for _ in range(200):
        answers, chances = draw(300)
        found.append(check_calibration(bar, (rng.random(300) < chances).astype(float), answers))
    assert all(one.low <= one.value <= one.high for one in found)
    assert 0.91 <= np.mean([one.low <= whole <= one.high for one in found]) <= most


def test_rows_that_are_all_right_leave_the_accuracy_uncertain():
    truth = np.repeat([0.0, 1.0], 25)
    found = interval_of("accuracy", truth, truth)
    assert (found.value, round(found.low, 3), found.high) == (1.0, 0.929, 1.0)
