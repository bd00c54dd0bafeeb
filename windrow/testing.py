"""Test tools for users: rows in, features out; and a proof that a group or view does not read the future.

A project's test is two lines: ``assert features_of(spend, payments=rows)[0]["cents"] == 500`` and
``no_look_ahead(spend, payments=rows)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from windrow.clock import from_micros, parse_time, to_micros
from windrow.errors import DeclarationError, UnknownNameError, listed
from windrow.features.arrow import arrow_schema
from windrow.features.group import FeatureGroup
from windrow.features.join import clock_spine, view_frame
from windrow.features.source import Constant, Every, Source
from windrow.features.view import FeatureView
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.engine import engine

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

Rows = Sequence[Mapping[str, Any]]
_TIMES = {EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}


@dataclass(frozen=True)
class MemoryTable:
    """Group rows in memory, for the point-in-time join; satisfies `windrow.features.join.Table`.

    Parameters
    ----------
    key
        Its name in errors.
    rows
        Keys, features and ``event_time``; ``known_at`` defaults to it, ``_seq`` to the row's number.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = MemoryTable("profile_v1", pa.table({"card": [7], "event_time": times("2026-01-01")}))
    >>> table.scan(engine()).columns
    ('card', 'event_time', 'known_at', '_seq')
    """

    key: str
    rows: pa.Table

    def scan(self, con: Any, *, as_of: int | None = None) -> ir.Table:
        """Return every row (with ``_seq <= as_of``) as an Ibis table."""
        import ibis
        import pyarrow as pa

        rows = self.rows
        if KNOWN_AT not in rows.column_names:
            rows = rows.append_column(KNOWN_AT, rows.column(EVENT_TIME))
        if SEQ not in rows.column_names:
            rows = rows.append_column(SEQ, pa.array(range(rows.num_rows), pa.int64()))
        table = ibis.memtable(rows)
        return table if as_of is None else table.filter(table[SEQ] <= as_of)


def times(*moments: int | str | datetime) -> pa.Array:
    """Return a column of times: UTC microseconds, ISO text or aware datetimes.

    Examples
    --------
    >>> str(times(0, "1970-01-02")[1])
    '1970-01-02 00:00:00+00:00'
    """
    import pyarrow as pa

    return pa.array([_micros(m) for m in moments], pa.timestamp("us", "UTC"))


def features_of(group: FeatureGroup, **rows: Rows) -> list[dict[str, Any]]:
    """Return the rows that a group makes of given rows, by key and then event time.

    Parameters
    ----------
    group
        The group under test.
    **rows
        Source or group name -> its rows, as dicts; a column left out is null. Times are ISO text,
        aware datetimes or UTC microseconds.

    Returns
    -------
    list of dict
        Keys, features, and ``event_time`` and ``known_at`` as aware datetimes; missing is None.

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
    made = _group_rows(group, _tables(group, rows))
    order = [(name, "ascending") for name in (*group.entity.key_names, EVENT_TIME, KNOWN_AT)]
    return [dict(row) for row in made.sort_by(order).to_pylist()]


def no_look_ahead(subject: FeatureGroup | FeatureView, **rows: Rows) -> None:
    """Prove that nothing known after a time changes a feature at that time.

    For each time in the rows, every row that was not known yet is left out, and then replaced by
    other values: what the group (or view) says about that time and before must stay as it was.

    Parameters
    ----------
    subject
        A group, or a view with all groups below it.
    **rows
        Source or group name -> rows, as for `features_of`; for a view also the rows of its spine.

    Raises
    ------
    AssertionError
        Naming the feature, the time and both values.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", share=payments.amount / payments.amount.max())
    >>> spend.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"))(spend)
    >>> no_look_ahead(group, payments=[{"card_id": 1, "amount": a, "ts": a} for a in (1, 2)])
    Traceback (most recent call last):
    AssertionError: 'share' of 'spend' reads the future: at 1970-01-01T00:00:00.000001+00:00 ...
    """
    tables = _tables(subject, rows)
    known = sorted({k for table in tables.values() for k in table.column(KNOWN_AT).cast("int64").to_pylist()})
    truth = _answers(subject, tables)
    for moment in known:
        before = [row for row in truth if row[KNOWN_AT] <= moment]
        for perturbed in (_without_future(tables, moment), _with_other_future(tables, moment)):
            after = [row for row in _answers(subject, perturbed) if row[KNOWN_AT] <= moment]
            _compare(subject.name, before, after)


def _answers(subject: FeatureGroup | FeatureView, tables: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    made = _group_rows(subject, tables) if isinstance(subject, FeatureGroup) else _view_rows(subject, tables)
    times = {name: made.column(name).cast("int64") for name in (EVENT_TIME, KNOWN_AT)}
    for name, column in times.items():
        made = made.set_column(made.column_names.index(name), name, column)
    # All columns in the sort key: rows that the future touched must not change places with others.
    return sorted(made.to_pylist(), key=lambda row: [(v is not None, v) for v in _sort_key(row)])


def _sort_key(row: Mapping[str, Any]) -> list[Any]:
    return [row[KNOWN_AT], row[EVENT_TIME], repr(row)]


def _compare(name: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
    for old, new in zip(before, after, strict=False):
        for column, value in old.items():
            if value != new[column]:
                moment = from_micros(old[EVENT_TIME]).isoformat()
                raise AssertionError(
                    f"{column!r} of {name!r} reads the future: at {moment} it is {value!r}, but {new[column]!r} when later rows differ"
                )
    if len(before) != len(after):
        raise AssertionError(
            f"{name!r} reads the future: it has {len(before)} rows, but {len(after)} when later rows differ"
        )


def _without_future(tables: Mapping[str, pa.Table], moment: int) -> dict[str, pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc

    now = pa.scalar(moment, pa.timestamp("us", "UTC"))
    return {name: table.filter(pc.less_equal(table.column(KNOWN_AT), now)) for name, table in tables.items()}


def _with_other_future(tables: Mapping[str, pa.Table], moment: int) -> dict[str, pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc

    now, changed = pa.scalar(moment, pa.timestamp("us", "UTC")), {}
    for name, table in tables.items():
        later = pc.greater(table.column(KNOWN_AT), now)
        columns = {c: table.column(c) for c in table.column_names}
        for column, values in columns.items():
            if pa.types.is_floating(values.type):
                columns[column] = pc.if_else(later, pc.add(pc.multiply(values, -3.0), 1e6), values)
        changed[name] = pa.table(columns)
    return changed


def _view_rows(view: FeatureView, tables: Mapping[str, pa.Table]) -> pa.Table:
    groups = {g.table_name: MemoryTable(g.key, _group_rows(g, tables)) for g in view.groups}
    functions = {f.function.__name__: f.function for f in view.on_demand}
    spine = _spine(view, tables)
    made = view_frame(engine(), view.contract, spine, groups, functions=functions)
    features = made.select(view.contract.feature_names)
    for name in (*(f.name for f in view.spine.spine_fields), EVENT_TIME, KNOWN_AT):
        if name not in features.column_names:
            features = features.append_column(name, spine.column(name))
    return features


def _spine(view: FeatureView, tables: Mapping[str, pa.Table]) -> pa.Table:
    """The spine's rows; a view is asked at their event times, so that is when they are known."""
    if isinstance(view.spine, Source):
        spine = tables[view.spine.name].drop_columns([KNOWN_AT])
    else:
        spine = _clock(view.spine, tables)
    return spine.append_column(KNOWN_AT, spine.column(EVENT_TIME))


def _clock(every: Every, tables: Mapping[str, pa.Table]) -> pa.Table:
    import pyarrow as pa

    names = list(every.entity.key_names)
    keyed = [t for t in tables.values() if set(names) <= set(t.column_names)]
    if not keyed:
        raise DeclarationError(
            f"no given rows have the keys of clock {every.name!r}", next_step=f"give rows with {names}"
        )
    keys = pa.concat_tables(t.select(names) for t in keyed).group_by(names).aggregate([]).sort_by(names[0])
    moments = [m for t in keyed for m in t.column(EVENT_TIME).cast("int64").to_pylist()]
    return clock_spine(every, keys, min(moments, default=0), max(moments, default=-1) + every.interval)


def _group_rows(group: FeatureGroup, tables: Mapping[str, pa.Table]) -> pa.Table:
    import ibis

    inputs = {parameter: _input(owner, tables) for parameter, owner in group.inputs.items()}
    made = engine().to_pyarrow(group.build({p: ibis.memtable(rows) for p, rows in inputs.items()}))
    wanted = arrow_schema({**group.fields, **_TIMES})
    return made.select(wanted.names).cast(wanted)


def _input(owner: Source | FeatureGroup, tables: Mapping[str, pa.Table]) -> pa.Table:
    if owner.name in tables or isinstance(owner, Source):
        return tables[owner.name]
    return _group_rows(owner, tables)


def _tables(subject: FeatureGroup | FeatureView, rows: Mapping[str, Rows]) -> dict[str, pa.Table]:
    owners = {owner.name: owner for owner in _owners(subject)}
    for name in rows:
        if name not in owners:
            raise UnknownNameError("source or group", name, list(owners), where=f"{subject.name!r}")
    missing = [o.name for o in _needed(subject, rows) if o.name not in rows]
    if missing:
        raise DeclarationError(
            f"{subject.name!r} reads {listed(missing)}, of which no rows are given", next_step=f"add {missing[0]}=[...]"
        )
    return {name: _table(owners[name], given) for name, given in rows.items()}


def _owners(subject: FeatureGroup | FeatureView) -> Iterable[Source | FeatureGroup]:
    return [o for o in _walk(subject, ()) if o is not subject]


def _needed(subject: FeatureGroup | FeatureView, given: Iterable[str]) -> list[Source]:
    return [o for o in _walk(subject, tuple(given)) if isinstance(o, Source)]


def _walk(subject: Any, stop: tuple[str, ...]) -> list[Any]:
    below: list[Any] = []
    if isinstance(subject, FeatureView):
        below = [*([subject.spine] if isinstance(subject.spine, Source) else []), *subject.groups]
    elif isinstance(subject, FeatureGroup) and subject.name not in stop:
        below = list(subject.inputs.values())
    return [subject, *(found for owner in below for found in _walk(owner, stop))]


def _table(owner: Source | FeatureGroup, rows: Rows) -> pa.Table:
    import pyarrow as pa

    fields = {**owner.fields, **_TIMES}
    for row in rows:
        for name in row:
            if name not in fields:
                raise UnknownNameError("column", name, list(fields), where=f"{owner.name!r}")
    plain = [_plain(owner, row, fields) for row in rows]
    schema = arrow_schema(fields)
    return pa.table({n: pa.array([r[n] for r in plain], schema.field(n).type) for n in fields}, schema=schema)


def _plain(owner: Source | FeatureGroup, row: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        n: _micros(row[n]) if d == "timestamp" and row.get(n) is not None else row.get(n) for n, d in fields.items()
    }
    delay = 0
    if isinstance(owner, Source):
        at, known, delay = owner.event_time, owner.known_at, owner.delay
        plain[EVENT_TIME] = at.micros if isinstance(at, Constant) else plain[at]
        plain[KNOWN_AT] = plain[known] if known else plain[KNOWN_AT]
    if plain[EVENT_TIME] is None:
        raise DeclarationError(
            f"a row of {owner.name!r} has no time", next_step=f"give each row its {_time_name(owner)}"
        )
    if plain[KNOWN_AT] is None:
        plain[KNOWN_AT] = plain[EVENT_TIME] + delay
    return plain


def _time_name(owner: Source | FeatureGroup) -> str:
    return owner.event_time if isinstance(owner, Source) and isinstance(owner.event_time, str) else EVENT_TIME


def _micros(moment: int | str | datetime) -> int:
    if isinstance(moment, str):
        return parse_time(moment)
    return to_micros(moment) if isinstance(moment, datetime) else int(moment)
