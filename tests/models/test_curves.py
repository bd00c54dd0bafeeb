"""Curves hold what a single number hides, in few points, for two classes and for more."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as theirs

from windrow.models.curves import confusion, curves_of, roc

NAMES = ["home", "draw", "away"]


def draw(rows: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(classes, size=rows)
    score = rng.random((rows, classes)) + 0.4 * (truth[:, None] == np.arange(classes))
    return truth.astype(float), score / score.sum(axis=1, keepdims=True)


def test_the_confusion_counts_are_those_of_scikit_learn():
    truth, answers = draw(500)
    expected = theirs.confusion_matrix(truth, answers.argmax(axis=1))
    assert expected.min() > 0  # every class is taken for every other
    assert confusion(truth, answers).tolist() == expected.tolist()
    told = curves_of("multiclass", truth, answers, classes=NAMES)["confusion"]
    assert told == dict(zip(NAMES, expected.astype(float).tolist(), strict=True))


def test_each_class_has_a_thinned_curve_against_all_others_of_the_area_that_scikit_learn_finds():
    truth, answers = draw(500)
    found = curves_of("multiclass", truth, answers, classes=NAMES)
    for place, name in enumerate(NAMES):
        curve = found[f"roc {name}"]
        assert len(curve["false"]) == 101
        area = theirs.roc_auc_score(truth == place, answers[:, place])
        assert theirs.auc(curve["false"], curve["true"]) == pytest.approx(area, abs=0.01)


def test_a_hundred_classes_have_fewer_points_each():
    truth, answers = draw(2_000, classes=100)
    found = curves_of("multiclass", truth, answers, classes=[f"c{n}" for n in range(100)])
    assert {len(curve["false"]) for name, curve in found.items() if name.startswith("roc ")} == {11}


def test_a_class_that_never_came_true_has_no_curve_and_a_line_of_zeros():
    truth, answers = draw(100)
    kept = truth < 2
    found = curves_of("multiclass", truth[kept], answers[kept], classes=NAMES)
    assert set(found) == {"roc home", "roc draw", "calibration", "confusion"}
    assert found["confusion"]["away"] == [0.0, 0.0, 0.0]


def test_the_calibration_of_several_classes_is_that_of_the_most_probable_one():
    answers = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
    found = curves_of("multiclass", np.array([2.0, 1.0]), answers, classes=NAMES)["calibration"]
    assert found == {"predicted": [0.5, 0.75], "observed": [0.0, 1.0], "rows": [1.0, 1.0]}


def test_the_curves_of_two_classes_are_what_they_were():
    found = curves_of("classification", np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.2, 0.9]))
    assert found == {
        "roc": {"false": [0.0, 0.0, 1.0], "true": [0.0, 0.5, 1.0]},
        "calibration": {"predicted": [0.2, 0.2, 0.9], "observed": [0.0, 1.0, 1.0], "rows": [1.0, 1.0, 1.0]},
    }
    assert [rate.tolist() for rate in roc(np.array([0.2, 0.2, 0.9]), np.array([0.0, 1.0, 1.0]))] == [
        [0.0, 0.0, 1.0],
        [0.0, 0.5, 1.0],
    ]
