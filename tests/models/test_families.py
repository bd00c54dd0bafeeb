"""One model of every family: which backend serves it, how far it is from its original, and how long a row takes.

pytest -s tests/models/test_families.py        # prints the table
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import TimeSeriesSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tests.models.making import MIXED, NUMBERS, frame_of, labels
from windrow.features.arrow import to_pandas
from windrow.models.compile import compile_estimator
from windrow.models.runtime import SklearnModel

TREES = {"max_iter": 15, "max_leaf_nodes": 8, "random_state": 0}
FOREST = {"n_estimators": 10, "max_depth": 5, "random_state": 0}


def on_text(encoder, **options):
    return make_column_transformer((encoder, ["plan"]), remainder="passthrough", **options)


def one_hot():
    return on_text(OneHotEncoder(handle_unknown="ignore"), sparse_threshold=0)


def ordinal():
    return on_text(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan))


def words():
    return make_column_transformer((TfidfVectorizer(token_pattern="[a-z]"), "plan"), remainder="drop")


def stacked():
    parts = [("tree", DecisionTreeClassifier(max_depth=3, random_state=0)), ("linear", LogisticRegression())]
    return StackingClassifier(parts, cv=2)


# family -> (estimator, contract, missing values in the data, classes, the backend that must serve it)
FAMILIES = {
    "linear": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), NUMBERS, True, 2, "onnx"),
    "tree": (DecisionTreeClassifier(max_depth=4, random_state=0), NUMBERS, False, 2, "treelite"),
    "forest, with NaN": (RandomForestClassifier(**FOREST), NUMBERS, True, 2, "treelite"),
    "extra trees, with NaN, regression": (ExtraTreesRegressor(**FOREST), NUMBERS, True, 0, "treelite"),
    "boosted": (GradientBoostingClassifier(n_estimators=15, random_state=0), NUMBERS, False, 2, "onnx"),
    "boosted, with NaN": (HistGradientBoostingClassifier(**TREES), NUMBERS, True, 2, "onnx"),
    "boosted, with categories as numbers": (
        HistGradientBoostingClassifier(categorical_features=["c"], **TREES), NUMBERS, True, 2, "treelite",
    ),
    "boosted, with categories as text": (
        HistGradientBoostingClassifier(categorical_features=["plan"], **TREES), MIXED, True, 2, "treelite",
    ),
    "boosted, with one-hot categories": (
        make_pipeline(one_hot(), HistGradientBoostingClassifier(**TREES)), MIXED, True, 2, "onnx",
    ),
    "boosted, with encoded categories": (
        make_pipeline(ordinal(), HistGradientBoostingClassifier(categorical_features=[0], **TREES)), MIXED, True, 2, "",
    ),
    "boosted, behind a scaler": (
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=60, random_state=0)), NUMBERS, True, 2, "treelite",
    ),
    "nearest neighbour": (make_pipeline(SimpleImputer(), KNeighborsClassifier(5)), NUMBERS, True, 2, ""),
    "neural network": (
        make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)), NUMBERS, True, 2, "onnx",
    ),
    "calibrated": (CalibratedClassifierCV(HistGradientBoostingClassifier(**TREES), cv=2), NUMBERS, True, 2, ""),
    "calibrated, with categories": (
        CalibratedClassifierCV(HistGradientBoostingClassifier(categorical_features=["c"], **TREES), cv=2), NUMBERS, True, 2, "sklearn",
    ),
    "calibrated, in order of time": (
        CalibratedClassifierCV(LogisticRegression(), cv=TimeSeriesSplit(3)), NUMBERS, False, 2, "onnx",
    ),
    "multi-class, linear": (LogisticRegression(), NUMBERS, False, 3, "onnx"),
    "multi-class, boosted": (HistGradientBoostingClassifier(**TREES), NUMBERS, True, 3, "onnx"),
    "multi-class, forest, with NaN": (RandomForestClassifier(**FOREST), NUMBERS, True, 3, "treelite"),
    "regression, linear": (make_pipeline(SimpleImputer(), Ridge()), NUMBERS, True, 0, "onnx"),
    "regression, boosted": (HistGradientBoostingRegressor(**TREES), NUMBERS, True, 0, "onnx"),
    "text": (make_pipeline(words(), LogisticRegression()), MIXED, True, 2, "onnx"),
    "stacking": (make_pipeline(SimpleImputer(), stacked()), NUMBERS, True, 2, ""),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # few steps are enough here
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_served_by_a_model_that_answers_as_its_original(family, record_property):
    estimator, contract, missing, classes, backend = FAMILIES[family]
    frame = frame_of(contract, missing=missing)
    estimator.fit(to_pandas(frame), labels(frame, classes))
    made = compile_estimator(estimator, contract, frame)
    other = frame_of(contract, 500, missing=missing, seed=7)
    original = SklearnModel(estimator, task=made.task).predict(other)
    found = made.model(contract).predict(other)
    assert found.shape == ((500, classes) if classes > 2 else (500,))
    np.testing.assert_allclose(found, original, rtol=1e-5, atol=1e-5)
    assert made.backend == backend or not backend
    told = {name: f"{way.us_per_row:,.0f} us, {max(way.max_difference.values()):.1g} off" for name, way in made.backends.items()}  # fmt: skip
    print(f"\n{family}: {made.backend}; batch {made.batch_backend}; {told}; {made.reason}")
    record_property("served by", made.backend)
    record_property("measured", str(told))
