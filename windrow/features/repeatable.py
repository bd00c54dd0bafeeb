"""Definitions give the same for the same rows: they ask neither the machine's clock nor chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ibis.expr.operations as ops

from windrow.errors import DeclarationError

if TYPE_CHECKING:
    import ibis.expr.types as ir

_CLOCK, _CHANCE = "the machine's clock", "chance"
_IBIS = {
    ops.TimestampNow: _CLOCK, ops.DateNow: _CLOCK, ops.RandomScalar: _CHANCE, ops.RandomUUID: _CHANCE,
}  # fmt: skip
_SQL = {
    "CurrentTimestamp": _CLOCK, "CurrentDate": _CLOCK, "CurrentTime": _CLOCK, "Localtimestamp": _CLOCK, "Localtime": _CLOCK,
    "now": _CLOCK, "get_current_timestamp": _CLOCK, "transaction_timestamp": _CLOCK, "Rand": _CHANCE, "Uuid": _CHANCE,
}  # fmt: skip


def refuse_moving(table: ir.Table, *, where: str) -> None:
    """Raise `DeclarationError` if a definition gives something else each time it is executed.

    Training would learn what was so when the training ran, and serving would say what is so now.

    Examples
    --------
    >>> import ibis
    >>> shops = ibis.table({"shop": "int64", "opened": "timestamp('UTC')"}, name="shops")
    >>> refuse_moving(shops.mutate(age=ibis.now() - shops.opened), where="feature group 'age'")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: feature group 'age' asks the machine's clock, ... Next: measure from event_time, ...
    """
    for found in table.op().find(tuple(_IBIS)):
        raise _moving(_IBIS[type(found)], where)


def refuse_moving_query(tree: Any, *, where: str) -> None:
    """Raise as `refuse_moving` does, for a parsed SQL query.

    Examples
    --------
    >>> import sqlglot
    >>> refuse_moving_query(sqlglot.parse_one("select random() as x from shops"), where="SQL group 'x'")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: SQL group 'x' asks chance, ...
    """
    from sqlglot import exp

    for function in tree.find_all(exp.Func):
        name = function.name.lower() if isinstance(function, exp.Anonymous) else type(function).__name__
        if name in _SQL:
            raise _moving(_SQL[name], where)


def _moving(asked: str, where: str) -> DeclarationError:
    step = "measure from event_time, or compute it on demand from what the request brings"
    told = f"{where} asks {asked}, so that the same rows give something else each time"
    return DeclarationError(told, next_step=step if asked == _CLOCK else "make it of the row's own columns")
