"""No compiled model is taken on trust."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from tests.models.making import MIXED, NUMBERS, columns, fitted, frame_of
from windrow.errors import ModelError
from windrow.features.arrow import to_pandas
from windrow.features.contract import canonical
from windrow.models.compile import compile_estimator
from windrow.models.runtime import SklearnModel

TREES = {"max_iter": 20, "max_leaf_nodes": 8}


def compiled(estimator, contract, *, missing=True):
    frame = frame_of(contract, missing=missing)
    return compile_estimator(fitted(estimator, frame), contract, frame)


def one_hot(**options):
    return make_column_transformer((OneHotEncoder(**options), ["plan"]), remainder="passthrough", sparse_threshold=0)


@pytest.mark.parametrize("estimator", [HistGradientBoostingClassifier(**TREES), HistGradientBoostingRegressor(**TREES)])
def test_boosted_trees_on_numbers_become_one_matrix_input(estimator):
    made = compiled(estimator, NUMBERS)
    assert (made.backend, made.layout, made.reason) == ("onnx", "matrix", "")
    assert max(made.parity["max_difference"].values()) <= 1e-5


def test_text_columns_become_one_input_each():
    made = compiled(make_pipeline(one_hot(handle_unknown="ignore"), HistGradientBoostingClassifier(**TREES)), MIXED)
    assert (made.backend, made.layout) == ("onnx", "columns")


def test_columns_picked_by_name_keep_their_names_when_all_are_numbers():
    picked = make_column_transformer((SimpleImputer(), ["b", "a"]))
    made = compiled(make_pipeline(picked, Ridge()), NUMBERS)
    assert (made.backend, made.layout) == ("onnx", "columns")


def test_parity_is_proven_on_ten_thousand_held_out_and_a_thousand_hostile_rows():
    rows = compiled(HistGradientBoostingClassifier(**TREES), NUMBERS).parity["rows"]
    assert rows["held out"] == 10_000
    assert rows["hostile"] >= 1_000


def test_the_answer_is_the_originals_for_every_kind_of_column():
    estimator = make_pipeline(one_hot(handle_unknown="ignore"), HistGradientBoostingClassifier(**TREES))
    made, frame = compiled(estimator, MIXED), frame_of(MIXED, seed=5)
    original = SklearnModel(estimator, task="classification").predict(frame)
    found = made.model(MIXED).predict(frame)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, original, rtol=0, atol=1e-5)


def test_a_forest_that_meets_missing_values_goes_past_onnx_to_treelite():
    made = compiled(RandomForestClassifier(10, random_state=0), NUMBERS)
    assert (made.backend, made.layout, list(made.models)) == ("treelite", "matrix", ["treelite", "sklearn"])
    assert "rows differently, by up to" in made.reason


def test_boosted_trees_behind_a_scaler_go_past_onnx_to_treelite():
    made = compiled(make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=60)), NUMBERS)
    assert made.backend == "treelite"
    assert "rows differently, by up to" in made.reason


@pytest.mark.parametrize(("column", "contract"), [("c", NUMBERS), ("plan", MIXED)])
def test_categories_of_histogram_boosting_go_past_onnx_to_treelite(column, contract):
    made = compiled(HistGradientBoostingClassifier(categorical_features=[column], **TREES), contract)
    assert made.backend == "treelite"
    assert max(made.parity["max_difference"].values()) <= 1e-12


def test_calibrated_histogram_boosting_that_onnx_gets_wrong_stays_in_scikit_learn():
    boosted = HistGradientBoostingClassifier(categorical_features=["c"], **TREES)
    made = compiled(CalibratedClassifierCV(boosted, cv=2), NUMBERS)
    assert (made.backend, made.batch_backend) == ("sklearn", "sklearn")
    assert "treelite: cannot be taken over by treelite" in made.reason


def test_every_proven_way_is_kept_and_the_fastest_scores_batches():
    made = compiled(make_pipeline(one_hot(handle_unknown="ignore"), HistGradientBoostingClassifier(**TREES)), MIXED)
    assert list(made.models) == list(made.backends) == ["onnx", "treelite", "sklearn"]
    speeds = {name: way.rows_per_second for name, way in made.backends.items()}
    assert speeds[made.batch_backend] == max(speeds.values())
    assert all(way.us_per_row > 0 for way in made.backends.values())


def test_a_class_decided_by_the_last_bit_is_not_left_to_the_compiled_model():
    frame = frame_of(NUMBERS, missing=False)
    model = fitted(ExtraTreesClassifier(10, max_depth=3, random_state=0), frame)  # ten trees can say exactly 0.5
    made = compile_estimator(model, NUMBERS, frame)
    original = SklearnModel(model, task="classification").predict(frame)
    assert ((made.model(NUMBERS).predict(frame) > 0.5) == (original > 0.5)).all()


def test_categorical_histogram_boosting_is_released_only_if_it_answers_alike():
    encoder = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["plan"]), remainder="passthrough"
    )
    estimator = make_pipeline(encoder, HistGradientBoostingClassifier(categorical_features=[0], **TREES))
    made, frame = compiled(estimator, MIXED), frame_of(MIXED, seed=5)
    original = SklearnModel(estimator, task="classification").predict(frame)
    np.testing.assert_allclose(made.model(MIXED).predict(frame), original, rtol=0, atol=1e-5)


def test_what_cannot_be_converted_stays_in_scikit_learn_and_says_so():
    made = compiled(make_pipeline(FunctionTransformer(np.square), HistGradientBoostingRegressor(**TREES)), NUMBERS)
    assert made.backend == "sklearn"
    assert "cannot be converted to ONNX" in made.reason
    assert "FunctionTransformer runs a function of its own" in made.reason


def test_text_whose_case_onnx_gets_wrong_stays_in_scikit_learn():
    """Lower-casing in ONNX Runtime knows no letter outside of ASCII where the machine's language is not there."""
    frame = frame_of(MIXED)
    places = {"x": "école", "y": "ville", "z": "mer"}
    frame["plan"] = np.array([places.get(p, p) for p in frame["plan"]], dtype=object)
    target = (frame["plan"] == "école").astype(float)
    model = make_pipeline(make_column_transformer((TfidfVectorizer(), "plan")), LogisticRegression())
    made = compile_estimator(model.fit(to_pandas(frame), target), MIXED, frame)
    assert made.backend == "sklearn"
    assert "rows differently" in made.reason


def test_columns_in_which_the_original_refuses_missing_values_are_recorded():
    made = compiled(LogisticRegression(), NUMBERS, missing=False)
    assert made.backend == "onnx"
    assert made.parity["refused_by_the_original"] == {"missing": ["a", "b", "c"], "infinite": ["a", "b", "c"]}


def test_a_category_that_the_original_refuses_is_not_answered_by_the_compiled_model():
    made = compiled(make_pipeline(one_hot(handle_unknown="error"), HistGradientBoostingClassifier(**TREES)), MIXED)
    unseen = canonical(MIXED, {"a": [1.0], "b": [1.0], "plan": ["never"]})
    assert made.parity["refused_by_the_original"]["unseen"] == ["plan"]
    with pytest.raises(ModelError, match="the model refuses a row"):
        made.model(MIXED).predict(unseen)


def test_no_held_out_row_is_an_error():
    frame = frame_of(NUMBERS)
    with pytest.raises(ModelError, match="no held-out row"):
        compile_estimator(
            fitted(Ridge(), frame_of(NUMBERS, missing=False)), NUMBERS, {n: v[:0] for n, v in frame.items()}
        )


def test_a_model_that_refuses_every_held_out_row_is_an_error():
    estimator = fitted(LogisticRegression(), frame_of(NUMBERS, missing=False))
    rows = canonical(NUMBERS, {**columns(20), "a": np.full(20, np.nan)})
    with pytest.raises(ModelError, match=r"refuses every held-out row.*Next: put an imputer"):
        compile_estimator(estimator, NUMBERS, rows)


def test_a_transformer_is_no_model():
    scaler = StandardScaler().fit([[1.0]])
    with pytest.raises(ModelError, match="StandardScaler is neither a classifier nor a regressor"):
        compile_estimator(scaler, NUMBERS, frame_of(NUMBERS))


class Doubling(Ridge):
    """An estimator of the project's own."""


def test_an_estimator_of_a_type_that_is_not_trusted_cannot_be_released():
    with pytest.raises(ModelError, match=r"types that windrow does not trust: 'tests\.models\.test_compile\.Doubling'"):
        compiled(make_pipeline(SimpleImputer(), FunctionTransformer(np.square), Doubling()), NUMBERS)
