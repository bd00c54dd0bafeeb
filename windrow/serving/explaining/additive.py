"""Exact Shapley values of a fitted final estimator: trees by shap's TreeExplainer, linear models in closed form.

Trees: Lundberg et al., "From local explanations to global understanding with explainable AI for trees" (2020),
path-dependent: a feature that is not known goes both ways, in the proportions of the training rows that did. So trees
need no background rows, and none of anybody's data. Linear models: Štrumbelj and Kononenko (2014): a coefficient times
the distance from the background's mean, which is exact where features are changed one by one.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.errors import RequestError
from windrow.models.release import Task

Numbers = NDArray[np.float64]

TREES = "exact for trees, path-dependent (Lundberg et al. 2020)"
LINEAR = "exact for linear models, interventional (Štrumbelj and Kononenko 2014)"
_LOG = frozenset({"poisson", "gamma"})  # losses whose models answer with the exponential of their score
_EXPONENTIAL = frozenset({"PoissonRegressor", "GammaRegressor"})
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
_AVERAGED = (
    "RandomForestClassifier",
    "RandomForestRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
)

KNOWN = "histogram and gradient boosting, forests, trees and linear models of scikit-learn"


class Parts(NamedTuple):
    """Contributions of n rows: base (outputs,), values (n, columns, outputs)."""

    base: Numbers
    values: Numbers


class Additive:
    """The exact values of one fitted estimator.

    Parameters
    ----------
    estimator
        Not a pipeline: what is behind the preprocessing.
    background
        Rows behind the preprocessing, float64 of shape (n, columns).
    task
        Decides which outputs there are.

    Raises
    ------
    UnsupportedError
        If it is neither of trees nor linear.
    RequestError
        501 if it is of trees and shap is not installed.

    Attributes
    ----------
    method
        How, with the paper.
    scale
        What the raw score is.
    """

    def __init__(self, estimator: Any, background: Numbers, *, task: Task) -> None:
        self._estimator, self._task = estimator, task
        self._linear = _is_linear(estimator)
        self.method, self.scale = (LINEAR if self._linear else TREES), _scale(estimator, task)
        if self._linear:
            self._mean = background.mean(axis=0)
            self._slopes = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
            self._start = self._slopes @ self._mean + np.atleast_1d(np.asarray(estimator.intercept_, dtype=np.float64))
            return
        trees, self._dtype = _trees(estimator)
        self._explainer = _tree_explainer(trees)
        # What boosting starts from: the same for every row, so that one row tells it.
        seen = background[:1]
        self._offset = np.zeros(1)
        made = self.parts(seen)
        self._offset = (self.raw(seen) - made.base - made.values.sum(axis=1))[0]

    def raw(self, inputs: Numbers) -> Numbers:
        """Return the score that the estimator itself gives, shape (n, outputs)."""
        answers = _raw(self._estimator, inputs, task=self._task)
        if self.scale.startswith("log of"):
            answers = np.log(answers)
        return answers if answers.ndim == 2 else answers.reshape(-1, 1)

    def parts(self, inputs: Numbers) -> Parts:
        """Return base and contributions of rows behind the preprocessing."""
        if self._linear:
            return Parts(self._start, (inputs - self._mean)[:, :, None] * self._slopes.T[None])
        # Trees of scikit-learn compare in float32, those of histograms in float64.
        seen = inputs.astype(self._dtype).astype(np.float64)
        values = np.asarray(self._explainer.shap_values(seen, check_additivity=False), dtype=np.float64)
        values = values if values.ndim == 3 else values[:, :, None]
        base = np.atleast_1d(np.asarray(self._explainer.expected_value, dtype=np.float64))
        if self._task == "classification" and values.shape[2] == 2:  # a forest says both, of which one is enough
            values, base = values[:, :, 1:], base[1:]
        return Parts(base + self._offset, values)


class UnsupportedError(Exception):
    """Neither trees nor linear: another way must be found."""


def _is_linear(estimator: Any) -> bool:
    known = type(estimator).__module__.startswith("sklearn.linear_model") or type(estimator).__name__ in (
        "LinearSVC",
        "LinearSVR",
        "LinearDiscriminantAnalysis",
    )
    identity = type(estimator).__name__ != "TweedieRegressor"  # whose link is chosen by its power
    return known and identity and hasattr(estimator, "coef_") and hasattr(estimator, "intercept_")


def _scale(estimator: Any, task: Task) -> str:
    if task == "regression":
        exponential = type(estimator).__name__ in _EXPONENTIAL or getattr(estimator, "loss", None) in _LOG
        return "log of the value" if exponential else "value"
    if not hasattr(estimator, "decision_function"):
        return "probability"
    kind = type(estimator).__name__
    odds = kind in (*_BOOSTED, *_HISTOGRAM, "LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis")
    return "log-odds" if odds else "score"


def _raw(estimator: Any, inputs: Numbers, *, task: Task) -> Numbers:
    if task == "regression":
        return np.asarray(estimator.predict(inputs), dtype=np.float64)
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(inputs), dtype=np.float64)
    answers = np.asarray(estimator.predict_proba(inputs), dtype=np.float64)
    return answers[:, 1:] if task == "classification" else answers


def _tree_explainer(trees: list[dict[str, Any]]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the drawing packages that it brings
            import shap  # type: ignore[import-untyped]
    except ImportError as error:
        raise RequestError(
            501,
            "not-installed",
            "Shapley values of trees need the package shap, which is not installed here",
            next_step="install windrow[explain] where the service runs",
        ) from error
    return shap.TreeExplainer({"trees": trees}, feature_perturbation="tree_path_dependent")


def _trees(estimator: Any) -> tuple[list[dict[str, Any]], type[Any]]:
    kind = type(estimator).__name__
    if not type(estimator).__module__.startswith("sklearn."):
        raise UnsupportedError
    if kind in _AVERAGED:
        every = getattr(estimator, "estimators_", [estimator])
        return [_tree(one.tree_, _shares(one.tree_) / len(every)) for one in every], np.float32
    if kind in _BOOSTED:
        rate, stages = estimator.learning_rate, estimator.estimators_
        return [
            _tree(one.tree_, _only(rate * one.tree_.value[:, 0, 0], output, len(stage)))
            for stage in stages
            for output, one in enumerate(stage)
        ], np.float32
    if kind in _HISTOGRAM and not _categorical(estimator):
        return [
            _histogram_tree(one.nodes, output, len(stage))
            for stage in estimator._predictors
            for output, one in enumerate(stage)
        ], np.float64
    raise UnsupportedError


def _categorical(estimator: Any) -> bool:
    found = getattr(estimator, "is_categorical_", None)
    return found is not None and bool(np.any(found))


def _shares(tree: Any) -> Numbers:
    values: Numbers = tree.value[:, 0, :]
    return values


def _only(values: Numbers, output: int, outputs: int) -> Numbers:
    made = np.zeros((len(values), outputs))
    made[:, output] = values
    return made


def _tree(tree: Any, values: Numbers) -> dict[str, Any]:
    # Where no missing value was seen in training, scikit-learn sends it to the side with more rows, or refuses it.
    left = np.asarray(tree.missing_go_to_left, dtype=bool)
    return {
        "children_left": tree.children_left,
        "children_right": tree.children_right,
        "children_default": np.where(left, tree.children_left, tree.children_right),
        "features": tree.feature,
        "thresholds": tree.threshold,
        "values": values,
        "node_sample_weight": tree.weighted_n_node_samples,
    }


def _histogram_tree(nodes: Any, output: int, outputs: int) -> dict[str, Any]:
    leaf = nodes["is_leaf"].astype(bool)
    left, right = nodes["left"].astype(np.int32), nodes["right"].astype(np.int32)
    return {
        "children_left": np.where(leaf, -1, left),
        "children_right": np.where(leaf, -1, right),
        "children_default": np.where(leaf, -1, np.where(nodes["missing_go_to_left"].astype(bool), left, right)),
        "features": np.where(leaf, -2, nodes["feature_idx"].astype(np.int32)),
        "thresholds": nodes["num_threshold"].astype(np.float64),
        "values": _only(nodes["value"], output, outputs),
        "node_sample_weight": nodes["count"].astype(np.float64),
    }
