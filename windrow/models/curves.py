"""What a single number hides: curves of a model's answers, as arrays small enough for the tracking table.

The ROC curve has one point per distinct score (Fawcett, 2006); the calibration curve compares the mean predicted
with the observed share in ten bins of equally many rows (DeGroot and Fienberg, 1983). Of three classes or more
there is an ROC curve for each against all others, the calibration of the class that is named, and how often each
class that came true was named as which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.models.metrics import one_vs_rest, top_label
from windrow.models.release import Task

Values = NDArray[np.float64]
Curves = dict[str, dict[str, list[float]]]

_POINTS, _BINS = 101, 10
_POINTS_OF_ALL_CLASSES, _LEAST_POINTS = 1010, 11
_LEARNING = {
    "loss": "loss_curve_",
    "train": "train_score_",
    "validation": "validation_score_",
    "scores": "validation_scores_",
}


def curves_of(task: Task, truth: Values, answers: Values, *, classes: Sequence[str] = ()) -> Curves:
    """Return ``roc`` and ``calibration`` of classes, or ``residuals`` of numbers; at most 101 points each.

    Of three classes or more: ``roc <class>`` for each class that came true and did not always, ``calibration``
    of the most probable class, and ``confusion``: for each class that came true how often each was named.

    Parameters
    ----------
    truth, answers
        float64 of shape (n,); answers are probabilities of class 1 or values; of three classes or more
        probabilities of shape (n, classes).
    classes
        Their names, in the order of their places.

    Examples
    --------
    >>> curves_of("regression", np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    {'residuals': {'predicted': [2.0, 3.0], 'residual': [-1.0, 0.0]}}
    """
    if not len(truth):
        return {}
    if task == "regression":
        order = np.argsort(answers, kind="stable")[_thinned(len(answers))]
        return {"residuals": {"predicted": _list(answers[order]), "residual": _list((truth - answers)[order])}}
    hits, said = top_label(truth, answers)
    told = {"calibration": calibration(said, hits)}
    if task == "classification":
        return {"roc": _kept(roc(answers, truth), _POINTS), **told}
    most = max(_LEAST_POINTS, min(_POINTS, _POINTS_OF_ALL_CLASSES // len(classes)))
    rocs = {f"roc {name}": _kept(rates, most) for name, rates in rocs_of(truth, answers, classes)}
    counts = confusion(truth, answers).astype(float).tolist()
    return {**rocs, **told, "confusion": dict(zip(classes, counts, strict=True))}


def roc(answers: Values, truth: Values) -> tuple[Values, Values]:
    """Return false and true positive rates, one point per distinct score, from (0, 0) to (1, 1).

    Examples
    --------
    >>> fpr, tpr = roc(np.array([0.9, 0.1]), np.array([1.0, 0.0]))
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    order = np.argsort(-answers, kind="stable")
    score, hit = answers[order], truth[order] > 0
    last = np.r_[np.diff(score) != 0, True]  # rows of one score fall together
    true, false = np.cumsum(hit)[last], np.cumsum(~hit)[last]
    return np.r_[0.0, false / max(false[-1], 1)], np.r_[0.0, true / max(true[-1], 1)]


def rocs_of(truth: Values, answers: Values, classes: Sequence[str]) -> Iterator[tuple[str, tuple[Values, Values]]]:
    """Yield each class with its `roc` against all others; not where all rows are of it, or none is.

    Parameters
    ----------
    answers
        Shape (n, classes).

    Examples
    --------
    >>> answers = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    >>> [name for name, _ in rocs_of(np.array([0.0, 1.0]), answers, ["home", "draw", "away"])]
    ['home', 'draw']
    """
    for name, mine, said in zip(classes, one_vs_rest(truth, len(classes)).T, answers.T, strict=True):
        if mine.any() and not mine.all():
            yield name, roc(said, mine.astype(np.float64))


def confusion(truth: Values, answers: Values) -> NDArray[np.int64]:
    """Return how often each class that came true (a line) was the most probable as which (a column).

    Examples
    --------
    >>> confusion(np.array([0.0, 0.0, 1.0]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])).tolist()
    [[1, 1], [0, 1]]
    """
    classes = answers.shape[1]
    pairs = truth.astype(np.int64) * classes + answers.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def calibration(answers: Values, truth: Values) -> dict[str, list[float]]:
    """Return the mean predicted and observed share, and the rows, of ten bins of equally many rows.

    Examples
    --------
    >>> calibration(np.array([0.25, 0.75]), np.array([0.0, 1.0]))
    {'predicted': [0.25, 0.75], 'observed': [0.0, 1.0], 'rows': [1.0, 1.0]}
    """
    bins = [part for part in np.array_split(np.argsort(answers, kind="stable"), _BINS) if len(part)]
    predicted, observed = ([float(of[part].mean()) for part in bins] for of in (answers, truth))
    return {"predicted": _rounded(predicted), "observed": _rounded(observed), "rows": [float(len(p)) for p in bins]}


def learning_of(estimator: Any) -> Curves:
    """Return what an estimator noted of itself while it learned: a loss or score per iteration; {} for most.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> learning_of(LinearRegression())
    {}
    """
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    found = {
        name: np.ravel(getattr(last, attribute, ())) for name, attribute in _LEARNING.items() if _noted(last, attribute)
    }
    kept = {name: _list(values[_thinned(len(values))]) for name, values in found.items() if len(values)}
    return {"learning": kept} if kept else {}


def _noted(estimator: Any, attribute: str) -> bool:
    return getattr(estimator, attribute, None) is not None


def _kept(rates: tuple[Values, Values], most: int) -> dict[str, list[float]]:
    kept = _thinned(len(rates[0]), most)
    return dict(zip(("false", "true"), (_list(rate[kept]) for rate in rates), strict=True))


def _thinned(rows: int, most: int = _POINTS) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.intp))


def _list(values: Any) -> list[float]:
    return _rounded([float(value) for value in values])


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
