"""The history of a view and its newest rows: what it says of each entity, without a spine.

The times at which anything can change are read off the tables: a row becomes known, or expires. A look-up whose
key is a value of another group can change whenever a row of any key that this value ever was becomes known. At
all of these times the view is asked as at any other; what says the same as just before is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow.clock import from_micros
from windrow.errors import DeclarationError, UnknownNameError, listed
from windrow.features.arrow import arrow_schema
from windrow.features.contract import Contract, Lookup, OnDemand, stages
from windrow.features.join import Table, computed, parts, status_column, table_of, together
from windrow.schema import EVENT_TIME, KNOWN_AT

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

    from windrow.features.agg import Agg

    Ints = NDArray[np.int64]

_ENTITY, _AT = "windrow_entity", "windrow_at"
_NO_MOMENT = pa.table({_ENTITY: pa.array([], pa.int64()), _AT: pa.array([], pa.int64())})
_OF_ONE = ("last", "first", "min", "max")  # aggregates whose value is that of one event


class Question(NamedTuple):
    """What is asked about, what reads it, and what makes the answer; to be asked once.

    Attributes
    ----------
    spine
        Key fields and ``event_time``.
    lookups
        What to read for them.
    finish
        Rows of the spine, stored values and facts of the same rows -> the rows to give; called with one stretch
        of the spine after the other.
    """

    spine: pa.Table
    lookups: Sequence[Lookup]
    finish: Callable[[pa.Table, Mapping[str, Any], Mapping[str, Any]], pa.Table]

    def answer(self, con: Backend, tables: Mapping[str, Table]) -> pa.Table:
        """Ask the whole spine at once."""
        stored, facts = together(parts(con, self.spine, self.lookups, tables=tables), self.lookups)
        return self.finish(self.spine, stored, facts)


def ask_history(
    con: Backend,
    contract: Contract,
    tables: Mapping[str, Table],
    *,
    span: tuple[int, int],
    functions: Mapping[str, Callable[..., Any]] | None = None,
    keys: pa.Table | Sequence[Mapping[str, Any]] | None = None,
) -> Question:
    """Ask for one row per change of any feature of any entity.

    Parameters
    ----------
    con
        A DuckDB backend of Ibis with session time zone UTC.
    contract
        Of the view.
    tables
        Group with version -> its rows.
    span
        First and last time, UTC microseconds, both included.
    functions
        On-demand function name -> function, for those that read stored values only.
    keys
        Entities, as rows of the request fields that are keys; default: all that were seen by the end.

    Returns
    -------
    Question
        The answer is, by entity, then time: the key fields, ``event_time`` (of the change), the features as stored, and
        event times and statuses as in `windrow.features.join.point_in_time`. Features that need the request are left out.

    Raises
    ------
    DeclarationError
        If no group of the view has all of its keys, so that nobody says whom to ask about.
    """
    entities = _entities(con, contract, tables, until=span[1], keys=keys)
    moments = _moments(con, contract, tables, entities=entities, span=span)
    return _question(contract, _spine(entities, moments), functions, kept=_Changes(contract, since=span[0]))


def ask_latest(
    con: Backend,
    contract: Contract,
    tables: Mapping[str, Table],
    *,
    now: int,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    keys: pa.Table | Sequence[Mapping[str, Any]] | None = None,
) -> Question:
    """Ask for one row per entity: what the view says at `now` (UTC microseconds), with the columns of `ask_history`."""
    entities = _entities(con, contract, tables, until=now, keys=keys)
    moments = entities.select([_ENTITY]).append_column(_AT, pa.array(np.full(entities.num_rows, now)))
    return _question(contract, _spine(entities, moments), functions)


def key_fields(contract: Contract) -> dict[str, str]:
    """Return the request fields that are keys of the view's look-ups, with their dtypes."""
    used = {field for lookup in contract.lookups for field in lookup.fields}
    return {f.name: f.dtype for f in contract.request if f.name in used}


def _entities(
    con: Backend,
    contract: Contract,
    tables: Mapping[str, Table],
    *,
    until: int,
    keys: pa.Table | Sequence[Mapping[str, Any]] | None,
) -> pa.Table:
    fields = key_fields(contract)
    if not fields:
        return pa.table({_ENTITY: pa.array([0])})
    rows = _seen(con, contract, tables, until=until) if keys is None else _given(keys, fields)
    ordered = rows.group_by(list(fields)).aggregate([]).sort_by([(name, "ascending") for name in fields])
    return ordered.append_column(_ENTITY, pa.array(np.arange(ordered.num_rows)))


def _given(keys: pa.Table | Sequence[Mapping[str, Any]], fields: Mapping[str, str]) -> pa.Table:
    rows = keys if isinstance(keys, pa.Table) else pa.Table.from_pylist([dict(row) for row in keys])
    for name in fields:
        if name not in rows.column_names:
            raise UnknownNameError("column", name, rows.column_names, where="the keys of a history")
    return rows.select(list(fields)).cast(arrow_schema(fields))


def _seen(con: Backend, contract: Contract, tables: Mapping[str, Table], *, until: int) -> pa.Table:
    fields = key_fields(contract)
    whole = [lookup for lookup in contract.lookups if not lookup.stored and set(lookup.fields) == set(fields)]
    if not whole:
        raise DeclarationError(
            f"view {contract.view!r} asks about {listed(fields)} together, but none of its groups has exactly these keys",
            next_step="say whom to ask about: keys=[{" + ", ".join(f"{name!r}: ..." for name in fields) + "}]",
        )
    schema = arrow_schema(fields)
    found = [schema.empty_table()]
    for lookup in whole:
        rows = _visible(con, tables, lookup.group, until)
        names = {field: rows[key] for key, field in lookup.keys.items()}
        found.append(con.to_pyarrow(rows.select(**names).distinct()).select(schema.names).cast(schema))
    rows = pa.concat_tables(found)
    return rows.filter(_whole(rows))


def _whole(rows: pa.Table) -> pa.Array:
    """Which rows have no missing key."""
    whole = np.ones(rows.num_rows, dtype=np.bool_)
    for column in rows.columns:
        whole &= column.is_valid().to_numpy()
    return pa.array(whole)


def _visible(con: Backend, tables: Mapping[str, Table], group: str, until: int) -> ir.Table:
    rows = table_of(tables, group).scan(con)
    return rows.filter(rows[EVENT_TIME] <= _literal(until), rows[KNOWN_AT] <= _literal(until))


def _literal(micros: int) -> Any:
    import ibis

    return ibis.literal(from_micros(micros), type="timestamp('UTC', 6)")


def _moments(
    con: Backend, contract: Contract, tables: Mapping[str, Table], *, entities: pa.Table, span: tuple[int, int]
) -> pa.Table:
    """Entity and time, int64 both and in this order, of all that may be a change; and of just before the first one."""
    import ibis

    values: dict[str, ir.Table] = {}
    wanted = {name for lookup in contract.lookups for name in lookup.through}
    asked, found = ibis.memtable(entities), [_NO_MOMENT]
    for stage in stages(contract.lookups):
        for lookup in stage:
            columns = {v: c for v, c in origins(lookup).items() if v in wanted}
            rows = _visible(con, tables, lookup.group, span[1])
            reached = _reached(asked, lookup, rows, values=values, columns=list(columns.values()))
            values |= {v: reached.select(_ENTITY, **{v: reached[c]}).distinct() for v, c in columns.items()}
            found.append(_times(con, reached, lookup, span))
    every = pa.concat_tables(found).group_by([_ENTITY, _AT]).aggregate([])
    who = every[_ENTITY].unique()
    before = pa.table({_ENTITY: who, _AT: pa.array(np.full(len(who), span[0] - 1, dtype=np.int64))})
    return pa.concat_tables([every, before]).sort_by([(_ENTITY, "ascending"), (_AT, "ascending")])


def origins(lookup: Lookup) -> dict[str, str]:
    """Return value -> the stored column that its values come from, where they are those of one row."""
    if lookup.aggregate is None:
        return lookup.columns
    made = {value: lookup.aggregate.features[name] for value, name in lookup.columns.items()}
    return {value: agg.column for value, agg in made.items() if agg.column and agg.kind in _OF_ONE}


def _reached(
    asked: ir.Table, lookup: Lookup, rows: ir.Table, *, values: Mapping[str, ir.Table], columns: Sequence[str]
) -> ir.Table:
    """The stored rows that a look-up can find for each entity at any time: both times and `columns`."""
    named = {f"windrow_key_{i}": name for i, (key, name) in enumerate(lookup.keys.items()) if key not in lookup.stored}
    who = asked.select(_ENTITY, **{alias: asked[field] for alias, field in named.items()})
    for i, (key, name) in enumerate(lookup.keys.items()):
        if key in lookup.stored:
            held = values[name].select(windrow_holder=values[name][_ENTITY], **{f"windrow_key_{i}": values[name][name]})
            who = who.join(held, who[_ENTITY] == held.windrow_holder).drop("windrow_holder")
    keys = {f"windrow_of_{i}": rows[key] for i, key in enumerate(lookup.keys)}
    renamed = rows.select(*dict.fromkeys([*columns, EVENT_TIME, KNOWN_AT]), **keys)
    same = [who[f"windrow_key_{i}"] == renamed[f"windrow_of_{i}"] for i in range(len(lookup.keys))]
    return who.join(renamed, same) if same else who.cross_join(renamed)


def _times(con: Backend, reached: ir.Table, lookup: Lookup, span: tuple[int, int]) -> pa.Table:
    """Entity and time of all that may be a change of one look-up."""
    spec = lookup.aggregate
    first = 0 if spec is None else max(a.window + a.delay + 2 * (a.hop or 0) for a in spec.features.values())
    if spec is not None:
        reached = reached.filter(reached[EVENT_TIME] >= _literal(span[0] - first))
    made = con.to_pyarrow(reached.select(_ENTITY, EVENT_TIME, KNOWN_AT).distinct())
    event, known = (
        made[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy() for name in (EVENT_TIME, KNOWN_AT)
    )
    eff = np.maximum(event, known)
    if spec is None:
        times = [eff] if lookup.ttl is None else [eff, event + lookup.ttl + 1]
    else:
        # An event is there from the microsecond after it on, and then in each window from one time to another.
        times = [np.maximum(event + 1, eff), *(t for a in spec.features.values() for t in _window(a, event, eff))]
    at, who = np.concatenate(times), np.tile(made[_ENTITY].to_numpy(), len(times))
    inside = (at >= span[0]) & (at <= span[1])
    return pa.table({_ENTITY: who[inside], _AT: at[inside]}, schema=_NO_MOMENT.schema)


def _window(agg: Agg, event: Ints, eff: Ints) -> tuple[Ints, Ints]:
    """When events come into a window, and when they leave it."""
    next_hop = event + 1 if agg.hop is None else (event // agg.hop + 1) * agg.hop
    into = (next_hop if agg.delay and agg.hop else event + 1) + agg.delay
    return np.maximum(into, eff), np.maximum(next_hop + agg.delay + agg.window, eff)


def _spine(entities: pa.Table, moments: pa.Table) -> pa.Table:
    made = entities.drop_columns([_ENTITY]).take(moments.column(_ENTITY)) if entities.num_columns > 1 else None
    times = moments.column(_AT).cast(pa.timestamp("us", "UTC"))
    return made.append_column(EVENT_TIME, times) if made is not None else pa.table({EVENT_TIME: times})


def _question(
    contract: Contract,
    spine: pa.Table,
    functions: Mapping[str, Callable[..., Any]] | None,
    kept: Callable[[pa.Table], pa.Table] = lambda made: made,
) -> Question:
    """Ask for all that is known without a request: stored features, functions of stored values, facts."""

    def finish(rows: pa.Table, stored: Mapping[str, Any], facts: Mapping[str, Any]) -> pa.Table:
        made = {
            o.name: computed(o, functions or {}, rows=rows, stored=stored)
            for o in contract.on_demand
            if _of_stored(o, stored)
        }
        features = {f.name: made.get(f.name, stored.get(f.name)) for f in contract.features}
        columns = {name: rows.column(name) for name in rows.column_names}
        told = {name: values for name, values in features.items() if values is not None}
        return kept(pa.table(columns | told | dict(facts)))

    return Question(spine, [_without_current(lookup) for lookup in contract.lookups], finish)


def _without_current(lookup: Lookup) -> Lookup:
    """A look-up without the aggregates that count the request's own event: there is none."""
    if lookup.aggregate is None:
        return lookup
    made = lookup.aggregate.features
    columns = {value: name for value, name in lookup.columns.items() if not made[name].include_current}
    return msgspec.structs.replace(lookup, columns=columns)


def _of_stored(spec: OnDemand, stored: Container[str]) -> bool:
    return all(ref.startswith("stored.") and ref.removeprefix("stored.") in stored for ref in spec.inputs.values())


def _deciding(contract: Contract, names: Sequence[str]) -> list[str]:
    """The columns of which a change counts: keys, features, and the statuses of what gives features."""
    told = [spec for spec in contract.on_demand if spec.name in names]
    read = {ref.removeprefix("stored.") for spec in told for ref in spec.inputs.values()}
    shown = {*contract.feature_names, *read}
    statuses = {status_column(lookup) for lookup in contract.lookups if shown & set(lookup.columns)}
    return [name for name in names if name in {*key_fields(contract), *contract.feature_names, *statuses}]


class _Changes:
    """Keeps the rows that differ from the row above, which may be the last one of the stretch before."""

    def __init__(self, contract: Contract, *, since: int) -> None:
        self.contract, self.since = contract, since
        self.above: pa.Table | None = None

    def __call__(self, made: pa.Table) -> pa.Table:
        rows = made if self.above is None else pa.concat_tables([self.above, made])
        changed = _changed(rows, _deciding(self.contract, rows.column_names))[rows.num_rows - made.num_rows :]
        changed[made.column(EVENT_TIME).cast(pa.int64()).to_numpy() < self.since] = False
        self.above = rows.slice(max(rows.num_rows - 1, 0))
        return made.filter(pa.array(changed))


def _changed(made: pa.Table, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows differ from the row above in any of `names`; the first one does."""
    changed = np.zeros(made.num_rows, dtype=np.bool_)
    changed[:1] = True
    for name in names:
        changed[1:] |= _steps(made.column(name).combine_chunks())
    return changed


def _steps(column: Any) -> NDArray[np.bool_]:
    above, below = column.slice(0, max(len(column) - 1, 0)), column.slice(1)
    other = pc.fill_null(pc.not_equal(above, below), False).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        other &= ~pc.fill_null(pc.and_(pc.is_nan(above), pc.is_nan(below)), False).to_numpy(zero_copy_only=False)
    gone = above.is_null().to_numpy(zero_copy_only=False) != below.is_null().to_numpy(zero_copy_only=False)
    return np.asarray(other | gone)
