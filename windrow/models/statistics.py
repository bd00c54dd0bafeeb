"""What a training dataset holds: rows, labels and features of each split, in numbers that fit on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.clock import from_micros
from windrow.features.contract import MISSING_TEXT, Frame

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_TOP = 5


class LabelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the rows of a split.

    Attributes
    ----------
    mean, std
        Of a class (0 or 1) the mean is its share.
    classes
        Value -> rows where there are at most ten values, else nothing.
    """

    mean: float
    std: float
    classes: dict[str, int] = {}


class FeatureStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One feature in one split.

    Attributes
    ----------
    missing
        Rows without a value; they count in nothing else here.
    mean, std, quantiles
        Of numbers; the quantiles are the least, 5, 25, 50, 75 and 95 %, and the greatest.
    distinct, top
        Of text: how many values there are, and rows of the most frequent five.
    """

    missing: int
    mean: float | None = None
    std: float | None = None
    quantiles: list[float] = []
    distinct: int | None = None
    top: dict[str, int] = {}


class SplitStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One split: its rows, their first and last time (UTC microseconds), labels and features."""

    rows: int
    first: int
    last: int
    label: LabelStatistics
    features: dict[str, FeatureStatistics]


def statistics_of(frame: Frame, times: NDArray[np.int64], labels: NDArray[np.float64]) -> SplitStatistics:
    """Return what a split holds.

    Parameters
    ----------
    frame
        Canonical arrays by feature, shape (n,), n at least 1.
    times, labels
        UTC microseconds and what came of each row, shape (n,).

    Examples
    --------
    >>> made = statistics_of({"x": np.array([2, np.nan], dtype=np.float32)}, np.array([1, 5]), np.array([0.0, 1.0]))
    >>> made.label.mean, made.features["x"].missing
    (0.5, 1)
    """
    return SplitStatistics(
        rows=len(times),
        first=int(times.min()),
        last=int(times.max()),
        label=_label(labels),
        features={
            name: _text(values) if values.dtype == object else _feature(values) for name, values in frame.items()
        },
    )


def as_table(splits: Mapping[str, SplitStatistics]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table of a dataset's splits: times and labels first, then a feature a row."""
    if not splits:
        return [], []
    rows = [["time", *(f"{_day(of.first)} to {_day(of.last)}" for of in splits.values())]]
    rows.append(["label", *(_spread(of.label.mean, of.label.std, of.label.classes) for of in splits.values())])
    for name in next(iter(splits.values())).features:
        cells = [of.features[name] for of in splits.values()]
        rows.append([name, *(_spread(f.mean, f.std, f.top) + _missing(f.missing) for f in cells)])
    return ["", *splits], rows


def _spread(mean: float | None, std: float | None, counts: Mapping[str, int]) -> str:
    told = "" if mean is None else f"{mean:.4g} ± {std:.3g}"
    listed = ", ".join(f"{value}: {count:,}" for value, count in list(counts.items())[:3])
    return f"{told} ({listed})" if told and listed else told or listed or "nothing"


def _missing(count: int) -> str:
    return f", {count:,} missing" if count else ""


def _day(micros: int) -> str:
    return from_micros(micros).strftime("%Y-%m-%d")


def _label(values: NDArray[np.float64]) -> LabelStatistics:
    found = Counter(values.tolist())
    classes = {f"{value:g}": count for value, count in sorted(found.items())} if len(found) <= 10 else {}
    return LabelStatistics(mean=_short(values.mean()), std=_short(values.std()), classes=classes)


def _text(values: NDArray[Any]) -> FeatureStatistics:
    found = Counter(values.tolist())
    missing = found.pop(MISSING_TEXT, 0)
    # Equally frequent ones by name: the same rows give the same document.
    top = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:_TOP]
    return FeatureStatistics(missing=missing, distinct=len(found), top=dict(top))


def _feature(values: NDArray[Any]) -> FeatureStatistics:
    known, missing = values[np.isfinite(values)].astype(np.float64), int(np.isnan(values).sum())
    if not len(known):
        return FeatureStatistics(missing=missing)
    quantiles = [_short(q) for q in np.quantile(known, QUANTILES)]
    return FeatureStatistics(missing=missing, mean=_short(known.mean()), std=_short(known.std()), quantiles=quantiles)


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")
