"""Intervals hold what they promise: the truth, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from windrow.models.intervals import improvement, interval_of, turned
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


def test_a_turned_interval_starts_at_nothing():
    assert turned(0.1, np.array([0.3, 0.3, 0.3])) == (0.0, 0.0)


def test_rows_that_are_all_right_leave_the_accuracy_uncertain():
    truth = np.repeat([0.0, 1.0], 25)
    found = interval_of("accuracy", truth, truth)
    assert (found.value, round(found.low, 3), found.high) == (1.0, 0.929, 1.0)
