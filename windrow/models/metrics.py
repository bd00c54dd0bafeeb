"""The metrics of a service, in NumPy: what a release, a gate and a monitor speak of.

AUC is the probability that a random positive row is scored above a random negative one, ties counting
half (Mann and Whitney, 1947); the Brier score is the mean squared error of a probability (Brier, 1950).
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
        ``classification`` (truth 0 or 1, answers are probabilities) or ``regression``.
    truth, answers
        float64 of shape (n,).

    Examples
    --------
    >>> metrics_of("regression", np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    {'mae': 0.5, 'rmse': 0.7071067811865476, 'r2': 0.5}
    """
    made = _class_metrics(truth, answers) if task == "classification" else _number_metrics(truth, answers)
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
