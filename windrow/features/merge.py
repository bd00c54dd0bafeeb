"""The point-in-time look-up by one pass over stored rows: cheap where files are sorted by key and time.

Rows come in batches. A batch is cut wherever the order of (key, event_time, known_at, _seq) is broken. In such
a piece a row is surpassed where a later row of its key is known as early; the others are in the order of eff
too, so that binary search finds the last one with ``eff <= t``, and over all pieces the greatest wins. The
result is right for rows in any order and with any delays, and cheap as long as the pieces are few. Memory
holds one batch and up to two rows for each row that asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow.features.order import by_key_and_time
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

PIECES = 256  # more than a batch's worth of appends, each sorted; beyond that one sort is cheaper
_BITS = 62


@dataclass(frozen=True)
class Needles:
    """What is asked about, in the order of (key, time).

    Attributes
    ----------
    row, code, time
        int64 of shape (m,): number of the spine row, of its key, and its event time; rows with a
        missing key are left out.
    values
        Per key column, its different values in order.
    mixed
        Codes of the columns taken together, one per different key, in order.
    """

    row: Ints
    code: Ints
    time: Ints
    values: list[pa.Array]
    mixed: Ints

    @classmethod
    def of(cls, keys: Sequence[pa.ChunkedArray], times: Ints) -> Needles:
        """Number the keys and sort what is asked."""
        values = [_in_order(column) for column in keys]
        mixed = _mixed(keys, values, len(times))
        # The values of one column are numbered without a gap; of several not all combinations occur.
        different = np.arange(len(values[0])) if len(values) == 1 else np.unique(mixed[mixed >= 0])
        code = mixed if _whole(different) else np.searchsorted(different, mixed)
        asked = np.flatnonzero(mixed >= 0)
        row = asked[by_key_and_time(code[asked], times[asked])]
        return cls(row, code[row], times[row], values, different)

    def codes(self, keys: Sequence[pa.Array], n: int) -> Ints:
        """Return the number of each of `n` stored rows' keys, -1 where nobody asks for it. Repeats are numbered once."""
        if n == 0 or len(self.mixed) == 0:
            return np.full(n, -1)
        starts = np.flatnonzero(np.append(True, _changes(keys, n)))
        mixed = _mixed([k.take(pa.array(starts)) for k in keys], self.values, len(starts))
        found = mixed
        if not _whole(self.mixed):
            place = np.minimum(np.searchsorted(self.mixed, mixed), len(self.mixed) - 1)
            found = np.where(self.mixed[place] == mixed, place, -1)
        return np.repeat(found, np.diff(np.append(starts, n)))


class Matched(NamedTuple):
    """The rows found, and for each spine row (n of them) its place among them, -1 where nothing is known."""

    rows: pa.Table
    place: Ints


class _Stored(NamedTuple):
    """Rows of one batch that somebody asks for: where they are in it, their keys and times."""

    at: Ints
    code: Ints
    eff: Ints
    rank: tuple[Ints, Ints, Ints]

    def part(self, begin: int, end: int) -> _Stored:
        event, known, seq = (r[begin:end] for r in self.rank)
        return _Stored(self.at[begin:end], self.code[begin:end], self.eff[begin:end], (event, known, seq))


def match(
    batches: Iterable[pa.RecordBatch],
    needles: Needles,
    *,
    keys: Sequence[str],
    schema: pa.Schema,
    n: int,
    pieces: int = PIECES,
) -> Matched | None:
    """Return the newest known row for each spine row, or None where the rows lie in more than `pieces` pieces.

    Parameters
    ----------
    batches
        Stored rows: `keys`, the columns of `schema`, event_time, known_at, _seq.
    needles
        What is asked, over key columns of the same types.
    schema
        What to keep of the rows found.
    n
        Rows of the spine.
    """
    place = np.full(n, -1, dtype=np.int64)
    best = np.empty((3, n), dtype=np.int64)
    kept: list[pa.RecordBatch] = []
    length = cut = 0
    for batch in batches:
        stored = _asked(batch, needles, keys)
        ends = _ends(stored)
        cut += max(len(ends) - 2, 0)
        if cut > pieces or _too_wide(stored):
            return None
        for begin, end in zip(ends[:-1], ends[1:], strict=True):
            piece = stored.part(begin, end)
            row, at = _newest(piece, needles)
            held = place[row] >= 0
            if held.any():
                better = _greater(tuple(r[at] for r in piece.rank), best[:, row]) | ~held
                row, at = row[better], at[better]
            best[:, row] = [r[at] for r in piece.rank]
            place[row] = np.arange(length, length + len(row))
            length += len(row)
            kept.append(batch.select(schema.names).take(pa.array(piece.at[at])))
        if length > 2 * n:
            kept, length = _still_found(kept, place), int((place >= 0).sum())
    return Matched(pa.Table.from_batches(kept, schema), place)


def _still_found(kept: list[pa.RecordBatch], place: Ints) -> list[pa.RecordBatch]:
    """Return only what has not been surpassed since, and change `place` to where it stands then."""
    found = np.flatnonzero(place >= 0)
    rows = pa.Table.from_batches(kept).take(pa.array(place[found]))
    place[found] = np.arange(len(found))
    return list(rows.combine_chunks().to_batches())


def _whole(codes: Ints) -> bool:
    """Whether codes are the numbers from 0 on without a gap, as those of one key column are."""
    return len(codes) > 0 and int(codes[-1]) == len(codes) - 1


def _asked(batch: pa.RecordBatch, needles: Needles, keys: Sequence[str]) -> _Stored:
    code = needles.codes([batch.column(k) for k in keys], batch.num_rows)
    at = np.flatnonzero(code >= 0)
    event, known, seq = (_ints(batch.column(c)) for c in (EVENT_TIME, KNOWN_AT, SEQ))
    if len(at) < len(code):
        code, event, known, seq = code[at], event[at], known[at], seq[at]
    return _Stored(at, code, np.maximum(event, known), (event, known, seq))


def _ends(rows: _Stored) -> list[int]:
    """Where pieces begin and end."""
    if len(rows.at) == 0:
        return [0]
    columns = (rows.code, *rows.rank)
    breaks, tied = np.zeros(len(rows.at) - 1, dtype=np.bool_), np.arange(len(rows.at) - 1)
    for column in columns:
        # The next column decides only where all before it are equal, which is rarely the case.
        step = column[tied + 1] - column[tied] if len(tied) < len(breaks) else np.diff(column)
        breaks[tied[step < 0]] = True
        tied = tied[step == 0]
    return [0, *(np.flatnonzero(breaks) + 1).tolist(), len(rows.at)]


def _newest(rows: _Stored, needles: Needles) -> tuple[Ints, Ints]:
    """Spine rows that find something in an ordered piece, and where."""
    first, last, low = rows.code[0], rows.code[-1], rows.eff.min()
    width = rows.eff.max() - low + 2
    begin, end = np.searchsorted(needles.code, first, "left"), np.searchsorted(needles.code, last, "right")
    code, time = needles.code[begin:end], needles.time[begin:end]
    # One number for key and time; 0 is before every eff, so that a time before all of a key's rows finds none.
    stored = (rows.code - first) * width + (rows.eff - low + 1)
    asked = (code - first) * width + np.clip(time - low + 1, 0, width - 1)
    left = _unsurpassed(stored)
    at = np.searchsorted(stored[left], asked, "right") - 1
    place = left[at]
    found = (at >= 0) & (rows.code[place] == code)
    return needles.row[begin:end][found], place[found]


def _unsurpassed(stored: Ints) -> Ints:
    # Rows of later keys have greater numbers, so the least number to come is one of the same key, if there is one.
    least = np.minimum.accumulate(stored[::-1])[::-1]
    return np.flatnonzero(np.append(stored[:-1] < least[1:], True))


def _too_wide(rows: _Stored) -> bool:
    if len(rows.at) == 0:
        return False
    codes = int(rows.code.max()) - int(rows.code.min()) + 1
    return (codes * (int(rows.eff.max()) - int(rows.eff.min()) + 2)).bit_length() > _BITS


def _greater(left: tuple[Any, ...], right: NDArray[np.int64]) -> NDArray[np.bool_]:
    answer: NDArray[np.bool_] = left[2] > right[2]
    for a, b in ((left[1], right[1]), (left[0], right[0])):
        answer = (a > b) | ((a == b) & answer)
    return answer


def _in_order(column: pa.ChunkedArray) -> pa.Array:
    different = pc.unique(column).drop_null()
    return different.take(pc.sort_indices(different))


def _mixed(keys: Sequence[Any], values: Sequence[pa.Array], n: int) -> Ints:
    """One number per key over all of its columns, in the order of the columns; -1 where one is unknown, 0 without columns."""

    def mix(left: Ints, right: tuple[Any, pa.Array]) -> Ints:
        column, known = right
        place = _places(column, known)
        return np.where((left < 0) | (place < 0), -1, left * len(known) + place)

    return reduce(mix, zip(keys, values, strict=True), np.zeros(n, dtype=np.int64))


def _places(column: Any, known: pa.Array) -> Ints:
    """Where values are among `known`, which is in order; -1 for those that are not."""
    if len(column) < len(known) and pa.types.is_integer(known.type):
        # `index_in` makes a hash table of all that is known, again for every batch.
        values, asked = known.to_numpy(), pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        place = np.minimum(np.searchsorted(values, asked), len(values) - 1)
        found = (values[place] == asked) & column.is_valid().to_numpy(zero_copy_only=False)
        return np.where(found, place, -1)
    return _ints(pc.fill_null(pc.index_in(column, value_set=known, skip_nulls=True), -1).cast(pa.int64()))


def _changes(keys: Sequence[pa.Array], n: int) -> NDArray[np.bool_]:
    changed = np.zeros(n - 1, dtype=np.bool_)
    for column in keys:
        # A missing key next to another counts as a change, which only costs a repeat.
        different = pc.fill_null(pc.not_equal(column.slice(1), column.slice(0, n - 1)), True)
        changed |= different.to_numpy(zero_copy_only=False)
    return changed


def _ints(column: Any) -> Ints:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values: Ints = (column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_numpy()
    return values
