"""What a materialisation has already seen, so that the next one does only what is new, or nothing.

Nothing: the definition, its checks and the tables that it reads are those of the last run. Only new rows: the
definition makes each of its rows from one row of one source, so that old rows can only give what they gave.
Whenever that is not certain, everything is evaluated; the outcome is the same (proved by a test), the work is not.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.operations as ops
import msgspec

from windrow.errors import WindrowError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.features.validation import judges_rows_alone
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, fingerprint
from windrow.stores.commits import Point, appended, point_of
from windrow.stores.engine import engine

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from windrow.stores.lake import Lake
    from windrow.stores.metadata import Metadata

_FORMAT = 2
_PLAIN = (ops.UnboundTable, ops.Project, ops.Filter)
_MANY = (ops.WindowFunction, ops.Reduction, ops.Analytic, ops.Subquery, ops.Impure, ops.ScalarUDF)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the last run of a group worked on, and what it found.

    Attributes
    ----------
    definition
        Changes with the definition, its checks and what happens to bad rows; "" where that cannot be told.
    inputs
        Input -> the version of its table that was read.
    seen, rows
        Newest ``_seq`` of the one source of a row-by-row definition, and its number of rows up to it; else 0.
    quarantined, reasons
        What was found bad then.
    seq
        The newest ``_seq`` of the group's own table afterwards.
    """

    definition: str
    inputs: dict[str, Point] = {}
    seen: int = 0
    rows: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = {}
    seq: int = 0


def last(group: FeatureGroup, metadata: Metadata) -> Progress | None:
    """Return what the last finished run recorded, or None."""
    stored = metadata.definition(_key(group))
    return None if stored is None else msgspec.convert(stored.definition, Progress)


def record(group: FeatureGroup, metadata: Metadata, done: Progress) -> None:
    """Keep what a finished run has seen."""
    metadata.record_definition(_key(group), fingerprint(done), msgspec.to_builtins(done))


def now(group: FeatureGroup, lake: Lake) -> Progress:
    """Return what a run that starts now will see; call it before anything is read.

    Raises
    ------
    NotFoundError
        If an input was never materialised.
    """
    inputs = {owner.key: point_of(lake.table(owner.key)) for owner in group.inputs.values()}
    return Progress(definition=_definition(group), inputs=inputs)


def same(lake: Lake, done: Progress, state: Progress) -> bool:
    """Whether a run would read with the same definition the same rows as the one that is done; a compaction keeps them."""
    if not done.definition or (done.definition, done.inputs.keys()) != (state.definition, state.inputs.keys()):
        return False
    return all(appended(lake.table(key), done.inputs[key], point) == [] for key, point in state.inputs.items())


def counted(group: FeatureGroup, lake: Lake, state: Progress) -> Progress:
    """Add how far the source of a row-by-row definition was read."""
    source = row_wise(group)
    if source is None:
        return state
    rows = lake.table(source.key).scan(engine())
    facts = rows.aggregate(seen=rows[SEQ].max(), rows=rows.count()).to_pyarrow().to_pylist()[0]
    return msgspec.structs.replace(state, seen=facts["seen"] or 0, rows=facts["rows"])


def row_wise(group: FeatureGroup) -> Source | None:
    """Return the one source of a definition that makes each row from one row of it alone, else None.

    Examples
    --------
    >>> from windrow import Entity, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def cents(payments):
    ...     return payments.filter(payments.amount > 0).select("card_id", cents=payments.amount * 100)
    >>> def share(payments):
    ...     return payments.select("card_id", share=payments.amount / payments.amount.max())
    >>> cents.__globals__["payments"] = payments
    >>> [row_wise(feature_group(Entity("card", card_id="int64"))(f)) is payments for f in (cents, share)]
    [True, False]
    """
    inputs = list(group.inputs.values())
    if len(inputs) != 1 or not isinstance(inputs[0], Source) or hasattr(group.function, "definition"):
        return None
    nodes = list(group.expression.op().find(ops.Node))
    alone = all(isinstance(n, _PLAIN) for n in nodes if isinstance(n, ops.Relation))
    if not alone or any(isinstance(n, _MANY) for n in nodes):
        return None
    return inputs[0] if _keys(group) is not None else None


def new_rows(group: FeatureGroup, lake: Lake, done: Progress | None, state: Progress) -> ir.Table | None:
    """Return the source's rows that the last run has not seen, if evaluating these alone is the same; else None.

    It is not when a row came in behind the last one seen, when rows are gone, or when another row has the keys
    and times of a new one, or of one that a new one corrects: of rows that are alike none passes, of one alone it may.
    """
    source, keys = row_wise(group), _keys(group)
    if source is None or keys is None or done is None or not done.definition or done.definition != state.definition:
        return None
    rows = lake.table(source.key).scan(engine())
    before = rows.filter(rows[SEQ] <= done.seen).count().to_pyarrow().as_py()
    if not done.seen or before != done.rows or not judges_rows_alone(group):
        return None
    fresh = _newest(rows.filter(rows[SEQ] > done.seen), source)
    identity = list(dict.fromkeys([*keys, EVENT_TIME, KNOWN_AT]))
    touched = rows.semi_join(fresh, source.id) if source.id else fresh  # with what the new rows correct
    alike = rows.semi_join(touched.select(identity).distinct(), identity) if keys else rows
    # Rows without a key are bad in any case, and are alike to nothing.
    whole = fresh.filter([fresh[name].notnull() for name in identity])
    if _newest(alike, source).count().to_pyarrow().as_py() != whole.count().to_pyarrow().as_py():
        return None
    return fresh.select(*dict.fromkeys([*source.fields, EVENT_TIME, KNOWN_AT]))


def _newest(rows: ir.Table, source: Source) -> ir.Table:
    if not source.id:
        return rows
    rank = ibis.row_number().over(group_by=source.id, order_by=rows[SEQ].desc())
    return rows.mutate(windrow_rank=rank).filter(ibis._.windrow_rank == 0).drop("windrow_rank")


def _keys(group: FeatureGroup) -> list[str] | None:
    """Return the source's columns that are the group's keys, or None where a key is computed."""
    found = []
    for key in group.entity.key_names:
        value: Any = group.expression.op().values[key]
        while isinstance(value, ops.Cast | ops.Field) and not isinstance(getattr(value, "rel", None), ops.UnboundTable):
            value = value.arg if isinstance(value, ops.Cast) else value.rel.values[value.name]
        if not isinstance(value, ops.Field):
            return None
        found.append(value.name)
    return found


def _definition(group: FeatureGroup) -> str:
    text = _text_of_checks(group)
    return "" if text is None else fingerprint([_FORMAT, group.fingerprint, str(group.checks), text, group.on_bad])


def _text_of_checks(group: FeatureGroup) -> str | None:
    """Return the text of the module with the checks: rows must be judged again when it changes."""
    if group.checks is None:
        return ""
    try:
        if group.checks.given is None:
            return group.checks.source_path().read_text(encoding="utf-8")
        return inspect.getsource(inspect.getmodule(group.checks.given) or group.checks.given)
    except (OSError, TypeError, WindrowError):
        return None  # written at a prompt: nothing tells whether it changed


def _key(group: FeatureGroup) -> str:
    return f"{group.key}/progress"
