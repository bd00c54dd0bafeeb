"""From a fitted scikit-learn model of trees to a `Forest`: simple preparation is folded into the file.

What cannot be folded is an error with the reason; then the next way to serve the model is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from windrow.errors import ModelError
from windrow.features.contract import Contract
from windrow.models.forest import Code, Column, Fill, Flag, Place, Scale, Step, encode_forest


def forest_of(estimator: Any, contract: Contract) -> bytes:
    """Return the model file of a fitted forest or boosting, alone or at the end of a pipeline.

    Parameters
    ----------
    contract
        Names and dtypes of the columns that it was fitted on.

    Raises
    ------
    ModelError
        If the model is none of trees, or its preparation cannot be folded.
    """
    import treelite
    import treelite.sklearn

    steps = [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]
    columns = [Column(name) for name in contract.feature_names]
    for step in steps[:-1]:
        columns = _folded(step, columns)
    model, columns = _categories(_grove(steps[-1]), columns)
    try:
        trees = treelite.sklearn.import_model(model)
    except (treelite.TreeliteError, NotImplementedError, AssertionError, AttributeError) as error:
        raise _not_folded(f"{type(model).__name__}: {' '.join(str(error).split())[:160]}") from error
    _check_numbers(columns, contract)
    return encode_forest(columns, trees.serialize_bytes())


def _folded(step: Any, columns: list[Column]) -> list[Column]:
    if step is None or step == "passthrough":
        return columns
    fold = _FOLDS.get(type(step).__name__)
    if fold is None or not type(step).__module__.startswith("sklearn."):
        raise _not_folded(f"{type(step).__name__} is not among {', '.join(sorted(_FOLDS))}")
    return fold(step, columns)


def _pipeline(step: Any, columns: list[Column]) -> list[Column]:
    for _, inner in step.steps:
        columns = _folded(inner, columns)
    return columns


def _column_transformer(step: Any, columns: list[Column]) -> list[Column]:
    made: list[Column] = []
    for _, inner, asked in step.transformers_:
        if not (isinstance(inner, str) and inner == "drop"):
            made += _folded(inner, _chosen(asked, columns))
    return made


def _chosen(asked: Any, columns: list[Column]) -> list[Column]:
    wanted = [asked] if isinstance(asked, str | int) else list(asked)
    if all(isinstance(w, bool | np.bool_) for w in wanted):
        return [column for column, keep in zip(columns, wanted, strict=True) if keep]
    names = [c.feature for c in columns]
    return [columns[names.index(w) if isinstance(w, str) else w] for w in wanted]


def _identity(step: Any, columns: list[Column]) -> list[Column]:
    if step.func is not None:
        raise _not_folded("FunctionTransformer runs a function of its own")
    return columns


def _filled(step: Any, columns: list[Column]) -> list[Column]:
    plain = step.add_indicator is False and isinstance(step.missing_values, float) and np.isnan(step.missing_values)
    if not plain or len(step.statistics_) != len(columns):
        raise _not_folded("SimpleImputer with an indicator, or for other values than NaN")
    if any(isinstance(value, str) or np.isnan(value) for value in step.statistics_):
        raise _not_folded("SimpleImputer that drops a column, or fills text")
    return [_then(c, Fill(float(value))) for c, value in zip(columns, step.statistics_, strict=True)]


def _scaled(step: Any, columns: list[Column]) -> list[Column]:
    shifts = step.mean_ if step.with_mean else np.zeros(len(columns))
    widths = step.scale_ if step.with_std else np.ones(len(columns))
    return [_then(c, Scale(float(s), float(w))) for c, s, w in zip(columns, shifts, widths, strict=True)]


def _coded(step: Any, columns: list[Column]) -> list[Column]:
    if getattr(step, "_infrequent_enabled", False):
        raise _not_folded("OrdinalEncoder that merges rare categories")
    unknown = np.nan if step.unknown_value is None else float(step.unknown_value)
    return [
        _then(c, Code(_texts(categories), unknown)) for c, categories in zip(columns, step.categories_, strict=True)
    ]


def _flagged(step: Any, columns: list[Column]) -> list[Column]:
    if step.drop is not None or getattr(step, "_infrequent_enabled", False):
        raise _not_folded("OneHotEncoder that drops or merges categories")
    pairs = zip(columns, step.categories_, strict=True)
    return [_then(c, Flag(category)) for c, categories in pairs for category in _texts(categories)]


def _texts(categories: Any) -> list[str]:
    if not all(isinstance(c, str) for c in categories):
        raise _not_folded("an encoder of numbers")
    return list(categories)


def _grove(model: Any) -> Any:
    """A single tree is a forest of one."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if not isinstance(model, DecisionTreeClassifier | DecisionTreeRegressor):
        return model
    made = (RandomForestClassifier if isinstance(model, DecisionTreeClassifier) else RandomForestRegressor)(1)
    names = ("n_features_in_", "n_outputs_", "n_classes_", "classes_")
    vars(made).update({name: getattr(model, name) for name in names if hasattr(model, name)}, estimators_=[model])
    return made


def _categories(model: Any, columns: list[Column]) -> tuple[Any, list[Column]]:
    """Take the encoder of categories out of histogram boosting: a category that it never saw is missing to it."""
    categorical = getattr(model, "is_categorical_", None)
    if categorical is None or not categorical.any():
        return model, columns
    bare = copy.copy(model)
    bare._preprocessor = copy.deepcopy(model._preprocessor)
    encoder = bare._preprocessor.transformers_[0][1]
    known = iter(encoder.categories_)
    changed = [_then(c, _place(next(known))) if coded else c for c, coded in zip(columns, categorical, strict=True)]
    encoder.categories_ = [np.arange(len(values), dtype=np.float64) for values in encoder.categories_]
    return bare, changed


def _place(categories: Any) -> Step:
    if all(isinstance(c, str) for c in categories):
        return Code(list(categories), np.nan)
    return Place([float(c) for c in categories if not np.isnan(c)])


def _check_numbers(columns: list[Column], contract: Contract) -> None:
    text = {f.name for f in contract.features if f.dtype == "string"}
    for column in columns:
        first = column.steps[0] if column.steps else None
        if (column.feature in text) != isinstance(first, Code | Flag):
            raise _not_folded(f"column {column.feature!r} is not of the dtype that its preparation takes")


def _then(column: Column, step: Step) -> Column:
    return msgspec.structs.replace(column, steps=(*column.steps, step))


def _not_folded(reason: str) -> ModelError:
    return ModelError(f"cannot be taken over by treelite ({reason})", next_step="use the original")


_FOLDS: dict[str, Callable[[Any, list[Column]], list[Column]]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FunctionTransformer": _identity,
    "SimpleImputer": _filled,
    "StandardScaler": _scaled,
    "OrdinalEncoder": _coded,
    "OneHotEncoder": _flagged,
}
