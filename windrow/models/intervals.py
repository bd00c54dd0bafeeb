"""How sure a metric is: its confidence interval, and that of the difference of two models on the same rows.

Every metric here is a smooth function of means over rows, so the error of each is a mean as well: that of
its influence values (Hampel, 1974), one for each row. For the area under the ROC curve they are the
placements of DeLong, DeLong and Clarke-Pearson (1988); for its mean over several classes, the mean of each
class's. Rows are taken as independent: where they are not
(a clock, many rows of one customer), the true interval is wider.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.models.metrics import auc, losses_of_classes, one_vs_rest, sure

Values = NDArray[np.float64]

CONFIDENCE = 0.95
LOWER_IS_BETTER = ("log_loss", "brier", "mae", "rmse")
_BOUNDED = ("auc", "accuracy")


class Interval(NamedTuple):
    """A value, where its truth lies with some confidence, and the rows that it was measured on."""

    value: float
    low: float
    high: float
    rows: int


def interval_of(metric: str, truth: Values, answers: Values, *, confidence: float = CONFIDENCE) -> Interval | None:
    """Return a metric with its interval, or None where the rows do not define it.

    Parameters
    ----------
    truth, answers
        float64 of shape (n,); answers in several classes (n, classes).

    Examples
    --------
    >>> found = interval_of("mae", np.zeros(4), np.array([1.0, 1.0, 3.0, 3.0]))
    >>> found.value, round(found.low, 2), round(found.high, 2), found.rows
    (2.0, 1.02, 2.98, 4)
    """
    value, influence = _influence(metric, truth, answers)
    if influence is None:
        return None
    if metric == "accuracy":  # a share, which may be 0 or 1 without being certain
        return Interval(
            value, *share_interval(round(value * len(truth)), len(truth), confidence=confidence), len(truth)
        )
    reach = _reach(influence, confidence)
    top = 1.0 if metric in _BOUNDED else np.inf
    floor = -np.inf if metric == "r2" else 0.0
    return Interval(value, max(floor, value - reach), min(top, value + reach), len(truth))


def improvement(
    metric: str, truth: Values, before: Values, after: Values, *, confidence: float = CONFIDENCE
) -> Interval | None:
    """Return how much better the second answers are than the first, positive for better, row by row.

    Examples
    --------
    >>> improvement("mae", np.zeros(3), np.array([2.0, 2.0, 2.0]), np.array([1.0, 1.0, 1.0]))
    Interval(value=1.0, low=1.0, high=1.0, rows=3)
    """
    old, held = _influence(metric, truth, before)
    new, gained = _influence(metric, truth, after)
    if held is None or gained is None:
        return None
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    reach = _reach(gained - held, confidence)
    value = sign * (new - old)
    return Interval(value, value - reach, value + reach, len(truth))


def share_interval(hits: int, rows: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of a share, by Wilson's score (1927): also near 0 and 1, and for few rows.

    Examples
    --------
    >>> [round(edge, 3) for edge in share_interval(0, 10)]
    [0.0, 0.278]
    """
    z, share = _z(confidence), hits / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    reach = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))


def gap_interval(rates: Values, rows: NDArray[np.int64], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of the largest difference between the rates of several groups; the difference is in it.

    Made of the signed differences of all pairs, each by Newcombe's hybrid score (1998, method 10), which holds near 0
    and 1 and for few rows. The true largest difference is beyond all upper edges only if it is beyond its own; it is
    below a lower edge if any of them is wrong, so these share the error (Bonferroni). A bootstrap of the largest
    difference itself fails where there is none, as every draw of it is 0 or more (Andrews, 2000).

    Parameters
    ----------
    rates, rows
        Of each group, shape (groups,), two or more.

    Examples
    --------
    >>> [round(edge, 3) for edge in gap_interval(np.array([0.5, 0.5]), np.array([200, 200]))]
    [0.0, 0.097]
    """
    pairs = len(rates) * (len(rates) - 1) // 2
    below, above = _edges_of(rates, rows, confidence)
    high = _between(rates) + np.hypot((above - rates)[:, None], (rates - below)[None, :])
    below, above = _edges_of(rates, rows, 1 - (1 - confidence) / pairs)
    low = _between(rates) - np.hypot((rates - below)[:, None], (above - rates)[None, :])
    return float(max(0.0, low.max())), float(min(1.0, high.max()))


def size_interval(value: float, errors: Values, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of the size (a norm) of what is estimated; the size of the estimate is in it.

    An estimate and its truth differ in size by no more than the size of their difference. How large that is, is
    known from the bootstrap (Efron, 1979): exact where the truth is nothing, somewhat wide far from there.

    Parameters
    ----------
    value
        Size of the estimate.
    errors
        Size of the difference between each estimate drawn again and the estimate, shape (draws,).

    Examples
    --------
    >>> [round(edge, 3) for edge in size_interval(0.1, np.linspace(0, 0.2, 101))]
    [0.0, 0.29]
    """
    reach = float(np.quantile(errors, confidence))
    return max(0.0, value - reach), value + reach


def _edges_of(rates: Values, rows: NDArray[np.int64], confidence: float) -> tuple[Values, Values]:
    hits = np.round(rates * rows).astype(int)
    edges = [share_interval(int(h), int(n), confidence=confidence) for h, n in zip(hits, rows, strict=True)]
    below, above = np.array(edges).T
    return below, above


def _between(rates: Values) -> Values:
    """Return how far each group's rate is above each other's, shape (groups, groups)."""
    return np.asarray(rates[:, None] - rates[None, :])


def _reach(influence: Values, confidence: float) -> float:
    return float(_z(confidence) * np.sqrt(np.mean(influence**2) / len(influence)))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _influence(metric: str, truth: Values, answers: Values) -> tuple[float, Values | None]:
    """Return the metric's value and each row's influence on it; no influence where the value is undefined."""
    if not len(truth):
        return np.nan, None
    if metric == "auc":
        return _auc_influence(truth, answers) if answers.ndim == 1 else _mean_auc_influence(truth, answers)
    if metric in ("rmse", "r2"):
        return _square_influence(metric, truth, answers)
    losses = _row_values(metric, truth, answers)
    return float(losses.mean()), losses - losses.mean()


def _row_values(metric: str, truth: Values, answers: Values) -> Values:
    if answers.ndim == 2:
        return losses_of_classes(truth, answers)[metric]
    if metric == "accuracy":
        return np.asarray((answers > 0.5) == (truth == 1), dtype=np.float64)
    if metric == "log_loss":
        said = sure(answers)
        return np.asarray(-(truth * np.log(said) + (1 - truth) * np.log1p(-said)))
    error = answers - truth
    return np.asarray(error**2 if metric == "brier" else np.abs(error))


def _square_influence(metric: str, truth: Values, answers: Values) -> tuple[float, Values | None]:
    squares = (answers - truth) ** 2
    mean = squares.mean()
    if metric == "rmse":
        root = np.sqrt(mean)
        return float(root), (squares - mean) / (2 * root) if root else np.zeros(len(truth))
    around = (truth - truth.mean()) ** 2
    spread = around.mean()
    if not spread:
        return np.nan, None
    return float(1 - mean / spread), mean / spread**2 * around - squares / spread


def _auc_influence(truth: Values, answers: Values) -> tuple[float, Values | None]:
    value, positive = auc(truth, answers), truth == 1
    if np.isnan(value):
        return value, None
    placed = np.empty(len(truth))
    placed[positive] = _beaten(answers[positive], answers[~positive]) - value
    placed[~positive] = 1 - _beaten(answers[~positive], answers[positive]) - value
    return value, placed * np.where(positive, len(truth) / positive.sum(), len(truth) / (~positive).sum())


def _mean_auc_influence(truth: Values, answers: Values) -> tuple[float, Values | None]:
    """Return the mean over classes, each against all others; undefined where the rows lack a class."""
    is_class = one_vs_rest(truth, answers.shape[1]).astype(np.float64)
    found = [_auc_influence(mine, said) for mine, said in zip(is_class.T, answers.T, strict=True)]
    moved = [influence for _, influence in found if influence is not None]
    if len(moved) < len(found):
        return np.nan, None
    return float(np.mean([value for value, _ in found])), np.mean(moved, axis=0)


def _beaten(ours: Values, theirs: Values) -> Values:
    """Return which share of `theirs` each of `ours` is above; ties count half."""
    ordered = np.sort(theirs)
    below, up_to = (np.searchsorted(ordered, ours, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * len(theirs)))
