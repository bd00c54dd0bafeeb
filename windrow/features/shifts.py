"""Rows that reach into another entity's: a shift over a window that is not grouped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis.expr.operations as ops

from windrow.errors import DeclarationError

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from windrow.schema import Entity


def refuse_bleeding(table: ir.Table, entity: Entity, *, where: str) -> None:
    """Raise if `table` takes a value from the row before or after without asking whose row that is.

    Sorted by time alone, the row before one team's match is some other team's: a streak goes on from one team
    to the next, and nothing else looks wrong.

    Raises
    ------
    DeclarationError
        Naming the shifted column.

    Examples
    --------
    >>> import ibis
    >>> from windrow.schema import Entity
    >>> games = ibis.table({"team": "string", "won": "bool", "day": "date"}, name="games")
    >>> before = games.mutate(before=games.won.lag().over(ibis.window(group_by="team", order_by="day")))
    >>> refuse_bleeding(before, Entity("team", team="string"), where="form")
    """
    if not entity.keys:
        return
    for window in table.op().find(ops.WindowFunction):
        if isinstance(window.func, ops.Lag | ops.Lead) and not window.group_by:
            column = getattr(window.func.arg, "name", "a column")
            keys = ", ".join(f'"{name}"' for name in entity.key_names)
            raise DeclarationError(
                f"{where} shifts {column!r} over the rows of every {entity.name} together: the row before is another {entity.name}'s",
                next_step=f"group the window: .over(ibis.window(group_by=[{keys}], order_by=...))",
            )
