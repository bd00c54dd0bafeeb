"""Types that a scikit-learn model file may hold: our own list, by estimator family, with a number.

skops builds nothing outside its own defaults and this list, so a model file cannot run code of its
choice. The recipe, when a model of a new family is refused:

1. Read what the type's constructor, ``__setstate__`` and ``__reduce__`` do with their arguments. A type that calls,
   imports or opens what it is given never comes on the list (``functools.partial`` is here because skops
   builds its function under the same rules).
2. Add it under its family, and add one to `FORMAT`: a release says under which list it was written.
3. Add an estimator of the family to ``tests/models/test_families.py``.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable

from windrow.errors import ModelError, listed

FORMAT = 1

LARGEST_RATIO = 200
"""Times that a file may grow when it is unpacked; trees of a real model grow tenfold."""
SMALL = 64 * 2**20

FAMILIES: dict[str, tuple[str, ...]] = {
    "trees": ("sklearn.tree._tree.Tree",),
    "histogram boosting": (
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        # Categorical features: the encoder is a FunctionTransformer around these two.
        "functools.partial",
        "sklearn.utils.validation.check_array",
    ),
    "calibrated": (
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        # How it was cut: numbers and a random state.
        "sklearn.model_selection._split.GroupKFold",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.model_selection._split.TimeSeriesSplit",
    ),
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


def check_format(number: int, *, where: str) -> None:
    """Raise `ModelError` if a file was written under a newer list than this one.

    Examples
    --------
    >>> check_format(FORMAT, where="release 'churn-1'")
    """
    if number > FORMAT:
        raise ModelError(
            f"{where} was written under list {number} of trusted types, and this windrow has list {FORMAT}",
            next_step="upgrade windrow to the version that wrote it",
        )


def check_archive(payload: bytes, *, where: str) -> None:
    """Raise `ModelError` unless the bytes are a zip archive of plain names that stays of a reasonable size.

    Nothing is unpacked here; a member that is longer than it says fails later, when it is read.
    """
    try:
        members = zipfile.ZipFile(io.BytesIO(payload)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{where} is not a skops file ({type(error).__name__})",
            next_step="train again; do not edit files of a release",
        ) from error
    outside = [m.filename for m in members if m.filename.startswith("/") or ".." in m.filename or "\\" in m.filename]
    if outside:
        raise ModelError(f"{where} names files outside of itself: {listed(outside)}", next_step="do not load it")
    size = sum(m.file_size for m in members)
    if size > max(SMALL, LARGEST_RATIO * len(payload)):
        raise ModelError(
            f"{where} would grow from {len(payload):,} to {size:,} bytes when it is unpacked",
            next_step="do not load it; write it again with skops.io.dump",
        )
