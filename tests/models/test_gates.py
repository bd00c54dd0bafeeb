"""A gate compares like with like, and what could not be computed does not pass."""

from __future__ import annotations

import numpy as np
import pytest

from windrow import Gate
from windrow.models.gates import check_metric
from windrow.models.metrics import auc, metrics_of


@pytest.mark.parametrize(
    ("gate", "value", "passed"),
    [
        (Gate("auc", at_least=0.8), 0.8, True),
        (Gate("auc", at_least=0.8), 0.79, False),
        (Gate("brier", at_most=0.2), 0.2, True),
        (Gate("brier", at_most=0.2), 0.21, False),
        (Gate("mae", of_baseline=0.8), 80.0, True),
        (Gate("mae", of_baseline=0.8), 81.0, False),
        (Gate("mae", at_most=100.0, of_baseline=0.8), 81.0, False),
    ],
)
def test_a_bar_is_cleared_at_its_own_value(gate, value, passed):
    assert check_metric(gate, {gate.metric: value}, {"mae": 100.0}).passed is passed


def test_a_metric_that_could_not_be_computed_fails_its_gate():
    result = check_metric(Gate("auc", at_least=0.5), {}, {})
    assert (result.passed, result.value, result.why) == (
        False,
        None,
        "auc could not be computed: the test rows do not define it",
    )


def test_a_share_of_a_baseline_that_could_not_be_computed_fails():
    result = check_metric(Gate("mae", of_baseline=0.8), {"mae": 1.0}, {})
    assert (result.passed, result.why) == (
        False,
        "mae is 1; the baseline's mae could not be computed, so there is nothing to compare with",
    )


def test_a_share_of_the_baseline_is_taken_on_the_rows_that_have_one():
    assert not check_metric(
        Gate("mae", of_baseline=0.8), {"mae": 10.0}, {"mae": 100.0, "model_mae": 90.0, "rows": 5.0}
    ).passed


def test_the_metrics_of_classes_are_those_of_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    truth = (rng.random(500) < 0.3).astype(float)
    answers = np.round(np.clip(truth * 0.3 + rng.random(500) * 0.6, 0.01, 0.99), 2)  # rounded, so that there are ties
    found = metrics_of("classification", truth, answers)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, answers))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, answers))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth, answers))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, answers > 0.5))


def test_the_metrics_of_numbers_are_those_of_scikit_learn():
    from sklearn import metrics

    truth, answers = np.array([1.0, 4.0, 9.0]), np.array([2.0, 4.0, 5.0])
    found = metrics_of("regression", truth, answers)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, answers))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, answers))
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, answers))


def test_one_class_has_no_auc():
    assert np.isnan(auc(np.zeros(3), np.array([0.1, 0.2, 0.3])))
    assert set(metrics_of("classification", np.zeros(3), np.array([0.1, 0.2, 0.3]))) == {
        "log_loss",
        "brier",
        "accuracy",
    }


def test_one_value_has_no_r2():
    assert set(metrics_of("regression", np.ones(3), np.ones(3))) == {"mae", "rmse"}


def test_no_row_has_no_metric():
    assert metrics_of("classification", np.empty(0), np.empty(0)) == {}
