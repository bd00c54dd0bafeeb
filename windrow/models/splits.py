"""Which rows are trained on and which are judged on."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windrow.clock import duration, from_micros
from windrow.errors import DataError
from windrow.models.service import RandomSplit, TimeSplit

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN, TEST, GAP = "train", "test", "gap"


def assign(split: TimeSplit | RandomSplit, times: NDArray[np.int64], identity: pa.Table) -> NDArray[Any]:
    """Return ``train``, ``test`` or ``gap`` for every row, shape (n,).

    Parameters
    ----------
    times
        Event times in UTC microseconds, shape (n,).
    identity
        What tells the rows apart; a random split depends on it and on the seed, not on the rows' order.

    Raises
    ------
    DataError
        If all rows have one time and the split has no rule for that, or if a split gets no row.
    """
    if isinstance(split, TimeSplit):
        same = len(times) > 0 and times.min() == times.max()
        if not same:
            return _checked(by_time(split, times), split)
        if split.one_snapshot is None:
            raise DataError(
                f"all {len(times)} rows have one time ({from_micros(int(times[0])).date()}), so no time split is possible",
                next_step="write split=RandomSplit(0.25), or TimeSplit(..., one_snapshot=RandomSplit(0.25))",
            )
        split = split.one_snapshot
    return _checked(by_lot(split, times, identity), split)


def by_time(split: TimeSplit, times: NDArray[np.int64]) -> NDArray[Any]:
    """Put the last `test` of the rows' time into ``test`` and the `gap` before it into ``gap``.

    Examples
    --------
    >>> by_time(TimeSplit(test="2s", gap="1s"), np.array([1, 2, 3, 4, 5]) * 1_000_000).tolist()
    ['train', 'train', 'gap', 'test', 'test']
    """
    begin = int(times.max(initial=0)) - duration(split.test)
    return np.where(times > begin, TEST, np.where(times > begin - duration(split.gap), GAP, TRAIN)).astype(object)


def by_lot(split: RandomSplit, times: NDArray[np.int64], identity: pa.Table) -> NDArray[Any]:
    """Put the share `test` of the rows into ``test``: those whose hash (of seed and identity) is smallest."""
    texts = zip(
        times.tolist(), *(identity.column(name).to_pylist() for name in sorted(identity.column_names)), strict=True
    )
    lots = np.array([_lot(split.seed, row) for row in texts], dtype=np.uint64)
    chosen = np.argsort(lots, kind="stable")[: round(split.test * len(lots))]
    made = np.full(len(lots), TRAIN, dtype=object)
    made[chosen] = TEST
    return made


def _lot(seed: int, row: tuple[Any, ...]) -> int:
    return int.from_bytes(blake2b(repr((seed, row)).encode(), digest_size=8).digest(), "big")


def _checked(made: NDArray[Any], split: TimeSplit | RandomSplit) -> NDArray[Any]:
    counts = {name: int((made == name).sum()) for name in (TRAIN, TEST, GAP)}
    for name in (TRAIN, TEST):
        if not counts[name]:
            raise DataError(
                f"the {name} split has no row",
                exists=f"{len(made)} labelled rows: {counts[TRAIN]} train, {counts[TEST]} test, {counts[GAP]} in the gap ({split})",
                next_step="change the test or gap of the split, or bring data of a longer time",
            )
    return made
