"""Probing: change one input column at a time on a sample of rows, and see which outputs change.

For steps whose text cannot be read (a Python function on DataFrames). What a probe finds is real; what it does not
find may still be there, so the lineage says ``probed``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from windrow.features.query_lineage import NOTHING, Read, Reads, Relation

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = 200
_HOUR = 3_600_000_000

Tables = Mapping[str, "pa.Table"]
Step = Callable[[dict[str, "pa.Table"]], "pa.Table"]


class Change(NamedTuple):
    """What one change of an input did to an output.

    Attributes
    ----------
    rows
        ``same``; ``fewer`` (or more: rows came or went, as with a filter); ``other`` (rows have other keys or times).
    columns
        Columns of which a row that is still there has another value.
    bags
        Columns whose values, taken without their rows, are others.
    """

    rows: str
    columns: frozenset[str]
    bags: frozenset[str]


def probe(step: Step, tables: Tables, *, identity: Sequence[str], seed: int = 0) -> Relation:
    """Return what a step reads, found by changing one column after the other.

    Parameters
    ----------
    step
        From tables by name to the output table; called once per change, about four times per input column.
    tables
        A sample of each input; see `sample`.
    identity
        Columns of the output that say which row it is: keys and times.
    seed
        The same seed makes the same changes.

    Returns
    -------
    Relation
        Reads of the kind ``probed`` for every column outside `identity`, and for the rows. A change on which
        the step raises counts for all of them: it noticed.

    Examples
    --------
    >>> import pyarrow as pa
    >>> def double(tables):
    ...     t = tables["t"]
    ...     return t.select(["k", "a"]).append_column("twice", pa.compute.multiply(t["a"], 2))
    >>> rows = {"t": pa.table({"k": [1, 2, 3], "a": [1, 5, 9], "b": [3, 3, 4]})}
    >>> made = probe(double, rows, identity=["k"])
    >>> [tuple(read) for read in made.columns["twice"]], [read.column for read in made.rows]
    ([('t', 'a', 'probed')], ['k'])
    """
    before = step(dict(tables))
    columns = {name: NOTHING for name in before.column_names if name not in identity}
    rows = NOTHING
    for table, given in tables.items():
        for column in given.column_names:
            read: Reads = frozenset({Read(table, column, "probed")})
            change = _noticed(step, tables, (table, column), before=before, identity=identity, seed=seed)
            rows |= NOTHING if change.rows == "same" else read
            for name in change.columns:
                columns[name] |= read
    return Relation(columns, rows)


def sample(table: pa.Table, rows: int = SAMPLE) -> pa.Table:
    """Return the first `rows` rows: neighbours in time and key, so that joins and windows find partners."""
    return table.slice(0, rows)


def variations(column: pa.ChunkedArray, seed: int = 0) -> Iterator[pa.ChunkedArray]:
    """Yield changed copies of a column: all values moved, some moved, in another order, every third one null.

    Examples
    --------
    >>> import pyarrow as pa
    >>> [made.to_pylist() for made in variations(pa.chunked_array([[1, 2, 3]]))][0]
    [8, 9, 10]
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    random = np.random.default_rng(seed)
    moved = _moved(column)
    yield moved
    some = random.random(len(column)) < 0.5
    yield pc.if_else(pa.array(some), moved, column)
    yield column.take(pa.array(random.permutation(len(column))))
    if not pa.types.is_timestamp(column.type):  # a row without a time is no row
        yield pc.if_else(pa.array(np.arange(len(column)) % 3 == 0), pa.scalar(None, column.type), column)


def difference(before: pa.Table, after: pa.Table, identity: Sequence[str]) -> Change:
    """Compare two outputs, whatever the order of their rows; `identity` says which row is which.

    Examples
    --------
    >>> import pyarrow as pa
    >>> one, other = pa.table({"k": [1, 2], "x": [5, 6], "y": [0, 0]}), pa.table({"k": [2, 1], "x": [6, 7], "y": [0, 0]})
    >>> difference(one, other, ["k"])
    Change(rows='same', columns=frozenset({'x'}), bags=frozenset({'x'}))
    """
    if before.equals(after):
        return Change("same", frozenset(), frozenset())
    columns = [name for name in before.column_names if name not in identity]
    bags = {c for c in columns if _counted(before, [c]) != _counted(after, [c])}
    old, new = _counted(before, identity), _counted(after, identity)
    rows = "same" if old == new else "fewer" if old <= new or new <= old else "other"
    kept = old & new
    sides = [table if rows == "same" else _only(table, identity, kept) for table in (before, after)]
    differ = (c for c in columns if _counted(sides[0], [*identity, c]) != _counted(sides[1], [*identity, c]))
    return Change(rows, frozenset(differ), frozenset(bags))


def _noticed(
    step: Step, tables: Tables, place: tuple[str, str], *, before: pa.Table, identity: Sequence[str], seed: int
) -> Change:
    table, column = place
    found = list[Change]()
    for changed in variations(tables[table].column(column), seed):
        index = tables[table].column_names.index(column)
        replaced = {**tables, table: tables[table].set_column(index, column, changed)}
        try:
            found.append(difference(before, step(replaced), identity))
        except Exception:  # noqa: BLE001 - a stranger's function may raise anything; that it does is the answer
            every = frozenset(before.column_names) - set(identity)
            found.append(Change("fewer", every, every))
    rows = max((change.rows for change in found), key=["same", "fewer", "other"].index)
    # Where a key or time was changed, a row is compared with another one that now has its key: then the values,
    # taken without their rows, must differ as well.
    columns = _together(change.columns & change.bags if rows == "other" else change.columns for change in found)
    return Change(rows, columns, columns)


def _together(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset(name for part in parts for name in part)


def _moved(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_boolean(kind):
        return pc.invert(column)
    if pa.types.is_timestamp(kind):
        return pc.add(column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()), 25 * _HOUR).cast(kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pc.add(column, pa.scalar(7, kind))
    return pc.binary_join_element_wise(column.cast(pa.string()), pa.scalar("x"), "")


def _counted(table: pa.Table, columns: Sequence[str]) -> Counter[Any]:
    values = [_plain(table.column(name)) for name in columns]
    return Counter(zip(*values, strict=True)) if values else Counter(range(table.num_rows))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    # NaN differs from itself, and a value that moved by less than its rounding did not move.
    values = column.to_pylist()
    return [_rounded(v) if isinstance(v, float) else v for v in values]


def _rounded(value: float) -> float | str:
    return "nan" if math.isnan(value) else float(f"{value:.9g}")


def _only(table: pa.Table, identity: Sequence[str], kept: Counter[Any]) -> pa.Table:
    import pyarrow as pa

    rows = zip(*(_plain(table.column(name)) for name in identity), strict=True)
    return table.filter(pa.array([row in kept for row in rows], pa.bool_()))
