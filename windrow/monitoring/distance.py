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

BINS = 20
_CATEGORIES = 50
_DRAWS_PER_TAIL, _FEWEST_DRAWS, _MOST_DRAWS = 5, 2_000, 20_000

Counts = NDArray[np.int64]


def number_counts(reference: NDArray[Any], current: NDArray[Any]) -> tuple[Counts, Counts]:
    """Return how many of two float samples fall in each of at most 20 common bins.

    Parameters
    ----------
    reference, current
        Floats of shape (n,) and (m,) without NaN.

    Returns
    -------
    tuple of numpy.ndarray
        Two int64 arrays of one shape (k,). With at most 20 different values each is a bin of its own,
        else the bins hold about equal shares of both samples together.

    Examples
    --------
    >>> number_counts(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0]))
    (array([2, 1, 0]), array([0, 1, 1]))
    """
    pooled = np.concatenate([reference, current])
    values = np.unique(pooled)
    if len(values) > BINS:  # quantiles that are values of the sample, so that infinities are no trouble
        values = np.unique(np.quantile(pooled, np.arange(1, BINS + 1) / BINS, method="inverted_cdf"))
    places = [np.searchsorted(values[:-1], sample, side="left") for sample in (reference, current)]
    return np.bincount(places[0], minlength=len(values)), np.bincount(places[1], minlength=len(values))


def text_counts(reference: NDArray[Any], current: NDArray[Any]) -> tuple[Counts, Counts]:
    """Return how often two samples of words hold each category, as two int64 arrays of one shape (k,).

    The 49 most frequent categories of both samples together are told apart, the others are one.

    Examples
    --------
    >>> text_counts(np.array(["a", "a", "b"], object), np.array(["c", "a"], object))
    (array([2, 1, 0]), array([1, 0, 1]))
    """
    before, after = Counter(reference.tolist()), Counter(current.tolist())
    ranked = sorted(before.keys() | after.keys(), key=lambda word: (-(before[word] + after[word]), word))
    kept = ranked if len(ranked) <= _CATEGORIES else ranked[: _CATEGORIES - 1]
    counts = [[side[word] for word in kept] for side in (before, after)]
    if len(kept) < len(ranked):
        for side, total in zip(counts, (len(reference), len(current)), strict=True):
            side.append(total - sum(side))
    return np.array(counts[0], dtype=np.int64), np.array(counts[1], dtype=np.int64)


def counted(reference: NDArray[Any], current: NDArray[Any]) -> tuple[Counts, Counts]:
    """Return the counts of two samples of one feature: words (object arrays) or floats.

    Examples
    --------
    >>> counted(np.array(["a"], object), np.array(["b"], object))
    (array([1, 0]), array([0, 1]))
    """
    return (text_counts if reference.dtype == object else number_counts)(reference, current)


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
