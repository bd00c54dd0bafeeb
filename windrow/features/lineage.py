"""Which columns each feature is computed from, read off the definition without running it.

An Ibis definition is compiled to SQL, parsed, and read by `windrow.features.query_lineage`; aggregate groups say
themselves what they read. The law (tested): changing a column that is not named for a feature changes no value of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from windrow.features.aggregate import AggregateGroup
from windrow.features.frames import ROWS, FrameFunction
from windrow.features.query_lineage import NOTHING, Kind, Read, Reads, Relation, as_kind, joined, query_lineage
from windrow.features.source import Constant, Source
from windrow.features.sql import Query
from windrow.schema import EVENT_TIME, KNOWN_AT

if TYPE_CHECKING:
    from windrow.features.contract import Contract
    from windrow.features.group import FeatureGroup
    from windrow.features.place import External

Origin = tuple[str, str]

_TIMES = (EVENT_TIME, KNOWN_AT)
_VALUES = ("value", "probed", "assumed")


class GroupLineage(NamedTuple):
    """What one feature group reads; tables are asset keys, times are the declared time columns of a source.

    Attributes
    ----------
    features
        Feature -> what goes into its values.
    rows
        What decides which rows there are, for whom and when: filters, joins, grouping, keys and times. It
        concerns every feature.
    """

    features: dict[str, Reads]
    rows: Reads

    def reads(self, feature: str) -> Reads:
        """Return everything that one feature depends on."""
        return self.features[feature] | self.rows


_seen: WeakKeyDictionary[FeatureGroup, GroupLineage] = WeakKeyDictionary()


def lineage(group: FeatureGroup) -> GroupLineage:
    """Return what a group reads, column by column; read off once, since a declaration never changes.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card": "int64", "eur": "float64", "ok": "bool"})
    >>> def spend(payments):
    ...     return payments.filter(payments.ok).select("card", cents=payments.eur * 100)
    >>> spend.__globals__["payments"] = payments
    >>> made = lineage(feature_group(Entity("card", card="int64"))(spend))
    >>> [read.column for read in made.features["cents"]], sorted((read.column, read.kind) for read in made.rows)
    (['eur'], [('card', 'key'), ('ok', 'filter'), ('ts', 'time')])
    """
    if group not in _seen:
        _seen[group] = _read_off(group)
    return _seen[group]


def takes_compiler(group: FeatureGroup) -> bool:
    """Return whether reading a group off takes an SQL compiler; the other groups say themselves what they read."""
    said = isinstance(group, AggregateGroup) or isinstance(group.function, FrameFunction | Query)
    return not said and group.external is None


def remember(group: FeatureGroup, made: GroupLineage) -> None:
    """Take what `lineage` said of the same definition in another process."""
    _seen[group] = made


def _read_off(group: FeatureGroup) -> GroupLineage:
    if isinstance(group, AggregateGroup):
        return _of_events(group)
    if group.external is not None:
        return _of_external(group, group.external)
    if isinstance(group.function, FrameFunction):
        return _of_frames(group, group.function.reads)
    if isinstance(group.function, Query):
        made = query_lineage(group.function.parsed, group.function.fields)
        return of_relation(group, with_keys(made, {name: item.key for name, item in group.inputs.items()}))
    return of_relation(group, _compiled(group))


def of_relation(group: FeatureGroup, made: Relation) -> GroupLineage:
    """Return the lineage of a group whose query reads `made` of its inputs' keys; what `made` lacks is assumed."""
    owners = {item.key: item for item in group.inputs.values()}

    def found(name: str) -> Reads:
        reads = made.column(name)
        return _declared(made.rows if reads is None else reads, owners)

    keys = joined(as_kind(found(key), "key") for key in group.entity.key_names)
    times = joined(as_kind(found(name), "time") for name in _TIMES)
    rows = _declared(made.rows, owners) | keys | times
    return GroupLineage({feature: found(feature) for feature in group.features}, rows)


def column_lineage(group: FeatureGroup) -> dict[str, list[Origin]]:
    """Return feature -> the (asset key, column) pairs that its values come from.

    Columns that only choose or order rows (filters, join keys, the partition and order of a window) are
    left out, unless nothing else is read; see `lineage` for all of them.

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
    made = lineage(group)
    return {feature: origins(reads) or origins(made.rows) for feature, reads in made.features.items()}


def origins(reads: Reads) -> list[Origin]:
    """Return the columns that values come from, sorted; without any, all that are read."""
    values = {(r.table, r.column) for r in reads if r.kind in _VALUES}
    return sorted(values or {(r.table, r.column) for r in reads})


def contract_lineage(contract: Contract, spine: Source | None) -> dict[str, Reads]:
    """Return what goes into each input of a model, as columns of the spine and features of groups.

    Parameters
    ----------
    contract
        Of a view or a release.
    spine
        The spine's source; None for a clock, whose columns are those of ``clock/<name>``.

    Returns
    -------
    dict
        Input -> reads: ``value`` of what is computed from, ``key`` of how its row is found, ``time`` of as of when.

    Examples
    --------
    >>> from windrow import Entity, FeatureView, Source
    >>> payments = Source("payments", event_time="ts", columns={"card": "int64", "eur": "float64"})
    >>> view = FeatureView("fraud", spine=payments, features=[payments.eur])
    >>> contract_lineage(view.contract, payments)
    {'eur': frozenset({Read(table='sources/payments', column='eur', kind='value')})}
    """
    inputs = _Inputs(contract, spine)
    return {field.name: frozenset(inputs.of(field.name)) for field in contract.features}


class _Inputs:
    """What the values of a contract are: columns of its spine, and features found by keys and time."""

    def __init__(self, contract: Contract, spine: Source | None) -> None:
        self.key = spine.key if spine is not None else f"clock/{contract.spine}"
        self.time = spine.event_time if spine is not None else EVENT_TIME
        self.found = {value: lookup for lookup in contract.lookups for value in lookup.columns}
        self.computed = {made.name: made for made in contract.on_demand}

    def of(self, name: str) -> Iterator[Read]:
        """Yield the reads of one input."""
        if name in self.computed:
            for reference in self.computed[name].inputs.values():
                yield from self._referred(reference, "value")
        elif name in self.found:
            yield from self._stored(name, "value")
        else:
            yield Read(self.key, name, "value")

    def _referred(self, reference: str, kind: Kind) -> Iterator[Read]:
        if reference.startswith("stored."):
            yield from self._stored(reference.removeprefix("stored."), kind)
        elif reference != EVENT_TIME:
            yield Read(self.key, reference.removeprefix("request."), kind)
        elif isinstance(self.time, str):
            yield Read(self.key, self.time, kind)

    def _stored(self, value: str, kind: Kind) -> Iterator[Read]:
        lookup = self.found[value]
        yield Read(f"features/{lookup.group}", lookup.columns[value], kind)
        for reference in lookup.references.values():
            yield from self._referred(reference, "key")
        yield from self._referred(EVENT_TIME, "time")
        made = lookup.aggregate.features[lookup.columns[value]] if lookup.aggregate is not None else None
        for column in made.columns if made is not None and made.include_current else ():
            yield Read(self.key, column, "value")  # the request's own event counts too


def _of_events(group: AggregateGroup) -> GroupLineage:
    source = group.source
    known = {source.key: source}

    def read(column: str | None, kind: Any) -> Reads:
        return frozenset({Read(source.key, column, kind)}) if column else NOTHING

    when = _declared(read(EVENT_TIME, "time") | read(KNOWN_AT, "time"), known)
    rows = when | read(source.id, "group") | joined(read(key, "key") for key in group.entity.key_names)
    features = {}
    for name, made in group.aggregates.items():
        features[name] = read(made.column, "value") | read(made.where, "filter")
    return GroupLineage(features, rows)


def _of_external(group: FeatureGroup, external: External) -> GroupLineage:
    """The columns of the table that is read in place, called ``external/<group>``."""
    table = f"external/{group.name}"

    def read(column: str, kind: Kind) -> Reads:
        return frozenset({Read(table, external.columns.get(column, column), kind)})

    times = [name for name in (external.event_time, external.known_at, external.seq) if name]
    rows = joined(read(key, "key") for key in group.entity.key_names)
    rows |= frozenset(Read(table, name, "time") for name in times)
    return GroupLineage({feature: read(feature, "value") for feature in group.features}, rows)


def _of_frames(group: FeatureGroup, declared: Mapping[str, Sequence[str]]) -> GroupLineage:
    """What a Python function declares that it reads; what it does not say may be any column."""
    every = frozenset(
        Read(item.key, name, "assumed") for item in group.inputs.values() for name in (*item.fields, *_TIMES)
    )
    owners = {item.key: item for item in group.inputs.values()}

    def read(name: str) -> Reads:
        if name not in declared:
            return _declared(every, owners)
        places = (place.partition(".") for place in declared[name])
        return frozenset(Read(group.inputs[of].key, column, "value") for of, _, column in places)

    if not declared:
        return GroupLineage({feature: read(feature) for feature in group.features}, read(ROWS))
    keys = {(item.key, key) for item in owners.values() for key in group.entity.key_names if key in item.fields}
    rows = frozenset(Read(table, key, "key") for table, key in keys)
    rows |= _declared(frozenset(Read(key, name, "time") for key in owners for name in _TIMES), owners)
    deciding = as_kind(read(ROWS), "filter") if ROWS in declared else NOTHING
    return GroupLineage({feature: read(feature) for feature in group.features}, rows | deciding)


def with_keys(made: Relation, keys: Mapping[str, str]) -> Relation:
    """Call tables by their asset keys instead of by their names in the query."""

    def called(reads: Reads) -> Reads:
        return frozenset(Read(keys[r.table], r.column, r.kind) for r in reads)

    return Relation({name: called(reads) for name, reads in made.columns.items()}, called(made.rows))


def _compiled(group: FeatureGroup) -> Relation:
    import ibis.expr.operations as ops
    from ibis.backends.sql.compilers.duckdb import compiler

    tables = {op.name: list(op.schema) for op in group.expression.op().find(ops.PhysicalTable)}
    made = query_lineage(compiler.to_sqlglot(group.expression), tables)
    # Rows that are written into the definition itself come from no column.
    constant = tables.keys() - {item.key for item in group.inputs.values()}
    return Relation({n: _without(r, constant) for n, r in made.columns.items()}, _without(made.rows, constant))


def _without(reads: Reads, tables: set[str]) -> Reads:
    return frozenset(r for r in reads if r.table not in tables)


def _declared(reads: Reads, owners: Mapping[str, Any]) -> Reads:
    """Say for the two times that windrow adds to a source's rows which of its columns they come from."""
    found = set[Read]()
    for read in reads:
        owner = owners.get(read.table)
        if read.column not in _TIMES or not isinstance(owner, Source) or read.column in owner.fields:
            found.add(read)
        else:
            known_at = owner.known_at if read.column == KNOWN_AT else None
            column = known_at or owner.event_time
            found |= set() if isinstance(column, Constant) else {Read(read.table, column, read.kind)}
    return frozenset(found)
