"""Shapley values: they add up to the model's own score, and are what Shapley's formula says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.making import MIXED, NUMBERS, contract_of, frame_of
from tests.serving.explained import bundle_of, kept_missing, one_hot, rows
from windrow.errors import RequestError
from windrow.features.arrow import to_pandas
from windrow.features.contract import Frame, canonical
from windrow.models.bundle import Bundle
from windrow.serving.explaining import shapley
from windrow.serving.explaining.columns import made_of
from windrow.serving.explaining.explain import Explaining, explain
from windrow.serving.explaining.explanation import Shapley
from windrow.serving.explaining.subject import Subject

pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names", "ignore:.*lbfgs failed")

VALUES = st.one_of(st.none(), st.floats(-50, 50, width=32))
ROW = st.fixed_dictionaries({"a": VALUES, "plan": st.sampled_from([None, "x", "y", "z", "never seen"]), "b": VALUES})
SEED, TREES = 0, 15


def _made(name: str) -> Any:
    from sklearn import ensemble, linear_model, tree
    from sklearn.pipeline import make_pipeline

    estimators = {
        "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=TREES, random_state=SEED),
        "boosted values": lambda: ensemble.GradientBoostingRegressor(n_estimators=TREES, random_state=SEED),
        "histograms": lambda: ensemble.HistGradientBoostingClassifier(max_iter=TREES, random_state=SEED),
        "histogram values": lambda: ensemble.HistGradientBoostingRegressor(max_iter=TREES, random_state=SEED),
        "histogram counts": lambda: ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=TREES),
        "forest": lambda: ensemble.RandomForestClassifier(TREES, random_state=SEED),
        "forest values": lambda: ensemble.ExtraTreesRegressor(TREES, random_state=SEED),
        "tree": lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=SEED),
        "logistic": lambda: linear_model.LogisticRegression(),
        "linear": lambda: linear_model.LinearRegression(),
        "counts": lambda: linear_model.PoissonRegressor(),
    }
    return make_pipeline(kept_missing() if name.startswith("hist") else one_hot(), estimators[name]())


CASES = [
    ("boosting", 2), ("boosting", 3), ("boosted values", 0), ("histograms", 2), ("histograms", 3),
    ("histogram values", 0), ("histogram counts", 0), ("forest", 2), ("forest", 3), ("forest values", 0),
    ("tree", 3), ("logistic", 2), ("logistic", 3), ("linear", 0), ("counts", 0),
]  # fmt: skip


@lru_cache
def _explaining(name: str, classes: int) -> Explaining:
    return Explaining(bundle_of(_made(name), classes=classes))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the side process; threads of small models wait for each other on a busy machine."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@pytest.mark.parametrize(("name", "classes"), CASES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(many=st.lists(ROW, min_size=1, max_size=8))
def test_base_and_contributions_add_up_to_the_models_own_score(name: str, classes: int, many: list[Any]) -> None:
    explaining = _explaining(name, classes)
    frame = canonical(MIXED, {f: [row[f] for row in many] for f in ("a", "plan", "b")})
    for row, made in enumerate(explaining.frame(frame, "shap")):
        assert isinstance(made, Shapley)
        assert made.method.startswith("exact for")
        assert np.ravel(made.raw) == pytest.approx(_own_score(explaining.subject, frame, row), abs=1e-6)
        total = np.array(made.base) + sum(np.array(c.contribution) for c in made.contributions)
        assert total == pytest.approx(np.array(made.raw), abs=1e-4)
        rolled = np.array(made.base) + sum(np.array(s.contribution) for s in made.sources)
        assert rolled == pytest.approx(np.array(made.raw), abs=1e-4)


def _own_score(subject: Subject, frame: Frame, row: int) -> Any:
    """What scikit-learn says of the row, by itself."""
    model = subject.estimator
    inputs = to_pandas({name: values[row : row + 1] for name, values in frame.items()})
    if subject.release.task == "regression":
        logged = type(model[-1]).__name__ == "PoissonRegressor" or getattr(model[-1], "loss", "") == "poisson"
        return np.log(model.predict(inputs)) if logged else model.predict(inputs)
    if hasattr(model, "decision_function"):
        return np.ravel(model.decision_function(inputs))
    found = model.predict_proba(inputs)[0]
    return found[1:] if subject.release.task == "classification" else found


def test_what_is_computed_from_the_same_source_columns_is_one_contribution() -> None:
    (made,) = _explaining("logistic", 2).frame(rows(frame_of(MIXED), 1), "shap")
    assert isinstance(made, Shapley)
    by_feature = {c.feature: c.contribution for c in made.contributions}
    found = {tuple(s.columns): (s.features, s.contribution) for s in made.sources}
    assert found[("rows.a",)] == (["a", "b"], pytest.approx(by_feature["a"] + by_feature["b"]))
    assert found[("plans.name", "plans.price")] == (["plan"], pytest.approx(by_feature["plan"]))


def test_values_of_a_tree_are_what_shapleys_formula_makes_of_its_conditional_means() -> None:
    from sklearn.tree import DecisionTreeRegressor

    bundle = bundle_of(DecisionTreeRegressor(max_depth=4, random_state=0), classes=0, contract=NUMBERS, missing=False)
    frame = rows(frame_of(NUMBERS, missing=False), 3)
    model = Subject(bundle).estimator
    for row, made in enumerate(explain(bundle, frame)):
        inputs = [float(frame[name][row]) for name in NUMBERS.feature_names]
        assert isinstance(made, Shapley)
        found = {c.feature: c.contribution for c in made.contributions}
        for place, name in enumerate(NUMBERS.feature_names):
            assert found[name] == pytest.approx(_by_formula(model.tree_, inputs, place), abs=1e-6)


def _by_formula(tree: Any, inputs: list[float], place: int) -> float:
    others = [i for i in range(len(inputs)) if i != place]
    total = 0.0
    for size in range(len(others) + 1):
        weight = factorial(size) * factorial(len(others) - size) / factorial(len(inputs))
        for known in combinations(others, size):
            total += weight * (_mean(tree, inputs, {*known, place}) - _mean(tree, inputs, set(known)))
    return total


def _mean(tree: Any, inputs: list[float], known: set[int], node: int = 0) -> float:
    left, right = tree.children_left[node], tree.children_right[node]
    if left < 0:
        return float(tree.value[node, 0, 0])
    feature = tree.feature[node]
    if feature in known:
        return _mean(tree, inputs, known, left if inputs[feature] <= tree.threshold[node] else right)
    shares = [tree.weighted_n_node_samples[n] / tree.weighted_n_node_samples[node] for n in (left, right)]
    return sum(share * _mean(tree, inputs, known, n) for share, n in zip(shares, (left, right), strict=True))


@pytest.mark.parametrize("kind", ["neighbours", "components", "calibrated", "without its original"])
def test_a_model_of_another_kind_is_explained_over_all_combinations(kind: str) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    made = {
        "neighbours": (one_hot(), KNeighborsClassifier()),
        "components": (one_hot(sparse_output=False), PCA(2), LogisticRegression()),
        "calibrated": (one_hot(), CalibratedClassifierCV(LogisticRegression(), cv=2)),
    }
    if kind == "without its original":
        bundle = bundle_of(LogisticRegression(), contract=NUMBERS, missing=False, original=False)
        frame = rows(frame_of(NUMBERS, missing=False), 2)
    else:
        bundle, frame = bundle_of(make_pipeline(*made[kind])), rows(frame_of(MIXED), 2)
    for found, answer in zip(explain(bundle, frame), bundle.predict(frame), strict=True):
        assert isinstance(found, Shapley)
        assert (found.scale, found.raw) == ("probability", pytest.approx(answer))
        total = found.base + sum(c.contribution for c in found.contributions)  # type: ignore[operator,misc]
        assert total == pytest.approx(answer, abs=1e-9)
        assert found.method.startswith("exact over all combinations")


def test_a_model_of_another_kind_with_many_features_says_what_can_be_explained() -> None:
    from sklearn.neighbors import KNeighborsRegressor

    contract = contract_of(**dict.fromkeys("abcdefghijklm", "float64"))
    random = np.random.default_rng(0)
    frame = canonical(contract, {name: random.normal(size=50) for name in contract.feature_names})
    bundle = _released(KNeighborsRegressor(), contract, frame)
    with pytest.raises(RequestError, match="neither a linear model nor one of trees, and has 13 features") as caught:
        explain(bundle, rows(frame, 1))
    assert caught.value.status == 501
    assert "explain=anchor" in caught.value.next_step


def _released(estimator: Any, contract: Any, frame: Frame) -> Bundle:
    from tests.models.making import release_of
    from windrow.models.bundle import open_bundle
    from windrow.models.compile import compile_estimator
    from windrow.models.packing import pack

    compiled = compile_estimator(estimator.fit(to_pandas(frame), frame["a"]), contract, frame)
    files = pack(compiled, contract, frame)
    return open_bundle(release_of(compiled, contract, files), files)


def test_a_release_without_a_sample_of_training_rows_is_compared_with_its_golden_rows() -> None:
    from sklearn.linear_model import LinearRegression

    frame = frame_of(NUMBERS, missing=False)
    (made,) = explain(_released(LinearRegression(), NUMBERS, frame), rows(frame, 1))
    assert isinstance(made, Shapley)
    assert made.background == "64 held-out rows of the release"
    assert made.sources == []


def test_without_shap_trees_say_what_to_install_and_linear_models_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "shap", None)
    frame = rows(frame_of(MIXED), 1)
    assert len(explain(_explaining("logistic", 2).subject.bundle, frame)) == 1
    with pytest.raises(RequestError, match="need the package shap") as caught:
        explain(_explaining("boosting", 2).subject.bundle, frame)
    assert (caught.value.status, caught.value.kind) == (501, "not-installed")
    assert caught.value.next_step == "install windrow[explain] where the service runs"


def test_boosting_that_starts_from_another_model_is_not_explained_wrongly() -> None:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import LinearRegression

    model = GradientBoostingRegressor(init=LinearRegression(), n_estimators=5)
    bundle = bundle_of(model, classes=0, contract=NUMBERS, missing=False)
    (made,) = explain(bundle, rows(frame_of(NUMBERS, missing=False), 1))
    assert isinstance(made, Shapley)
    assert made.method.startswith("exact over all combinations")


def test_values_that_do_not_add_up_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapley, "TOLERANCE", -1.0)
    with pytest.raises(RequestError, match="do not add up to its score"):
        explain(_explaining("linear", 0).subject.bundle, rows(frame_of(MIXED), 1))


def test_columns_behind_nested_preprocessing_are_led_back_to_their_features() -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import FeatureUnion, make_pipeline
    from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, OneHotEncoder, PolynomialFeatures

    frame = to_pandas(frame_of(MIXED, missing=False))
    both = FeatureUnion(
        [("bins", KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf")), ("log", FunctionTransformer(np.log1p))]
    )
    step = ColumnTransformer(
        [
            ("plan", OneHotEncoder(), ["plan"]),
            ("b", make_pipeline(SimpleImputer(), both), ["b"]),
            ("mixed", PCA(1), ["a", "b"]),
            ("powers", PolynomialFeatures(2, include_bias=False), ["a", "b"]),
            ("rest", "drop", []),
        ],
        remainder="passthrough",
    ).fit(frame)
    found = [sorted(parts) for parts in made_of([step], 3)]
    assert len(found) == step.transform(frame).shape[1]
    assert found == [[1], [1], [1], [2], [2], [2], [2], [0, 2], [0], [2], [0], [0, 2], [2]]
