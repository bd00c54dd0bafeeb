"""Which rows are trained on, which are tuned on, and which are judged on."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windrow.clock import duration, from_micros
from windrow.errors import DataError, listed
from windrow.models.split import DrawnSplit, GroupSplit, Split, StratifiedSplit, TimeSplit

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN, VALIDATION, TEST, GAP = "train", "validation", "test", "gap"
SPLITS = (TRAIN, VALIDATION, TEST)
_CLASSES = 100  # a label with more values is a number


def assign(
    split: Split, times: NDArray[np.int64], identity: pa.Table, *, labels: NDArray[np.float64] | None = None
) -> NDArray[Any]:
    """Return ``train``, ``validation``, ``test`` or ``gap`` for every row, shape (n,).

    Parameters
    ----------
    times
        Event times in UTC microseconds, shape (n,).
    identity
        What tells the rows apart; a drawn split depends on it and on the seed, not on the rows' order.
    labels
        What came of each row, shape (n,): what a `StratifiedSplit` goes by.

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
    return _checked(_drawn(split, times, identity, labels), split)


def splits_of(split: Split) -> tuple[str, ...]:
    """Return the names of the splits that a declared split makes, in order.

    Examples
    --------
    >>> splits_of(TimeSplit("7d")), splits_of(TimeSplit("7d", validation="7d"))
    (('train', 'test'), ('train', 'validation', 'test'))
    """
    return SPLITS if split.validation else (TRAIN, TEST)


def by_time(split: TimeSplit, times: NDArray[np.int64]) -> NDArray[Any]:
    """Put the last `test` of the rows' time into ``test``, the `validation` before it, and a `gap` before each.

    Examples
    --------
    >>> by_time(TimeSplit(test="2s", gap="1s"), np.array([1, 2, 3, 4, 5]) * 1_000_000).tolist()
    ['train', 'train', 'gap', 'test', 'test']
    """
    gap, end = duration(split.gap), int(times.max(initial=0))
    made = np.full(len(times), TRAIN, dtype=object)
    for name, length in ((TEST, split.test), (VALIDATION, split.validation)):
        if length is None:
            continue
        begin = end - duration(length)
        made[(times > begin) & (times <= end)] = name
        made[(times > begin - gap) & (times <= begin)] = GAP
        end = begin - gap
    return made


def _drawn(
    split: DrawnSplit, times: NDArray[np.int64], identity: pa.Table, labels: NDArray[np.float64] | None
) -> NDArray[Any]:
    if isinstance(split, GroupSplit):
        groups, place = np.unique(np.array([repr(v) for v in identity[split.by].to_pylist()]), return_inverse=True)
        return by_lot(split, _lots(split.seed, [(str(group),) for group in groups]))[place]
    rows = zip(
        times.tolist(), *(identity.column(name).to_pylist() for name in sorted(identity.column_names)), strict=True
    )
    lots = _lots(split.seed, list(rows))
    if not isinstance(split, StratifiedSplit):
        return by_lot(split, lots)
    made = np.full(len(lots), TRAIN, dtype=object)
    for chosen in _strata(labels):
        made[chosen] = by_lot(split, lots[chosen])
    return made


def by_lot(split: DrawnSplit, lots: NDArray[np.uint64]) -> NDArray[Any]:
    """Put the share `test` of the lots into ``test``, the smallest first, then the share `validation`.

    Examples
    --------
    >>> from windrow.models.split import RandomSplit
    >>> by_lot(RandomSplit(0.25, validation=0.25), np.array([7, 1, 9, 3], dtype=np.uint64)).tolist()
    ['train', 'test', 'train', 'validation']
    """
    order = np.argsort(lots, kind="stable")
    test, both = (round(share * len(lots)) for share in (split.test, split.test + split.validation))
    made = np.full(len(lots), TRAIN, dtype=object)
    made[order[:test]], made[order[test:both]] = TEST, VALIDATION
    return made


def _strata(labels: NDArray[np.float64] | None) -> Iterator[NDArray[np.bool_]]:
    if labels is None:
        raise DataError("a stratified split goes by the label, and there is none", next_step="write RandomSplit(0.25)")
    classes = np.unique(labels)
    if len(classes) > _CLASSES:
        raise DataError(
            f"the label has {len(classes)} different values, so there are no classes to split each of",
            next_step="write RandomSplit(0.25), TimeSplit(...) or GroupSplit(...)",
        )
    for one in classes:
        yield labels == one


def _lots(seed: int, rows: list[tuple[Any, ...]]) -> NDArray[np.uint64]:
    return np.array([_lot(seed, row) for row in rows], dtype=np.uint64)


def _lot(seed: int, row: tuple[Any, ...]) -> int:
    return int.from_bytes(blake2b(repr((seed, row)).encode(), digest_size=8).digest(), "big")


def _checked(made: NDArray[Any], split: Split) -> NDArray[Any]:
    parts = (*splits_of(split), GAP) if isinstance(split, TimeSplit) else splits_of(split)
    counts = {name: int((made == name).sum()) for name in parts}
    for name in splits_of(split):
        if not counts[name]:
            told = [f"{count} {'in the gap' if part == GAP else part}" for part, count in counts.items()]
            raise DataError(
                f"the {name} split has no row",
                exists=f"{len(made)} labelled rows: {', '.join(told)} ({split})",
                next_step=f"change {listed(_lengths(split))} of the split, or bring more data",
            )
    return made


def _lengths(split: Split) -> list[str]:
    lengths = ["test", "validation"] if split.validation else ["test"]
    return [*lengths, "gap"] if isinstance(split, TimeSplit) else lengths
