"""Which stored columns each feature is computed from, read off the definition without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ibis.expr.operations as ops

if TYPE_CHECKING:
    from windrow.features.group import FeatureGroup

Origin = tuple[str, str]


def column_lineage(group: FeatureGroup) -> dict[str, list[Origin]]:
    """Return feature -> the (asset key, column) pairs that its values come from.

    Columns that only choose or order rows (filters, join keys, the partition and order of a window) are
    left out, unless nothing else is read.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", cents=payments.amount * 100)
    >>> spend.__globals__["payments"] = payments
    >>> column_lineage(feature_group(Entity("card", card_id="int64"))(spend))
    {'cents': [('sources/payments', 'amount')]}
    """
    known: dict[tuple[Any, str], frozenset[Origin]] = {}
    top = group.expression.op()
    return {feature: sorted(_origins(top, feature, known)) for feature in group.features}


def _origins(relation: Any, column: str, known: dict[tuple[Any, str], frozenset[Origin]]) -> frozenset[Origin]:
    if isinstance(relation, ops.UnboundTable):
        return frozenset({(relation.name, column)})
    if (relation, column) not in known:
        read = _reads(relation, column)
        known[relation, column] = frozenset().union(*(_origins(r, c, known) for r, c in read))
    return known[relation, column]


def _reads(relation: Any, column: str) -> list[tuple[Any, str]]:
    """The columns of the relations directly below that make up `column`."""
    if isinstance(relation, ops.Set):
        return [(relation.left, column), (relation.right, column)]
    value = relation.values[column]
    if isinstance(value, ops.Relation):
        return [(value, column)]
    return _fields(value, wide=False) or _fields(value, wide=True)


def _fields(value: Any, *, wide: bool) -> list[tuple[Any, str]]:
    if isinstance(value, ops.Field):
        return [(value.rel, value.name)]
    if isinstance(value, ops.Subquery):
        return [(value.rel, name) for name in value.rel.schema.names]
    chosen = (value.func,) if isinstance(value, ops.WindowFunction) and not wide else value.__args__
    return [found for child in _flat(chosen) for found in _fields(child, wide=wide)]


def _flat(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if isinstance(item, tuple):
            found += _flat(item)
        elif isinstance(item, ops.Value):
            found.append(item)
    return found
