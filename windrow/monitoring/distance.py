"""How far two samples of one feature are apart, and how far apart chance alone would put them.

The bins are taken from both samples together. That makes the permutation law exact (under "no drift"
the two samples are one shuffled pile), and an outlier cannot squeeze everything else into one bin, as
it does with bins of equal width.
"""

from __future__ import annotations

import math
from collections import Counter
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import MISSING_TEXT
from windrow.schema import Field

BINS = 20
_CATEGORIES = 50
_DRAWS_PER_TAIL, _FEWEST_DRAWS, _MOST_DRAWS = 5, 2_000, 20_000

Counts = NDArray[np.int64]


def present(values: NDArray[Any], field: Field) -> NDArray[np.bool_]:
    """Return which values of a feature are there, bool of shape (n,).

    Examples
    --------
    >>> present(np.array([1.0, np.nan, np.inf]), Field("x", "float64"))
    array([ True, False, False])
    """
    found: NDArray[np.bool_] = values != MISSING_TEXT if field.dtype == "string" else np.isfinite(values)
    return found


def counted(reference: NDArray[Any], current: NDArray[Any]) -> tuple[Counts, Counts]:
    """Return how many of two samples fall in each common bin, as two int64 arrays of one shape (k,).

    Parameters
    ----------
    reference, current
        Floats without NaN, or words (object arrays), of shapes (n,) and (m,).

    Examples
    --------
    >>> counted(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0]))
    (array([2, 1, 0]), array([0, 1, 1]))
    >>> counted(np.array(["a", "a", "b"], object), np.array(["c", "a"], object))
    (array([2, 1, 0]), array([1, 0, 1]))
    """
    bins, k = binned(np.concatenate([reference, current]))
    return np.bincount(bins[: len(reference)], minlength=k), np.bincount(bins[len(reference) :], minlength=k)


def binned(values: NDArray[Any]) -> tuple[NDArray[np.intp], int]:
    """Return the bin of each value, int of shape (n,), and the number of bins.

    At most 20 different numbers are a bin each; more are put into bins of about equal shares. Of
    words the 49 most frequent are told apart, the others are one bin.

    Examples
    --------
    >>> binned(np.array(["b", "a", "b"], object))
    (array([0, 1, 0]), 2)
    """
    return _word_bins(values) if values.dtype == object else _number_bins(values)


def _number_bins(values: NDArray[Any]) -> tuple[NDArray[np.intp], int]:
    highest = np.unique(values)
    if len(highest) > BINS:  # quantiles that are values of the sample: a bin ends where a value is
        highest = np.unique(np.quantile(values, np.arange(1, BINS + 1) / BINS, method="inverted_cdf"))
    return np.searchsorted(highest[:-1], values, side="left"), len(highest)


def _word_bins(values: NDArray[Any]) -> tuple[NDArray[np.intp], int]:
    words = values.tolist()
    ranked = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    kept = ranked if len(ranked) <= _CATEGORIES else ranked[: _CATEGORIES - 1]
    place = {word: i for i, (word, _) in enumerate(kept)}
    return np.array([place.get(word, len(kept)) for word in words], dtype=np.intp), min(len(ranked), _CATEGORIES)


def jensen_shannon(reference: NDArray[Any], current: NDArray[Any]) -> NDArray[np.float64]:
    """Return the Jensen-Shannon distance of counts: 0 for equal shares, 0.8326 (sqrt of ln 2) without overlap.

    The natural logarithm is used, as SciPy and Evidently do.

    Parameters
    ----------
    reference, current
        Counts of shape (..., k); the last axis is the distribution.

    References
    ----------
    J. Lin (1991), Divergence measures based on the Shannon entropy, IEEE Trans. Information Theory 37.

    Examples
    --------
    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1])).round(4).item()
    0.8326
    """
    p = reference / reference.sum(axis=-1, keepdims=True)
    q = current / current.sum(axis=-1, keepdims=True)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.sqrt(np.maximum(divergence, 0.0))


def chance_distance(reference: Counts, current: Counts, *, tail: float, seed: int = 0) -> float:
    """Return the distance that shuffling the two samples exceeds with probability `tail` at most.

    Rows are dealt anew to two samples of the same sizes (a permutation test on the counts); the draws
    are seeded, so that one window always gets one verdict.

    Examples
    --------
    >>> chance_distance(np.array([500, 500]), np.array([50, 50]), tail=0.01).__round__(2)
    0.1
    """
    pooled = reference + current
    draws = min(_MOST_DRAWS, max(_FEWEST_DRAWS, math.ceil(_DRAWS_PER_TAIL / tail)))
    rng = np.random.default_rng(seed)
    dealt = rng.multivariate_hypergeometric(pooled, int(current.sum()), size=draws, method="marginals")
    distances = jensen_shannon(pooled - dealt, dealt)
    return float(np.quantile(distances, 1 - tail, method="higher"))


def unseen_share(reference: NDArray[Any], current: NDArray[Any], *, tail: float, seed: int = 0) -> tuple[float, float]:
    """Return the share of `current` in categories that `reference` lacks, and what chance alone reaches.

    Under "no drift" a category of which there are c in both samples together is absent from the
    reference with probability (m / (n + m)) ** c at most; rare categories (identifiers) therefore
    make a large share by chance.

    Examples
    --------
    >>> before, after = np.array(["a"] * 90, object), np.array(["a"] * 6 + ["gold"] * 4, object)
    >>> unseen_share(before, after, tail=0.01)
    (0.4, 0.0)
    """
    before, after = Counter(reference.tolist()), Counter(current.tolist())
    share = sum(count for word, count in after.items() if word not in before) / len(current)
    chance = len(current) / (len(current) + len(reference))
    sizes = Counter((before + after).values())
    rng = np.random.default_rng(seed)
    rows = np.zeros(_FEWEST_DRAWS if tail > 1 / _FEWEST_DRAWS else _MOST_DRAWS)
    for size, categories in sizes.items():
        if chance**size * categories > tail / 100:
            rows += size * rng.binomial(categories, chance**size, size=len(rows))
    return share, float(np.quantile(rows, 1 - tail, method="higher")) / len(current)


def null_rate_by_chance(rate: float, rows: tuple[int, int], *, tail: float) -> float:
    """Return the rise of a null rate between two samples of `rows` that chance exceeds with probability `tail`.

    `rate` is the null rate of both samples together (normal approximation).

    Examples
    --------
    >>> round(null_rate_by_chance(0.5, (1000, 200), tail=0.001), 2)
    0.12
    """
    spread = math.sqrt(rate * (1 - rate) * (1 / rows[0] + 1 / rows[1]))
    return NormalDist().inv_cdf(1 - tail) * spread


def _relative_entropy(p: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.divide(p, of, out=np.ones_like(p), where=p > 0)
    total: NDArray[np.float64] = (p * np.log(ratio)).sum(axis=-1)
    return total
