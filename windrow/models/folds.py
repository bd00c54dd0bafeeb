"""Cross-validation that respects time: every fold is judged on rows later than those it was fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.clock import duration
from windrow.errors import DataError, ModelError

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]

_NEVER = np.iinfo(np.int64).max


class TimeFolds:
    """A ``cv=`` for scikit-learn's searches over rows of any order: an expanding past, judged on what came next.

    As scikit-learn's ``TimeSeriesSplit``, but by the rows' times instead of their places: rows of one time are
    never divided, and a gap is a duration.

    Parameters
    ----------
    times
        Event times, UTC microseconds, shape (n,), in the order of the rows.
    gap
        No row within this time before a fold's judged rows is fitted on, as for `TimeSplit`.
    groups
        Shape (n,); a group that is judged on is not fitted on in that fold.
    labels
        Classes, shape (n,); a fold that has one class only on either side is left out.
    n_splits
        How many folds; fewer where there are not enough times.

    Raises
    ------
    DataError
        If not a single fold can be made.

    Examples
    --------
    >>> folds = TimeFolds(np.array([3, 1, 2]) * 86_400_000_000, n_splits=2)
    >>> [(fit.tolist(), judge.tolist()) for fit, judge in folds.split()]
    [([1], [2]), ([1, 2], [0])]
    """

    def __init__(
        self, times: Any, *, gap: str = "0s", groups: Any = None, labels: Any = None, n_splits: int = 5
    ) -> None:
        self.times, self.gap = np.asarray(times, dtype=np.int64), gap
        sides = [self._fold(begin, end, groups) for begin, end in _blocks(self.times, n_splits)]
        self._folds = [fold for fold in sides if _usable(fold, labels)]
        if not self._folds:
            raise DataError(
                f"no fold can be made of {len(self.times)} rows of {len(np.unique(self.times))} times with a gap of {gap}",
                next_step="give the search a cv= of its own, a smaller gap, or data of a longer time",
            )

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[Fold]:
        """Yield the rows to fit on and the rows to judge on, as positions; scikit-learn calls this."""
        if X is not None and len(X) != len(self.times):
            raise DataError(
                f"these folds were made for {len(self.times)} rows, and there are {len(X)}",
                next_step="search over the whole training split, on the outside of the pipeline",
            )
        yield from self._folds

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds; scikit-learn calls this."""
        return len(self._folds)

    def __repr__(self) -> str:
        return f"TimeFolds({len(self._folds)} of {len(self.times)} rows, gap={self.gap!r})"

    def _fold(self, begin: int, end: int, groups: Any) -> Fold:
        judged = (self.times >= begin) & (self.times < end)
        learned = self.times < begin - duration(self.gap)
        if groups is not None:
            learned &= ~np.isin(np.asarray(groups), np.unique(np.asarray(groups)[judged]))
        return np.flatnonzero(learned), np.flatnonzero(judged)


def refuse_looking_ahead(folds: Sequence[Fold], times: NDArray[np.int64], *, gap: str, where: str) -> None:
    """Raise `ModelError` if a fold is fitted on rows later than the first one it is judged on, or within the gap before.

    Examples
    --------
    >>> refuse_looking_ahead([(np.array([0, 2]), np.array([1]))], np.array([1, 2, 3]), gap="0s", where="the search")
    Traceback (most recent call last):
    windrow.errors.ModelError: the search looks ahead: ...
    """
    for number, (learned, judged) in enumerate(folds, start=1):
        late = int((times[learned] > times[judged].min(initial=_NEVER) - duration(gap)).sum())
        if late:
            within = "" if duration(gap) == 0 else f" or less than the gap of {gap} before it"
            raise ModelError(
                f"{where} looks ahead: fold {number} of {len(folds)} is fitted on {late:,} rows that are later than the "
                f"first row it is judged on{within}, but the service splits by time",
                next_step="leave cv= out, or give their number: windrow makes them in time, with the split's gap",
            )


def _blocks(times: NDArray[np.int64], n_splits: int) -> list[tuple[int, int]]:
    """Return begin and end of each block of about equally many rows, without the first."""
    places = [len(times) * part // (n_splits + 1) for part in range(1, n_splits + 1)]
    begins = sorted({int(value) for value in np.sort(times)[places]}) if len(times) else []
    return list(zip(begins, [*begins[1:], int(times.max(initial=0)) + 1], strict=True))


def _usable(fold: Fold, labels: Any) -> bool:
    if labels is None:
        return all(len(side) for side in fold)
    classes = len(np.unique(labels))
    return all(len(np.unique(np.asarray(labels)[side])) >= min(classes, 2) for side in fold)
