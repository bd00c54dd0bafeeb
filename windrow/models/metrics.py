"""The metrics of a service, in NumPy: what a release, a gate and a monitor speak of.

AUC is the probability that a random positive row is scored above a random negative one, ties counting
half (Mann and Whitney, 1947); the Brier score is the mean squared error of a probability (Brier, 1950).

Of three classes or more, answers are probabilities of shape (n, classes): AUC is the mean over classes of each
against all others, a class for a class; the Brier score sums over classes, as Brier wrote it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windrow.models.release import Task

Values = NDArray[np.float64]

_SMALLEST = 1e-15


def metrics_of(task: Task, truth: Values, answers: Values) -> dict[str, float]:
    """Return every metric of a task; one that the rows do not define (AUC of one class) is left out.

    Parameters
    ----------
    task
        ``classification`` (truth 0 or 1, answers are probabilities), ``multiclass`` (truth is a class's place,
        answers are probabilities of shape (n, classes)) or ``regression``.
    truth, answers
        float64 of shape (n,); answers to ``multiclass`` (n, classes).

    Examples
    --------
    >>> metrics_of("regression", np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    {'mae': 0.5, 'rmse': 0.7071067811865476, 'r2': 0.5}
    """
    made = _METRICS[task](truth, answers)
    return {name: value for name, value in made.items() if np.isfinite(value)}


def auc(truth: Values, answers: Values) -> float:
    """Return the area under the ROC curve, NaN where there is only one class.

    Examples
    --------
    >>> auc(np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.2, 0.9]))
    0.75
    """
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(answers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[place]  # ties share the mean of their ranks
    return float((ranks[truth == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def sure(answers: Values) -> Values:
    """Return probabilities kept off 0 and 1, where a logarithm has no end.

    Examples
    --------
    >>> sure(np.array([0.0, 0.5])).tolist()
    [1e-15, 0.5]
    """
    return np.clip(answers, _SMALLEST, 1 - _SMALLEST)


def one_vs_rest(truth: Values, classes: int) -> NDArray[np.bool_]:
    """Return whether each row is of each class, shape (n, classes).

    Examples
    --------
    >>> one_vs_rest(np.array([0.0, 2.0]), 3).tolist()
    [[True, False, False], [False, False, True]]
    """
    return np.asarray(truth[:, None] == np.arange(classes))


def top_label(truth: Values, answers: Values) -> tuple[Values, Values]:
    """Return whether the most probable class came true (1 or 0), and its probability: both of shape (n,).

    What is calibrated of several classes is how sure the model is of the one it names (Guo, Pleiss, Sun and
    Weinberger, 2017). Answers of one probability are their own.

    Examples
    --------
    >>> hits, said = top_label(np.array([1.0]), np.array([[0.2, 0.5, 0.3]]))
    >>> hits.tolist(), said.tolist()
    ([1.0], [0.5])
    """
    if answers.ndim == 1:
        return truth, answers
    return (answers.argmax(axis=1) == truth).astype(np.float64), answers.max(axis=1)


def losses_of_classes(truth: Values, answers: Values) -> dict[str, Values]:
    """Return what each row adds to ``log_loss``, ``brier`` and ``accuracy`` of several classes, shape (n,).

    Examples
    --------
    >>> losses_of_classes(np.array([0.0]), np.array([[0.5, 0.5, 0.0]]))["brier"].tolist()
    [0.5]
    """
    is_class = one_vs_rest(truth, answers.shape[1])
    return {
        "log_loss": -np.log(np.clip(answers[is_class], _SMALLEST, 1.0)),
        "brier": np.sum((answers - is_class) ** 2, axis=1),
        "accuracy": top_label(truth, answers)[0],
    }


def _class_metrics(truth: Values, answers: Values) -> dict[str, float]:
    if not len(truth):
        return {}
    said = sure(answers)
    return {
        "auc": auc(truth, answers),
        "log_loss": float(-np.mean(truth * np.log(said) + (1 - truth) * np.log1p(-said))),
        "brier": float(np.mean((answers - truth) ** 2)),
        "accuracy": float(np.mean((answers > 0.5) == (truth == 1))),
    }


def _multiclass_metrics(truth: Values, answers: Values) -> dict[str, float]:
    if not len(truth):
        return {}
    is_class = one_vs_rest(truth, answers.shape[1]).astype(np.float64)
    areas = [auc(mine, said) for mine, said in zip(is_class.T, answers.T, strict=True)]
    means = {name: float(values.mean()) for name, values in losses_of_classes(truth, answers).items()}
    return {"auc": float(np.mean(areas)), **means}


def _number_metrics(truth: Values, answers: Values) -> dict[str, float]:
    if not len(truth):
        return {}
    error = answers - truth
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return {
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": 1 - float(np.sum(error**2)) / spread if spread else float("nan"),
    }


_METRICS = {"classification": _class_metrics, "multiclass": _multiclass_metrics, "regression": _number_metrics}
