"""The events that windows are computed from: read for the keys asked about, each id once, ordered by key and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow.clock import from_micros
from windrow.features.agg import Agg, Aggregate
from windrow.features.folding import Column
from windrow.features.order import by_key_and_time
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends import BaseBackend
    from numpy.typing import NDArray

    from windrow.features.merge import Needles

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# Below this many rows asked about it pays to read only the events of their keys.
_FEW = 100_000
_ORDERED = ("last", "first")


def read_events(
    con: BaseBackend, spec: Aggregate, columns: Sequence[str], *, table: ir.Table, asked: pa.Table, until: int
) -> pa.Table:
    """Return the events that happened before `until` for the keys `asked` about, each id once.

    Parameters
    ----------
    table
        Every row of the source, as an Ibis table of `con`.
    asked
        Key columns by the source's names; repeats are fine.

    Returns
    -------
    pyarrow.Table
        Keys, id, `columns`, both times and ``_seq``; at times also events of keys that nobody asked about.
    """
    import ibis

    ids = [spec.id] if spec.id else []
    read = list(dict.fromkeys([*spec.keys, *ids, *columns, EVENT_TIME, KNOWN_AT, SEQ]))
    rows = table.filter(table[EVENT_TIME] < ibis.literal(from_micros(until), type=table[EVENT_TIME].type()))
    if not spec.keys or asked.num_rows >= _FEW:
        found = con.to_pyarrow(rows.select(read))
    else:
        keys = ibis.memtable(asked.group_by(list(spec.keys)).aggregate([]))
        found = con.to_pyarrow(rows.semi_join(keys, list(spec.keys)).select(read))
        found = _with_other_versions(con, spec.id, found, rows.select(read)) if spec.id else found
    return _first_versions(found, spec.id) if spec.id else found


def _with_other_versions(con: BaseBackend, id: str, found: pa.Table, rows: ir.Table) -> pa.Table:  # noqa: A002
    """Add what has an id of the events found and another key: it may be the version that counts."""
    import ibis

    wanted = ibis.memtable(pa.table({id: pc.unique(found.column(id)).drop_null()}))
    every = rows.semi_join(wanted, [id])
    if con.to_pyarrow(every.count()).as_py() == found.num_rows - found.column(id).null_count:
        return found
    missing = found.filter(pc.is_null(found.column(id)))
    return pa.concat_tables([missing, con.to_pyarrow(every).cast(missing.schema)])


def _first_versions(rows: pa.Table, id: str) -> pa.Table:  # noqa: A002 - the field's own word
    """Of the events with one id, the one that was known first; those without an id are all kept."""
    ids = rows.column(id)
    if _ascending(ids):
        return rows
    different = pc.unique(ids).drop_null()
    if len(different) == len(ids) - ids.null_count:
        return rows
    number = pc.index_in(ids, value_set=different, skip_nulls=True)
    code = np.asarray(pc.fill_null(number, -1)).astype(np.int64)
    event, known, seq = (micros(rows.column(c)) for c in (EVENT_TIME, KNOWN_AT, SEQ))
    order = np.lexsort((seq, event, np.maximum(event, known), code))
    first = _differs(code[order]) | (code[order] < 0)
    return rows.take(pa.array(np.sort(order[first])))


def _ascending(ids: pa.ChunkedArray) -> bool:
    """Whether ids are numbers that grow from row to row, as they often do: then none comes twice."""
    if not pa.types.is_integer(ids.type) or ids.null_count:
        return False
    numbers = ids.to_numpy()
    return bool((numbers[1:] > numbers[:-1]).all())


class Kinds(NamedTuple):
    """The different (key, value) of a column: `pairs` in order, each ``key * len(values) + value``."""

    pairs: Ints
    values: pa.Array

    def number(self, code: Ints, column: pa.ChunkedArray) -> Ints:
        """Return the number of each (key, value), -1 where it never occurs."""
        place = pc.index_in(column.cast(self.values.type), value_set=self.values, skip_nulls=True)
        found = np.asarray(pc.fill_null(place, -1)).astype(np.int64)
        if not len(self.pairs):
            return np.full(len(found), -1)
        pair = code * len(self.values) + found
        at = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        return np.where((found >= 0) & (self.pairs[at] == pair), at, -1)


@dataclass(frozen=True)
class Events:
    """n events in the order of (key, event time, known_at, id).

    Attributes
    ----------
    rows
        Where they were read from; `at` is each one's place there.
    code, event, eff
        int64 of shape (n,): number of the key, event time, and when it could be used.
    group
        int64 of shape (n,): equal for neighbours that nothing but their values tells apart; None if there are none.
    """

    rows: pa.Table
    at: Ints
    code: Ints
    event: Ints
    eff: Ints
    group: Ints | None
    _plain: dict[str, tuple[NDArray[Any], Bools | None]] = field(default_factory=dict)
    _columns: dict[Any, tuple[Column, Kinds | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pa.Table, spec: Aggregate, needles: Needles) -> Events:
        """Order the events of the keys that are asked about."""
        types = [values.type for values in needles.values]
        keys = [rows.column(k).cast(t).combine_chunks() for k, t in zip(spec.keys, types, strict=True)]
        code = needles.codes(keys, rows.num_rows)
        event, known = micros(rows.column(EVENT_TIME)), micros(rows.column(KNOWN_AT))
        asked = np.flatnonzero(code >= 0)
        at = asked[by_key_and_time(code[asked], event[asked])]
        group = _order_ties(at, code, event, known, rows.column(spec.id) if spec.id else None)
        return cls(rows, at, code[at], event[at], np.maximum(event[at], known[at]), group)

    def part(self, begin: int, end: int) -> Events:
        """Return the events [begin, end)."""
        part = slice(begin, end)
        group = None if self.group is None else self.group[part]
        return Events(self.rows, self.at[part], self.code[part], self.event[part], self.eff[part], group, self._plain)

    def column(self, made: Agg) -> tuple[Column, Kinds | None]:
        """Return what the function `made` reads of each event."""
        kind = made.kind if made.kind in ("distinct", "streak") else made.kind in _ORDERED
        key = made.column, made.where, kind
        if key not in self._columns:
            self._columns[key] = self._column(made)
        return self._columns[key]

    def places(self, made: Agg) -> Ints:
        """Return each event's row in the table read, in the order in which `made` takes them."""
        return self.at[self._order(made)]

    def _column(self, made: Agg) -> tuple[Column, Kinds | None]:
        at = self.places(made) if made.kind in _ORDERED else self.at
        values, valid = (np.zeros(0, np.bool_), None) if made.column is None else self._values(made.column)
        values, valid = values[at] if len(values) else values, None if valid is None else valid[at]
        if made.where is not None:
            true, known = self._values(made.where)
            true = (true if known is None else true & known)[at]
            valid = true if valid is None else valid & true
        if made.kind != "distinct":
            edge = self._moment_ends() if made.kind == "streak" else np.zeros(0, np.int64)
            return Column(valid, values, edge), None
        kinds, kind = self._kinds(made.column or "")
        return Column(valid, kind, np.searchsorted(self.code, self.code)), kinds

    def _moment_ends(self) -> Ints:
        """For each event the place of the next one of a later moment, or of another key."""
        first = np.append(np.flatnonzero(_differs(self.code) | _differs(self.event)), len(self.at))
        return np.repeat(first[1:], np.diff(first))

    def _kinds(self, column: str) -> tuple[Kinds, Ints]:
        stored = self.rows.column(column)
        values = pc.unique(stored).drop_null()
        found = np.asarray(pc.fill_null(pc.index_in(stored, value_set=values, skip_nulls=True), 0)).astype(np.int64)
        pairs, kind = np.unique(self.code * max(len(values), 1) + found[self.at], return_inverse=True)
        return Kinds(pairs, values), kind.astype(np.int64)

    def _values(self, column: str) -> tuple[NDArray[Any], Bools | None]:
        if column not in self._plain:
            self._plain[column] = plain(self.rows.column(column))
        return self._plain[column]

    def _order(self, made: Agg) -> Ints | slice:
        """Order what is tied by its value."""
        if self.group is None:
            return slice(None)
        tied = _members(_differs(self.group))
        rank = _rank(self.rows.column(made.column).take(pa.array(self.at[tied])))
        order = np.arange(len(self.at))
        order[tied] = tied[np.lexsort((rank, self.group[tied]))]
        return order


def plain(column: pa.ChunkedArray) -> tuple[NDArray[Any], Bools | None]:
    """Return values as bool, int64 or float64 (none for text) and which are there (None: all); NaN is missing.

    Examples
    --------
    >>> plain(pa.chunked_array([[1, None]]))
    (array([1, 0]), array([ True, False]))
    """
    valid = None if not column.null_count else np.asarray(pc.is_valid(column))
    if pa.types.is_boolean(column.type):
        return np.asarray(pc.fill_null(column, False)), valid
    if pa.types.is_floating(column.type):
        values = np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")))
        there = ~np.isnan(values)
        return (values, None) if there.all() else (np.where(there, values, 0.0), there)
    if pa.types.is_integer(column.type) or pa.types.is_timestamp(column.type):
        return np.asarray(pc.fill_null(column.cast(pa.int64()), 0)), valid
    return np.zeros(0, np.bool_), valid


def micros(column: pa.ChunkedArray) -> Ints:
    """Return whole numbers or times (in UTC microseconds) as int64."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", "UTC"))
    return np.asarray(column.cast(pa.int64()).to_numpy())


def _order_ties(at: Ints, code: Ints, event: Ints, known: Ints, ids: Any) -> Ints | None:
    """Order `at` where key and time are equal, in place; return the groups that remain tied."""
    first = _differs(code[at]) | _differs(event[at])
    tied = _members(first)
    if not len(tied):
        return None
    chosen, group = at[tied], np.cumsum(first)[tied]
    rank = np.zeros(len(tied), np.int64) if ids is None else _rank(ids.take(pa.array(chosen)))
    order = np.lexsort((rank, known[chosen], group))
    at[tied] = chosen[order]
    first[tied] = _differs(group) | _differs(known[at[tied]]) | _differs(rank[order])
    return np.cumsum(first) if not first.all() else None


def _members(first: Bools) -> Ints:
    """Return the places of those that share their group, where `first` begins a group."""
    return np.flatnonzero(~first | np.append(~first[1:], False))


def _differs(values: NDArray[Any]) -> Bools:
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _rank(column: pa.ChunkedArray) -> Ints:
    """Return the place of each value among the different ones in order, -1 where it is missing."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = pc.unique(column).drop_null()
    place = pc.index_in(column, value_set=values.take(pc.sort_indices(values)), skip_nulls=True)
    return np.asarray(pc.fill_null(place, -1)).astype(np.int64)
