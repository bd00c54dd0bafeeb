"""What is new in a table: the rows that a write has to add, so that a second run adds none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from windrow.features.arrow import registered
from windrow.stores.engine import engine

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

# Sums over several threads add in another order each time and differ in the last digits.
_TOLERANCE = {"float32": 1e-6, "float64": 1e-9}
_STORED = "windrow_stored_"


def missing(rows: pa.Table, stored: ir.Table, *, every: bool) -> pa.Table:
    """Return the rows that are not stored, compared column by column, exactly; null equals null.

    Parameters
    ----------
    rows
        n rows.
    stored
        Has at least the columns of `rows`, on this thread's engine.
    every
        Whether equal rows count one by one: two given and one stored leave one.

    Examples
    --------
    >>> import pyarrow as pa, ibis
    >>> stored = ibis.memtable(pa.table({"x": [1, None]}))
    >>> missing(pa.table({"x": [1, 1, None]}), stored, every=True).to_pylist()
    [{'x': 1}]
    """
    with registered(engine(), rows) as given:
        left = given.difference(stored.select(given.columns), distinct=not every)
        return left.to_pyarrow().cast(rows.schema)


def changed(rows: pa.Table, stored: ir.Table, *, identity: Sequence[str]) -> pa.Table:
    """Return the computed rows that are not stored under their identity, or stored with other values.

    Parameters
    ----------
    rows
        n rows; `identity` is unique and never null.
    stored
        Has at least the columns of `rows`, on this thread's engine; `identity` is unique.
    identity
        Columns that say which row is which. Floats that differ by less than 1e-9 of themselves
        (float32: 1e-6) are the same.

    Examples
    --------
    >>> import pyarrow as pa, ibis
    >>> rows = pa.table({"k": [1, 2, 3], "x": [1.0, 2.0, 3.0]})
    >>> stored = ibis.memtable(pa.table({"k": [1, 2], "x": [1.0 + 1e-15, 2.5]}))
    >>> changed(rows, stored, identity=["k"]).sort_by("k").to_pylist()
    [{'k': 2, 'x': 2.0}, {'k': 3, 'x': 3.0}]
    """
    with registered(engine(), rows) as given:
        old = stored.select(**{_STORED + name: stored[name] for name in given.columns})
        both = given.left_join(old, [given[name] == old[_STORED + name] for name in identity])
        values = [name for name in given.columns if name not in identity]
        same = [_same(both[name], both[_STORED + name]) for name in values]
        known = both[_STORED + identity[0]].notnull()
        left = both.filter(~reduce(and_, same, known)).select(given.columns)
        return left.to_pyarrow().cast(rows.schema)


def _same(new: ir.Value, old: ir.Value) -> ir.BooleanValue:
    import ibis

    tolerance = _TOLERANCE.get(str(new.type()))
    if tolerance is None:
        return new.identical_to(old)
    size = ibis.greatest(new.abs(), old.abs())
    return new.identical_to(old) | ((new - old).abs() <= size * tolerance).fill_null(False)
