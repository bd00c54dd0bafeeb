"""Feature views: a function from (entity keys, time) to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msgspec import structs

from windrow.clock import spoken
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.aggregate import AggregateGroup
from windrow.features.contract import Contract, Lookup, OnDemand
from windrow.features.group import FeatureGroup, Selection
from windrow.features.kinds import check_kind, check_kinds
from windrow.features.on_demand import OnDemandFeature, check_imports
from windrow.features.roles import Through, hidden, role, through, value_of
from windrow.features.source import Column, Every, Source
from windrow.schema import EVENT_TIME, Field, check_name

Feature = FeatureGroup | Selection | OnDemandFeature | Column


@dataclass(frozen=True, eq=False, init=False)
class FeatureView:
    """The inputs of a model: features of one or more groups, on-demand features and raw values.

    Parameters
    ----------
    name
        Lower snake case.
    spine
        A `Source` (one prediction per row, at its event time) or `Every` (one per key and tick).
        Training, batch scoring and a request have the same columns.
    features
        Groups (all features), ``group["a", "b"]``, ``group.of(...)``, `on_demand(...)`, or columns
        of the spine; their order is the model's.

    Examples
    --------
    >>> from windrow.schema import Entity
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> FeatureView("fraud", spine=payments, features=[payments.amount]).contract.feature_names
    ('amount',)
    """

    name: str
    spine: Source | Every
    features: tuple[Feature, ...]

    def __init__(self, name: str, *, spine: Source | Every, features: Sequence[Feature]) -> None:
        object.__setattr__(self, "name", check_name("view", name))
        object.__setattr__(self, "spine", spine)
        _check_kinds(self, features)
        object.__setattr__(self, "features", tuple(features))
        if not features:
            raise DeclarationError(
                f"view {name!r} has no feature", next_step="give it groups, columns or on_demand(...)"
            )
        _ = self.contract

    @cached_property
    def selections(self) -> tuple[Selection, ...]:
        """The group parts, in order, and a selection of what only on-demand functions and keys of groups read."""
        chosen = [
            f.all if isinstance(f, FeatureGroup) else f
            for f in self.features
            if isinstance(f, FeatureGroup | Selection)
        ]
        return (*chosen, *hidden(chosen, self.on_demand, self.spine))

    @property
    def on_demand(self) -> tuple[OnDemandFeature, ...]:
        """The computed features, in order."""
        return tuple(f for f in self.features if isinstance(f, OnDemandFeature))

    @property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """The feature groups read, each once."""
        return tuple(dict.fromkeys(s.group for s in self.selections))

    @cached_property
    def contract(self) -> Contract:
        """What the view promises, as plain data; see `windrow.features.contract.Contract`."""
        fields = self._spine_fields()
        lookups = tuple(_lookup(s, self) for s in self.selections)
        stored = {value for lookup in lookups for value in lookup.columns}
        computed = tuple(_on_demand(f, self) for f in self.on_demand)
        _refuse_duplicates(self.name, [v for lookup in lookups for v in lookup.columns])
        used = _used(lookups, computed, self.features)
        return Contract(
            view=self.name,
            spine=self.spine.name,
            request=tuple(f for f in fields.values() if f.name in used),
            optional=tuple(f for f in fields.values() if f.name not in used),
            lookups=lookups,
            on_demand=computed,
            features=_ordered(self, stored),
            on_demand_source=_one_module(self),
        )

    @property
    def fingerprint(self) -> str:
        """Changes when anything that decides a vector changes."""
        return self.contract.fingerprint

    def _spine_fields(self) -> dict[str, Field]:
        return {f.name: f for f in self.spine.spine_fields}

    def _repr_html_(self) -> str:
        from windrow.html import view_card

        return view_card(self)


def _check_kinds(view: FeatureView, features: Sequence[Feature]) -> None:
    where = f"view {view.name!r}"
    check_kind(view.spine, (Source, Every), where=f"spine= of {where}", example='a Source, or Every("1h", area)')
    kinds = FeatureGroup, Selection, OnDemandFeature, Column
    check_kinds(features, kinds, where=f"features= of {where}", example="spend, spend.amount_7d or on_demand(...)")


def _lookup(selection: Selection, view: FeatureView) -> Lookup:
    group = selection.group
    keys = {
        key.name: _key(key, part, group, view=view)
        for key, part in zip(group.entity.keys, role(selection, view.spine).keys, strict=True)
    }
    columns = selection.columns
    dtypes = {value: group.features[name] for value, name in columns.items()}
    stored = tuple(key for key, (_, found) in keys.items() if found)
    names = {key: name for key, (name, _) in keys.items()}
    lookup = Lookup(
        group.table_name, group.fingerprint, names, columns, dtypes, group.ttl, stored, external=group.external
    )
    return _aggregate(lookup, group, view) if isinstance(group, AggregateGroup) else lookup


def _aggregate(lookup: Lookup, group: AggregateGroup, view: FeatureView) -> Lookup:
    made = structs.replace(lookup, aggregate=group.spec)
    including = [n for n in lookup.columns.values() if group.aggregates[n].include_current]
    if including and (
        view.spine is not group.source or any(k != n or k in lookup.stored for k, n in lookup.keys.items())
    ):
        raise DeclarationError(
            f"view {view.name!r}: feature {including[0]!r} of group {group.name!r} includes the current event, which is no row of its spine",
            exists=f"The group reads {group.source.name!r}, the view asks about {view.spine.name!r}",
            next_step="leave include_current out, or make that source the spine and the group's keys its own",
        )
    for name in made.current:
        _refuse_late(view, group.source.column(name))
    return made


def _key(key: Field, part: str | Through, group: FeatureGroup, *, view: FeatureView) -> tuple[str, bool]:
    """Return where a key of a group is found: a request field, or (True) a stored value."""
    if isinstance(part, str):
        fields = {f.name: f for f in view.spine.spine_fields}
        if part not in fields:
            raise UnknownNameError(
                "column", part, list(fields), where=f"the spine of view {view.name!r} (key of group {group.name!r})"
            )
        name, dtype, said = part, fields[part].dtype, f"spine column {part!r}"
    else:
        name, dtype = value_of(part, view.selections, view.spine), part.role.group.features[part.name]
        said = f"feature {part.name!r} of group {part.role.group.name!r}"
    if dtype != key.dtype:
        raise DeclarationError(
            f"view {view.name!r}: {said} is {dtype}, but key {key.name!r} of group {group.name!r} is {key.dtype}",
            next_step="declare both with one dtype",
        )
    return name, not isinstance(part, str)


def _on_demand(feature: OnDemandFeature, view: FeatureView) -> OnDemand:
    inputs = {parameter: _input(column, view, feature.name) for parameter, column in feature.inputs.items()}
    dtypes = {parameter: column.dtype for parameter, column in feature.inputs.items()}
    return OnDemand(feature.name, feature.function.__name__, feature.dtype, inputs, dtypes)


def _input(column: Column, view: FeatureView, feature: str) -> str:
    if column.owner is view.spine:
        if column.name == EVENT_TIME or column.name == getattr(view.spine, "event_time", None):
            return EVENT_TIME
        _refuse_late(view, column)
        return f"request.{column.name}"
    if isinstance(column.owner, FeatureGroup | Selection):
        return f"stored.{value_of(through(column, view.spine), view.selections, view.spine)}"
    raise DeclarationError(
        f"on-demand feature {feature!r} of view {view.name!r} reads {column!r}, which is neither a column of its spine nor of a feature group",
        next_step=f"use the columns of {view.spine.name!r} or of a group",
    )


def _used(lookups: Sequence[Lookup], computed: Sequence[OnDemand], features: Sequence[Feature]) -> set[str]:
    keys = {field for lookup in lookups for field in (*lookup.fields, *lookup.current)}
    raw = {ref.removeprefix("request.") for c in computed for ref in c.inputs.values() if ref.startswith("request.")}
    return keys | raw | {f.name for f in features if isinstance(f, Column)}


def _ordered(view: FeatureView, stored: set[str]) -> tuple[Field, ...]:
    fields: list[Field] = []
    for feature in view.features:
        if isinstance(feature, OnDemandFeature):
            fields.append(Field(feature.name, feature.dtype))
        elif isinstance(feature, Column):
            fields.append(_raw(view, feature))
        else:
            selection = feature.all if isinstance(feature, FeatureGroup) else feature
            fields += [Field(v, selection.group.features[n]) for v, n in selection.columns.items()]
    _refuse_duplicates(view.name, [f.name for f in fields])
    _refuse_times(view.name, fields)
    return tuple(fields)


def _refuse_times(view: str, fields: Sequence[Field]) -> None:
    times = [f.name for f in fields if f.dtype == "timestamp"]
    if times:
        raise DeclarationError(
            f"view {view!r}: feature {times[0]!r} is a time, which no model can be given as it is",
            next_step="select the others, and compute what matters from it with on_demand(...), such as an age in days",
        )


def _raw(view: FeatureView, column: Column) -> Field:
    if column.owner is not view.spine or column.dtype == "timestamp":
        raise DeclarationError(
            f"view {view.name!r}: {column!r} cannot be a feature by itself",
            next_step="select it from a group, or compute from it with on_demand(...)",
        )
    _refuse_late(view, column)
    return Field(column.name, column.dtype)


def _refuse_late(view: FeatureView, column: Column) -> None:
    """A row that is declared to be known only after its time has nothing to tell at that time."""
    if isinstance(view.spine, Source) and view.spine.delay:
        raise DeclarationError(
            f"view {view.name!r}: {column!r} is known only {spoken(view.spine.delay)} after the time that is asked about",
            next_step="make the spine a source of what is known when asking (fixtures, not results), and read the rest from groups",
        )


def _refuse_duplicates(view: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeclarationError(
            f"view {view!r} has two features called {twice[0]!r}",
            next_step='tell them apart with .of(..., prefix="...")',
        )


def _one_module(view: FeatureView) -> str:
    sources = {f.source for f in view.on_demand}
    if len(sources) > 1:
        raise DeclarationError(
            f"view {view.name!r} takes on-demand functions from {len(sources)} modules",
            next_step="keep them in one on_demand.py: a release carries its text",
        )
    for source in sources:
        check_imports(source, where=f"the on-demand module of view {view.name!r}")
    return next(iter(sources), "")


def describe(view: FeatureView) -> dict[str, Any]:
    """The view as JSON-like facts, for `windrow diff`."""
    groups = {g.table_name: g.fingerprint for g in view.groups}
    return {
        "spine": view.spine.name,
        "features": [f"{f.name}: {f.dtype}" for f in view.contract.features],
        "groups": groups,
    }
