"""The point-in-time look-up in window functions alone, for engines that have no ASOF join.

Rows are ranked by (event_time, known_at, _seq) within their key. Stored rows and those that ask are then put
into one order of time, a stored row before those that ask at its eff, and the greatest rank so far is what was
the newest known row. Everything is Ibis: whatever engine has ``row_number`` and a running ``max`` can do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from windrow.features.merge import Matched
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends import BaseBackend

_ROW, _AT, _ASKS, _RANK, _NEWEST = "windrow_row", "windrow_at", "windrow_asks", "windrow_rank", "windrow_newest"


def windowed(con: BaseBackend, rows: ir.Table, asked: pa.Table, *, keys: dict[str, str], columns: list[str]) -> Matched:
    """Match by window functions.

    Parameters
    ----------
    con
        Any backend of Ibis.
    rows
        Stored rows: keys, columns, event_time, known_at, _seq.
    asked
        The fields that `keys` names and ``event_time``; n rows.
    keys
        Key of the stored rows -> field of `asked`.
    columns
        What to keep of the rows found.
    """
    import ibis

    names = {key: f"windrow_key_{i}" for i, key in enumerate(keys)}
    asks = _asks(asked, keys, names)
    # Nothing that happened after the last time asked about can be known at any.
    stored = _stored(rows.filter(rows[EVENT_TIME] <= asks[_AT].max().as_scalar()), names)
    parts = list(names.values())
    lines = ibis.union(
        stored.select(*parts, _AT, _RANK, windrow_asks=ibis.literal(0, "int64"), windrow_row=ibis.null("int64")),
        asks.select(
            *parts, _AT, windrow_rank=ibis.null("int64"), windrow_asks=ibis.literal(1, "int64"), windrow_row=asks[_ROW]
        ),
    )
    so_far = ibis.window(group_by=parts, order_by=[lines[_AT], lines[_ASKS]], preceding=None, following=0)
    told = lines.mutate(windrow_newest=lines[_RANK].max().over(so_far))
    told = told.filter(told[_ASKS] == 1, told[_NEWEST].notnull()).select(*parts, _ROW, _NEWEST)
    same = [told[part] == stored[part] for part in parts]
    found = told.join(stored, [*same, told[_NEWEST] == stored[_RANK]]).select(told[_ROW], *(stored[c] for c in columns))
    made = con.to_pyarrow(found)
    place = np.full(asked.num_rows, -1, dtype=np.int64)
    place[made.column(_ROW).to_numpy()] = np.arange(made.num_rows)
    return Matched(made.select(columns), place)


def _stored(rows: ir.Table, names: dict[str, str]) -> ir.Table:
    import ibis

    keyed = rows.filter(*(rows[key].notnull() for key in names)) if names else rows
    keyed = keyed.mutate(**{part: _wide(keyed[key]) for key, part in names.items()})
    order = [keyed[name] for name in (EVENT_TIME, KNOWN_AT, SEQ)]
    return keyed.mutate(
        windrow_at=ibis.greatest(keyed[EVENT_TIME], keyed[KNOWN_AT]),
        windrow_rank=ibis.row_number().over(group_by=list(names.values()), order_by=order).cast("int64"),
    )


def _asks(asked: pa.Table, keys: dict[str, str], names: dict[str, str]) -> ir.Table:
    import ibis

    columns: dict[str, Any] = {names[key]: asked.column(field) for key, field in keys.items()}
    columns |= {
        _AT: asked.column(EVENT_TIME).cast(pa.timestamp("us", "UTC")),
        _ROW: pa.array(range(asked.num_rows), pa.int64()),
    }
    rows = ibis.memtable(pa.table(columns))
    rows = rows.mutate(**{part: _wide(rows[part]) for part in names.values()})
    return rows.filter(*(rows[part].notnull() for part in names.values())) if names else rows


def _wide(column: ir.Value) -> ir.Value:
    # Whole numbers of any width are one type, so that both sides can be put together.
    return column.cast("int64") if column.type().is_integer() else column
