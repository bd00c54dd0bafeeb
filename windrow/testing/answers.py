"""What a group or view says of given rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from windrow.errors import DeclarationError
from windrow.features.aggregate import AggregateGroup
from windrow.features.arrow import arrow_schema
from windrow.features.group import FeatureGroup
from windrow.features.join import clock_spine, view_frame
from windrow.features.source import Every, Source
from windrow.features.view import FeatureView
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.engine import engine
from windrow.testing.given import TIMES, Rows, Subject, Tables, tables_of
from windrow.testing.tables import MemoryTable

if TYPE_CHECKING:
    import pyarrow as pa


def features_of(group: FeatureGroup, **rows: Rows) -> list[dict[str, Any]]:
    """Return the rows that a group makes of given rows, by key and then event time.

    Parameters
    ----------
    group
        The group under test. Of an aggregate group: what it says at each event of its source.
    **rows
        Source or group name -> its rows, as dicts; a column left out is null. Times are ISO text,
        aware datetimes or UTC microseconds.

    Returns
    -------
    list of dict
        Keys, features, and ``event_time`` and ``known_at`` as aware datetimes; missing is None.

    Raises
    ------
    UnknownNameError, DeclarationError, SchemaError
        When the rows are not of what the group reads.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", cents=payments.amount * 100)
    >>> spend.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"))(spend)
    >>> features_of(group, payments=[{"card_id": 1, "amount": 5.0, "ts": "2026-01-01"}])[0]["cents"]
    500.0
    """
    made = answers(group, tables_of(group, rows))
    order = [(name, "ascending") for name in (*group.entity.key_names, EVENT_TIME, KNOWN_AT)]
    return [dict(row) for row in made.sort_by(order).to_pylist()]


def answers(subject: Subject, tables: Tables, *, asked: Tables | None = None) -> pa.Table:
    """Return what a group or view says: features, what each row is about, ``event_time`` and ``known_at``.

    A view is asked about the rows of `asked` (default: of `tables`), whatever is stored.
    """
    if isinstance(subject, AggregateGroup):
        # It has no rows of its own: it is asked at each event of its source.
        subject = FeatureView(subject.name, spine=subject.source, features=[subject])
    if isinstance(subject, FeatureGroup):
        return group_rows(subject, tables)
    return _view_rows(subject, tables, _spine(subject, tables if asked is None else asked))


def group_rows(group: FeatureGroup, tables: Tables) -> pa.Table:
    """Return the rows of a group: given ones, or those that it makes of its inputs' rows."""
    import ibis

    if group.name in tables:
        return tables[group.name]
    inputs = {parameter: _input(owner, tables) for parameter, owner in group.inputs.items()}
    made = engine().to_pyarrow(group.build({p: ibis.memtable(rows) for p, rows in inputs.items()}))
    wanted = arrow_schema({**group.fields, **TIMES})
    return made.select(wanted.names).cast(wanted)


def _input(owner: Source | FeatureGroup, tables: Tables) -> pa.Table:
    return tables[owner.name] if isinstance(owner, Source) else group_rows(owner, tables)


def _view_rows(view: FeatureView, tables: Tables, spine: pa.Table) -> pa.Table:
    stored: dict[str, MemoryTable] = {}
    for group in view.groups:
        if isinstance(group, AggregateGroup):
            events = MemoryTable(group.source.key, tables[group.source.name])
            stored |= {group.table_name: events, group.source.key: events}
        else:
            stored[group.table_name] = MemoryTable(group.key, group_rows(group, tables))
    functions = {f.function.__name__: f.function for f in view.on_demand}
    made = view_frame(engine(), view.contract, spine, stored, functions=functions)
    features = made.select(view.contract.feature_names)
    for name in (*(f.name for f in view.spine.spine_fields), EVENT_TIME, KNOWN_AT):
        if name not in features.column_names:
            features = features.append_column(name, spine.column(name))
    return features


def _spine(view: FeatureView, tables: Tables) -> pa.Table:
    """The spine's rows; a view is asked at their event times, so that is when they are known."""
    if isinstance(view.spine, Source):
        spine = tables[view.spine.name].drop_columns([KNOWN_AT])
    else:
        spine = _clock(view.spine, tables)
    return spine.append_column(KNOWN_AT, spine.column(EVENT_TIME))


def _clock(every: Every, tables: Tables) -> pa.Table:
    import pyarrow as pa

    names = list(every.entity.key_names)
    keyed = [t for t in tables.values() if set(names) <= set(t.column_names)]
    if not keyed:
        raise DeclarationError(
            f"no given rows have the keys of clock {every.name!r}", next_step=f"give rows with {names}"
        )
    keys = pa.concat_tables(t.select(names) for t in keyed)
    keys = keys.group_by(names).aggregate([]).sort_by([(name, "ascending") for name in names]) if names else keys
    moments = [m for t in keyed for m in t.column(EVENT_TIME).cast("int64").to_pylist()]
    return clock_spine(every, keys, min(moments, default=0), max(moments, default=-1) + every.interval)


def identity(subject: Subject) -> list[str]:
    """Return the columns of `answers` that say which row is which."""
    if isinstance(subject, FeatureGroup) and not isinstance(subject, AggregateGroup):
        return [*subject.entity.key_names, EVENT_TIME, KNOWN_AT]
    spine = subject.source if isinstance(subject, AggregateGroup) else subject.spine
    return list(dict.fromkeys([*(f.name for f in spine.spine_fields), EVENT_TIME, KNOWN_AT]))


def plain_rows(made: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dicts in an order of their own, with times as UTC microseconds."""
    for name in (EVENT_TIME, KNOWN_AT):
        made = made.set_column(made.column_names.index(name), name, made.column(name).cast("int64"))
    # All columns in the sort key: rows that were touched must not change places with others.
    return sorted(made.to_pylist(), key=_order)


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row[KNOWN_AT], row[EVENT_TIME], repr(row)
