"""Aggregate groups: windows over an entity's events, declared once and executed over history, in a stream and in a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ibis.expr.types as ir

from windrow.errors import DeclarationError, UnknownNameError, listed
from windrow.features.agg import Agg, Aggregate
from windrow.features.group import FeatureGroup
from windrow.features.kinds import check_kind, check_version
from windrow.features.source import Constant, Source
from windrow.schema import SYSTEM_COLUMNS, Entity, check_name


@dataclass(frozen=True, eq=False, kw_only=True)
class AggregateGroup(FeatureGroup):
    """A feature group whose values are computed from a source's events when they are asked for; made by `aggregate`.

    Nothing of it is stored in the lake: history reads the source's rows in place, and the online store
    keeps one bounded state per entity.

    Attributes
    ----------
    source
        Whose rows are the events.
    aggregates
        Feature -> function.
    """

    source: Source
    aggregates: dict[str, Agg] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, str]:
        """Feature -> dtype."""
        return {name: made.dtype(self.source.fields) for name, made in self.aggregates.items()}

    @property
    def spec(self) -> Aggregate:
        """All that history, stream and request need, as plain data."""
        read = dict.fromkeys(c for made in self.aggregates.values() for c in made.columns)
        dtypes = {name: self.source.fields[name] for name in read}
        return Aggregate(
            source=self.source.key,
            keys=self.entity.key_names,
            id=self.source.id,
            columns=dtypes,
            features=dict(self.aggregates),
        )

    @property
    def column_origins(self) -> dict[str, list[tuple[str, str]]]:
        """Feature -> the (asset key, column) pairs that its values come from."""
        time = str(self.source.event_time)
        return {name: [(self.source.key, made.column or made.where or time)] for name, made in self.aggregates.items()}

    def describe(self) -> dict[str, Any]:
        """The definition as JSON-like facts."""
        return {
            "entity": {k.name: k.dtype for k in self.entity.keys},
            "definition": {name: str(made) for name, made in self.aggregates.items()},
            "hops": {name: made.hop for name, made in self.aggregates.items()},
            "features": self.features,
            "ttl": None,
            "inputs": {self.source.key: self.source.fingerprint},
        }

    def _repr_html_(self) -> str:
        from windrow.html import aggregate_card

        return aggregate_card(self)

    def build(self, tables: Mapping[str, ir.Table]) -> ir.Table:
        """Raise: the values of an aggregate group depend on the time that is asked about."""
        raise DeclarationError(
            f"aggregate group {self.name!r} has no rows of its own",
            next_step="read it through a FeatureView, which asks about times",
        )


def aggregate(
    name: str,
    source: Source,
    *,
    by: Entity,
    features: Mapping[str, Agg],
    version: int = 1,
    online: bool = True,
    owner: str | None = None,
    description: str = "",
) -> AggregateGroup:
    """Declare windows over the events of an entity.

    Parameters
    ----------
    name
        Lower snake case.
    source
        Whose rows are the events; of those with one id the first known one counts.
    by
        The entity; its keys are columns of the source.
    features
        Feature -> function, such as ``agg.sum("amount", "7d")``.
    version
        Raise it when a function changes.
    online
        Whether the state goes to the online store.

    Raises
    ------
    DeclarationError
        When a column, dtype or name cannot be right; the message names what exists.

    Examples
    --------
    >>> from windrow.features import agg
    >>> card = Entity("card", card_id="int64")
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> spend = aggregate("card_spend", payments, by=card, features={"spend_1d": agg.sum("amount", "1d")})
    >>> spend.features, spend.table_name
    ({'spend_1d': 'float64'}, 'card_spend_v1')
    """
    where = f"aggregate group {check_name('aggregate group', name)!r}"
    check_kind(source, Source, where=f"the source of {where}", example=f'aggregate("{name}", payments, by=card, ...)')
    check_kind(by, Entity, where=f"by= of {where}", example='by=card, with card = Entity("card", card_id="int64")')
    check_kind(features, Mapping, where=f"features= of {where}", example='{"spend_1d": agg.sum("amount", "1d")}')
    _check_source(source, by, where)
    _check_names(features, (*by.key_names, *SYSTEM_COLUMNS), where)
    for feature, made in features.items():
        _check_function(made, source, where=f"feature {feature!r} of {where}")
    check_version(version, where=where)
    return AggregateGroup(
        name=name, entity=by, version=version, function=_no_function, inputs={source.name: source},
        online=online, owner=owner, description=description, source=source, aggregates=dict(features),
    )  # fmt: skip


def _no_function(**tables: ir.Table) -> ir.Table:
    raise DeclarationError("an aggregate group has no function", next_step="read it through a FeatureView")


def _check_source(source: Source, by: Entity, where: str) -> None:
    if isinstance(source.event_time, Constant):
        raise DeclarationError(
            f"{where}: all rows of source {source.name!r} have one time",
            next_step="aggregate a source with an event time, or group its rows in a @feature_group",
        )
    for key in by.keys:
        if key.name not in source.columns:
            raise UnknownNameError(
                "column", key.name, list(source.columns), where=f"source {source.name!r}, key of {where},"
            )
        if source.columns[key.name] != key.dtype:
            raise DeclarationError(
                f"{where}: key {key.name!r} is {source.columns[key.name]} in source {source.name!r}, but entity {by.name!r} says {key.dtype}",
                next_step="declare both with one dtype",
            )


def _check_names(features: Mapping[str, Agg], taken: Iterable[str], where: str) -> None:
    if not features:
        raise DeclarationError(
            f"{where} makes no feature", next_step='give features={"spend_1d": agg.sum("amount", "1d")}'
        )
    for name in features:
        check_name("feature", name)
        if name in taken:
            raise DeclarationError(
                f"{where} has a feature called {name!r}, like a key or a time", next_step="call it otherwise"
            )


def _check_function(made: Agg, source: Source, *, where: str) -> None:
    check_kind(made, Agg, where=where, example='agg.sum("amount", "1d")')
    for column in made.columns:
        check_kind(column, str, where=f"a column of {where}", example='a name: agg.sum("amount", "1d", where="abroad")')
        source.column(column)
    for column in set(made.columns) - set(source.columns) if made.include_current else ():
        raise DeclarationError(
            f"{where} includes the current event's {column!r}, which no request brings: it is the time asked about",
            next_step="leave include_current out",
        )
    if made.where is not None and source.fields[made.where] != "bool":
        raise DeclarationError(
            f"{where}: where={made.where!r} is {source.fields[made.where]}",
            exists=f"Bool columns of source {source.name!r}: {listed(c for c, d in source.fields.items() if d == 'bool')}",
            next_step="add a bool column to the source that says which events count",
        )
    if made.column is not None and source.fields[made.column] not in made.takes:
        raise DeclarationError(
            f"{where}: {made.kind} of {made.column!r}, which is {source.fields[made.column]}",
            exists=f"{made.kind} takes {', '.join(made.takes)}",
            next_step="choose another column or function",
        )
