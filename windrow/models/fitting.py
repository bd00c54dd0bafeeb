"""Fitting: what a service's trainer makes, fitted on the training split and on nothing else, and checked."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, WindrowError, listed
from windrow.models.compile import task_of
from windrow.models.dataset import Splits, TrainingDataset
from windrow.models.release import Task
from windrow.models.runtime import few_threads
from windrow.models.search import Say, Trial, best_of, is_search, progress, trials_of, with_folds, without_winner
from windrow.models.service import Notebook, PredictionService
from windrow.models.splits import TRAIN, VALIDATION

if TYPE_CHECKING:
    from windrow.models.dataset import Split


class Fitted(NamedTuple):
    """What a trainer made.

    Attributes
    ----------
    estimator
        The one that is released: of a search, its winner.
    trials
        Every candidate of a search; none without one.
    """

    estimator: Any
    trials: list[Trial]


def fit(
    service: PredictionService, dataset: TrainingDataset, *, say: Say | None = None, splits: Splits | None = None
) -> Fitted:
    """Return what the service's trainer makes, fitted on the training split and on nothing else.

    Parameters
    ----------
    say
        Is told how far a search of hyper-parameters is, in lines; default: a bar on a terminal.
    splits
        The dataset's, where they are in memory already.

    Raises
    ------
    ModelError
        If the trainer returns no estimator, or the estimator cannot be fitted on the view's columns.
    """
    estimator = unfitted(service) if service.train is None else None
    splits = splits or Splits(dataset, service.view.contract)
    learn = splits[TRAIN].handed_out()
    _check_classes(service, learn.y)
    if estimator is None:
        return chosen(_fitted_by(service, splits, learn), service)
    return chosen(_fitted(estimator, service, learn, say=say), service)


def chosen(made: Any, service: PredictionService) -> Fitted:
    """Return a fitted estimator, or the winner of a fitted search with all its trials, checked."""
    if isinstance(made, Fitted):
        return Fitted(checked(made.estimator, service), made.trials)
    if not is_search(made):
        return Fitted(checked(made, service), [])
    best = best_of(made, where=f"service {service.name!r}")
    return Fitted(checked(best, service), trials_of(made))


def takes_validation(service: PredictionService) -> bool:
    """Return whether the service's trainer is given the validation split, for early stopping and the like."""
    return service.train is not None and VALIDATION in inspect.signature(service.train.load()).parameters


def _fitted_by(service: PredictionService, splits: Splits, learn: Split) -> Any:
    """Call a trainer of its own hand: data in, fitted estimator out."""
    assert service.train is not None
    role, given = f"the trainer of service {service.name!r}", {TRAIN: learn}
    if takes_validation(service):
        given |= {VALIDATION: splits[VALIDATION].handed_out()}
    asked = inspect.signature(service.train.load()).parameters.values()
    free = [p.name for p in asked if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if TRAIN not in inspect.signature(service.train.load()).parameters or not set(free) <= set(given):
        raise ModelError(
            f"{role} ({service.train}) takes {listed(free) or 'nothing'}",
            next_step="write def fit(train): or def fit(train, validation):, each with .X, .y and .rows",
        )
    with few_threads():
        return service.train.call(role, **given)


def _fitted(estimator: Any, service: PredictionService, learn: Split, *, say: Say | None) -> Any:
    try:
        with few_threads():
            if not is_search(estimator):
                return estimator.fit(learn.X, learn.y)
            search = with_folds(estimator, service, learn)
            with progress(search, say=say):
                return search.fit(learn.X, learn.y)
    except WindrowError:
        raise
    except (Exception, SystemExit) as error:
        # The estimator is the project's own code and may raise anything, and end the process too; the cause is kept.
        raise ModelError(
            f"the estimator of service {service.name!r} cannot be fitted: {type(error).__name__}: {_short(error)}",
            exists=f"The view's columns are {listed(service.view.contract.feature_names, shown=40)}",
            next_step=f"change {service.trainer}; X is a DataFrame with these columns, float32 for numbers and text as objects",
        ) from error


def unfitted(service: PredictionService) -> Any:
    """Return what the service's trainer makes, if it is an unfitted estimator of the right kind."""
    if isinstance(service.model, Notebook):
        raise ModelError(
            f"service {service.name!r} is trained by the notebook {service.model.file!r}",
            next_step=f"run it: windrow run {service.name}, or give its fitted model as estimator=",
        )
    assert service.model is not None  # else it has a trainer of its own hand
    made = service.model.call(f"the trainer of service {service.name!r}")
    if isinstance(made, type):
        raise ModelError(
            f"{service.trainer} returned the class {made.__name__!r}, not an estimator",
            next_step=f"return {made.__name__}(...)",
        )
    if is_search(made) and not made.refit:
        raise without_winner(made, where=f"service {service.name!r}")
    if not all(hasattr(made, name) for name in ("fit", "predict", "get_params")):
        raise ModelError(
            f"{service.trainer} returned {'None' if made is None else type(made).__name__}, which is no estimator",
            next_step="return an unfitted scikit-learn estimator or pipeline",
        )
    if _is_fitted(made):
        raise ModelError(
            f"{service.trainer} returned a {type(made).__name__} that is fitted already",
            next_step="return it unfitted: windrow fits it, on the training split only",
        )
    _check_task(service, made)
    return made


def checked(estimator: Any, service: PredictionService) -> Any:
    """Return a fitted estimator if it can answer for the service.

    Raises
    ------
    ModelError
        If it is not fitted, of the wrong kind, gives no probability, or was fitted on other columns.
    """
    if estimator is None or not hasattr(estimator, "predict"):
        raise ModelError(
            f"service {service.name!r} was given {type(estimator).__name__}, which is no estimator",
            next_step="give a fitted scikit-learn estimator or pipeline",
        )
    if not _is_fitted(estimator):
        raise ModelError(
            f"the {type(estimator).__name__} given to service {service.name!r} is not fitted",
            next_step="call fit(train.X, train.y) first",
        )
    _check_task(service, estimator)
    _check_columns(service, estimator)
    places = places_of(service)
    if places and list(estimator.classes_) != places:
        raise ModelError(
            f"the estimator of service {service.name!r} knows the classes {list(estimator.classes_)[:5]}, not {' and '.join(str(p) for p in places)}",
            next_step=f"fit it on the labels as they are in the training split ({', '.join(f'{p}.0' for p in places[:5])})",
        )
    return estimator


def _check_classes(service: PredictionService, labels: NDArray[np.float64]) -> None:
    places = places_of(service)
    if service.label.multiclass and len(np.unique(labels)) < len(places):
        rare = [service.label.classes[place] for place in places if not (labels == place).any()]
        raise ModelError(
            f"no row of the training split of service {service.name!r} has the class {listed(rare)}",
            next_step="look at the label's classes and its source, or at the split",
        )
    if service.label.binary and len(np.unique(labels)) < 2:
        raise ModelError(
            f"every row of the training split of service {service.name!r} has the label {labels[0]:g}",
            next_step="look at the label's source and matures_after, or at the split",
        )


def _check_task(service: PredictionService, estimator: Any) -> None:
    wanted, kind = task_for(service), type(estimator).__name__
    # How many classes an estimator knows is told by its fitting.
    if (task_of(estimator) == "regression") != (wanted == "regression"):
        needed = (
            "classes (0 and 1), so it needs a classifier"
            if wanted != "regression"
            else "numbers, so it needs a regressor"
        )
        raise ModelError(
            f"{kind} is made for {task_of(estimator)}, but the label of service {service.name!r} is {needed}",
            next_step=f"change {service.trainer}",
        )
    if wanted != "regression" and not hasattr(estimator, "predict_proba"):
        raise ModelError(f"{kind} gives no probability", next_step="wrap it: CalibratedClassifierCV(model)")


def _check_columns(service: PredictionService, estimator: Any) -> None:
    names, expected = getattr(estimator, "feature_names_in_", None), list(service.view.contract.feature_names)
    if names is None and getattr(estimator, "n_features_in_", len(expected)) == len(expected):
        return
    if names is None or list(names) != expected:
        raise ModelError(
            f"the estimator of service {service.name!r} was fitted on other columns than its view has",
            exists=f"The view's columns are {listed(expected, shown=40)}",
            next_step="fit it on train.X as it is, all columns in their order; choose columns inside the pipeline",
        )


def _is_fitted(estimator: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):
        return False
    return True


def task_for(service: PredictionService) -> Task:
    """Return what kind of model a service needs."""
    if service.label.multiclass:
        return "multiclass"
    return "classification" if service.label.binary else "regression"


def places_of(service: PredictionService) -> list[int]:
    """Return the labels of the classes as numbers, none where the label is a number itself."""
    if service.label.multiclass:
        return list(range(len(service.label.classes)))
    return [0, 1] if service.label.binary else []


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
