"""Comparisons that are never true: of a text with a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis.expr.operations as ops

from windrow.errors import DeclarationError

if TYPE_CHECKING:
    import ibis.expr.types as ir


def refuse_mixed(table: ir.Table, *, where: str) -> None:
    """Raise if `table` looks for texts among numbers, or for numbers among texts.

    Ibis refuses ``==`` and its kin between the two by itself, and lets ``isin`` pass.

    Raises
    ------
    DeclarationError
        Naming the column.

    Examples
    --------
    >>> import ibis
    >>> loans = ibis.table({"term": "string"}, name="loans")
    >>> refuse_mixed(loans.filter(loans.term.isin(["36"])), where="long")
    >>> refuse_mixed(loans.filter(loans.term.isin([36])), where="long")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: long looks for a number in 'term', which is a string: nothing will ever be found. Next: write the values as 'term' has them.
    """
    for node in table.op().find(ops.InValues):
        looked_in, text = getattr(node.value, "name", "a column"), node.value.dtype.is_string()
        others = [option for option in node.options if not option.dtype.is_null()]
        if any(option.dtype.is_string() != text for option in others):
            raise DeclarationError(
                f"{where} looks for a {'number' if text else 'text'} in {looked_in!r}, which is {'a string' if text else node.value.dtype}: nothing will ever be found",
                next_step=f"write the values as {looked_in!r} has them",
            )
