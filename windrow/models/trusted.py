"""Types that a scikit-learn model file may hold: our own list, by estimator family, with a number.

skops builds nothing outside its own defaults and this list, so a model file cannot run code of its
choice. A type is added here only after reading what its constructor and ``__setstate__`` do.
"""

from __future__ import annotations

from collections.abc import Iterable

from windrow.errors import ModelError, listed

FORMAT = 1

FAMILIES: dict[str, tuple[str, ...]] = {
    "trees": ("sklearn.tree._tree.Tree",),
    "histogram boosting": (
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        # Categorical features: the encoder is a FunctionTransformer around these two.
        "functools.partial",
        "sklearn.utils.validation.check_array",
    ),
    "calibrated": ("sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration"),
    "neighbours": (
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
    ),
    "neural network": (
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    ),
    "ensembles": ("sklearn.utils._bunch.Bunch",),
    "column selection": (
        "builtins.object",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
    ),
    "preprocessing": (
        "numpy.dtype",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
    ),
    "losses": ("sklearn._loss.loss.HalfTweedieLossIdentity",),
}


def check_types(found: Iterable[str], *, where: str) -> list[str]:
    """Return the types of `found` if all are on the list.

    Raises
    ------
    ModelError
        Naming the types that are not.

    Examples
    --------
    >>> check_types(["posix.system"], where="model.skops")
    Traceback (most recent call last):
    windrow.errors.ModelError: model.skops holds types that windrow does not trust: 'posix.system'. Trusted estimator families: 'calibrated', 'column selection', 'ensembles', 'histogram boosting', 'losses', 'neighbours', 'neural network', 'preprocessing' and 1 more. Next: do not load it; if you trained it yourself, build the model from scikit-learn's own parts.
    """
    asked = list(found)
    trusted = {name for names in FAMILIES.values() for name in names}
    unknown = [name for name in asked if name not in trusted]
    if unknown:
        raise ModelError(
            f"{where} holds types that windrow does not trust: {listed(unknown)}",
            exists=f"Trusted estimator families: {listed(FAMILIES)}",
            next_step="do not load it; if you trained it yourself, build the model from scikit-learn's own parts",
        )
    return asked
