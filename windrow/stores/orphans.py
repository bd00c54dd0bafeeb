"""Rows of a group that only deleted rows of its inputs would make: they go when their inputs went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from windrow.stores.delta import DELETED, arrow_schema
from windrow.stores.engine import engine

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from windrow.features.group import FeatureGroup
    from windrow.stores.lake import Lake


def delete_orphans(
    group: FeatureGroup, lake: Lake, *, evaluated: Callable[[bool], ir.Table], identity: Sequence[str]
) -> int:
    """Delete what a group stores because of rows that its inputs have deleted; return how many rows.

    A row that is not made any more for another reason stays, such as last week's of a definition that keeps
    the newest time of each key: that is history.

    Parameters
    ----------
    evaluated
        Makes the group's rows: over all rows of the inputs that ever were (True), or those in force (False).
    identity
        Keys and times.
    """
    table = lake.table(group.key)
    if not table.exists or not any(_has_deletes(lake, item.key) for item in group.inputs.values()):
        return 0
    ever, now = (evaluated(deleted).select(list(identity)) for deleted in (True, False))
    gone = ever.difference(now, distinct=True).to_pyarrow()
    # Rows with a missing key or time were never stored.
    return (
        table.delete(gone.cast(table.schema.empty_table().select(list(identity)).schema)).rows if gone.num_rows else 0
    )


def _has_deletes(lake: Lake, key: str) -> bool:
    table = lake.table(key)
    if not table.exists or DELETED not in arrow_schema(table.open()).names:
        return False
    rows = table.scan(engine(), deleted=True)
    return bool(rows.count().to_pyarrow().as_py() > table.scan(engine()).count().to_pyarrow().as_py())
