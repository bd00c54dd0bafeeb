"""Feature groups: functions from source tables to rows of features, checked when they are declared."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
from ibis.common.annotations import ValidationError
from ibis.common.exceptions import IbisError
from ibis.expr.format import pretty

from windrow.clock import duration
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.comparisons import refuse_mixed
from windrow.features.frames import frame_function, with_reads
from windrow.features.kinds import check_kind, check_version
from windrow.features.place import External
from windrow.features.reference import Reference
from windrow.features.repeatable import refuse_moving
from windrow.features.shifts import refuse_bleeding
from windrow.features.source import Column, Source
from windrow.schema import (
    EVENT_TIME,
    KNOWN_AT,
    SYSTEM_COLUMNS,
    Entity,
    check_name,
    fingerprint,
)

_NO_COLUMN = re.compile(r"(?:'Table' object has no attribute|Column) '(\w+)'")
_IBIS = {"timestamp": "timestamp('UTC', 6)"}
_DTYPES = {
    "boolean": "bool", "int8": "int32", "int16": "int32", "int32": "int32", "int64": "int64",
    "float32": "float32", "float64": "float64", "string": "string",
}  # fmt: skip


def ibis_dtype(dtype: str) -> str:
    """Return the name that Ibis has for a dtype.

    Examples
    --------
    >>> ibis_dtype("timestamp"), ibis_dtype("int64")
    ("timestamp('UTC', 6)", 'int64')
    """
    return _IBIS.get(dtype, dtype)


def unbound(fields: Mapping[str, str], name: str) -> ir.Table:
    """Return an Ibis table without data, with the two times that windrow adds to every table."""
    columns = {**fields, EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}
    return ibis.table({c: ibis_dtype(d) for c, d in columns.items()}, name=name)


@dataclass(frozen=True, eq=False)
class Selection:
    """Some features of a group, in a role: the keys found under other names, the features prefixed.

    Attributes
    ----------
    keys
        Per key of the group a request field, or the feature of another group that holds it.
    """

    group: FeatureGroup
    names: tuple[str, ...]
    keys: tuple[str | Column, ...]
    prefix: str = ""

    def of(self, *keys: str | Column | Selection, prefix: str = "") -> Selection:
        """Return the same features for the entity found under `keys`: request fields, or features of other groups."""
        if len(keys) != len(self.group.entity.keys):
            raise DeclarationError(
                f"group {self.group.name!r} has keys {self.group.entity.key_names}, but of() got {keys}",
                next_step="name one request field per key",
            )
        return Selection(self.group, self.names, tuple(_key(key, self.group) for key in keys), prefix)

    @property
    def name(self) -> str:
        """The group with its role, for messages."""
        return f"{self.group.name}.of({', '.join(map(repr, self.keys))})"

    @property
    def columns(self) -> dict[str, str]:
        """Name in the view -> name in the group."""
        return {self.prefix + name: name for name in self.names}

    def column(self, name: str) -> Column:
        """Return one feature in this role, as an input of an on-demand function or as the key of another group."""
        return Column(self, name, self.group.column(name).dtype)

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_") or hasattr(type(self), name):
            raise AttributeError(name)
        return self.column(name)

    def __getitem__(self, names: str | tuple[str, ...]) -> Selection:
        return Selection(self.group, self.group[names].names, self.keys, self.prefix)


def _key(key: Any, group: FeatureGroup) -> str | Column:
    example = 'a request field such as "home_team", or a feature of another group'
    check_kind(key, (str, Column, Selection), where=f"a key of {group.name!r}.of(...)", example=example)
    if not isinstance(key, Selection):
        return key  # type: ignore[no-any-return]  # checked one line above
    if len(key.names) != 1:
        raise DeclarationError(f"{key.name} has {len(key.names)} features, but a key is one", next_step="select one")
    return key.column(key.names[0])


@dataclass(frozen=True, eq=False)
class FeatureGroup:
    """A versioned table of features per entity key and time; made by `feature_group`.

    Attributes
    ----------
    features
        Feature -> dtype, in the order the function gives them.
    ttl
        Microseconds after which a value is expired, or None.
    external
        Where the rows are, for a group that is read in place; else None.
    """

    name: str
    entity: Entity
    version: int
    function: Callable[..., ir.Table]
    inputs: dict[str, Source | FeatureGroup]
    ttl: int | None = None
    online: bool = True
    checks: Reference | None = None
    on_bad: str = "reject"
    description: str = ""
    owner: str | None = None
    external: External | None = None

    @property
    def table_name(self) -> str:
        """Name with version, such as ``card_profile_v1``."""
        return f"{self.name}_v{self.version}"

    @property
    def key(self) -> str:
        """Its asset key and lake path."""
        return f"features/{self.table_name}"

    @cached_property
    def expression(self) -> ir.Table:
        """The definition over tables without data."""
        return self.build({p: unbound(_fields(i), i.key) for p, i in self.inputs.items()})

    @cached_property
    def features(self) -> dict[str, str]:
        """Feature -> dtype."""
        skip = {*self.entity.key_names, *SYSTEM_COLUMNS}
        schema = self.expression.schema()
        return {n: _dtype(self.name, n, t) for n, t in schema.items() if n not in skip}

    @property
    def fields(self) -> dict[str, str]:
        """Keys and features with dtypes, as a group that reads this one sees them."""
        return {**{k.name: k.dtype for k in self.entity.keys}, **self.features}

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the meaning of the rows changes (not with names of parameters or comments)."""
        return fingerprint(self.describe())

    @cached_property
    def _definition(self) -> str:
        """The definition as text that changes only with its meaning: where an external group's server is does not count."""
        if self.external is not None:
            return self.external.definition
        # SQL and DataFrame functions say themselves what they mean.
        said: str = getattr(self.function, "definition", None) or pretty(self.expression.op())
        return said

    def describe(self) -> dict[str, Any]:
        """The definition as JSON-like facts."""
        return {
            "entity": {k.name: k.dtype for k in self.entity.keys},
            "definition": self._definition,
            "features": self.features,
            "ttl": self.ttl,
            "inputs": {i.key: i.fingerprint for i in self.inputs.values()},
        }

    def build(self, tables: Mapping[str, ir.Table]) -> ir.Table:
        """Apply the definition to `tables` (by parameter name).

        Returns
        -------
        ibis.expr.types.Table
            Columns: keys, features, ``event_time``, ``known_at``.
        """
        made = _carry_times(_apply(self, tables))
        _check_result(self, made)
        features = [c for c in made.columns if c not in {*self.entity.key_names, *SYSTEM_COLUMNS}]
        hidden = {c for i in self.inputs.values() if isinstance(i, Source) for c in i.time_columns}
        features = [c for c in features if c not in hidden]
        cast = {k.name: ibis_dtype(k.dtype) for k in self.entity.keys}
        return made.select(*self.entity.key_names, *features, EVENT_TIME, KNOWN_AT).cast(cast)

    def __getattr__(self, name: str) -> Column:
        # A property that failed with an AttributeError ends up here too, and is no feature.
        if name.startswith("_") or hasattr(type(self), name):
            raise AttributeError(name)
        return self.column(name)

    def __getitem__(self, names: str | tuple[str, ...]) -> Selection:
        wanted = (names,) if isinstance(names, str) else names
        for name in wanted:
            self.column(name)
        return Selection(self, tuple(wanted), self.entity.key_names)

    def of(self, *keys: str | Column | Selection, prefix: str = "") -> Selection:
        """All features for the entity found elsewhere: ``form.of("home_team", prefix="home_")``.

        A key is a request field, or a feature of another group that holds it: ``region.of(card_profile.region_id)``.
        """
        return self.all.of(*keys, prefix=prefix)

    def _repr_html_(self) -> str:
        from windrow.html import group_card

        return group_card(self)

    @property
    def all(self) -> Selection:
        """Every feature of the group."""
        return Selection(self, tuple(self.features), self.entity.key_names)

    def column(self, name: str) -> Column:
        """Return one feature as an input of an on-demand function."""
        if name not in self.features:
            raise UnknownNameError("feature", name, list(self.features), where=f"feature group {self.name!r}")
        return Column(self, name, self.features[name])


def feature_group(
    entity: Entity | None = None,
    *,
    version: int = 1,
    ttl: str | None = None,
    online: bool = True,
    checks: str | Callable[..., Any] | None = None,
    on_bad: Literal["reject", "quarantine"] = "reject",
    owner: str | None = None,
    name: str | None = None,
    frame: Literal["pandas", "polars"] | None = None,
    features: Mapping[str, str] | None = None,
    reads: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Callable[..., ir.Table]], FeatureGroup]:
    """Declare a feature group: a function whose parameters are named after sources or groups of its module.

    Parameters
    ----------
    entity
        Whose features these are; its keys must be columns of the result. Without one the rows are about everybody:
        looked up by time alone, such as holidays or an exchange rate.
    version
        Raise it when the definition changes.
    ttl
        Age (such as ``"400d"``) after which values count as expired.
    online
        Whether rows go to the online store.
    checks
        ``"module:Schema"``, a pandera schema that rows must pass before they are committed.
    on_bad
        What happens to rows that fail: ``reject`` the whole write or ``quarantine`` the rows.
    name
        Default: the function's. Two versions of a group stand side by side as functions of two names with one `name`.
    frame
        The function is given DataFrames of this kind, with ``event_time`` and ``known_at``, and returns one that has
        both; its `features` (name -> dtype) are then declared here, and values that these cannot hold are refused.
    reads
        For `frame`: feature -> the ``"input.column"`` that it is computed from, and ``"rows"`` -> those that decide
        which rows there are. Without it they are found by changing stored rows, and marked as probed.

    Raises
    ------
    DeclarationError
        When an input, key, time or dtype cannot be right; the message names what exists.

    Examples
    --------
    >>> card = Entity("card", card_id="int64")
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", cents=payments.amount * 100)
    >>> spend.__globals__["payments"] = payments
    >>> feature_group(card)(spend).features
    {'cents': 'float64'}
    """
    example = '@feature_group(card), with card = Entity("card", card_id="int64") above it'
    entity = Entity.keyless() if entity is None else entity
    check_kind(entity, Entity, where="the entity of a feature group", example=example)

    def declare(function: Callable[..., Any]) -> FeatureGroup:
        called = check_name("feature group", name or function.__name__)
        check_policy(called, version, on_bad)
        package, inputs = function.__globals__.get("__package__") or None, _inputs(function)
        columns = {name: [*item.fields, EVENT_TIME, KNOWN_AT] for name, item in inputs.items()}
        body = with_reads(_body(function, entity, frame, features), reads, columns)
        group = FeatureGroup(
            called, entity, version, body, inputs,
            ttl=life(ttl, where=f"feature group {called!r}"), online=online, on_bad=on_bad, owner=owner,
            checks=Reference.to(checks, package) if checks else None,
            description=inspect.getdoc(function) or "",
        )  # fmt: skip
        return refuse_featureless(group)

    return declare


def refuse_featureless(group: FeatureGroup) -> FeatureGroup:
    """Return the group; raise `DeclarationError` if it makes no feature."""
    if not group.features:
        raise DeclarationError(
            f"feature group {group.name!r} makes no feature", next_step="select at least one column besides the keys"
        )
    return group


def check_policy(name: str, version: int, on_bad: str) -> None:
    """Raise `DeclarationError` if there is no such policy for bad rows, or no such version."""
    if on_bad not in ("reject", "quarantine"):
        raise UnknownNameError("policy on_bad", on_bad, ["reject", "quarantine"], where=f"feature group {name!r}")
    check_version(version, where=f"feature group {name!r}")


def life(ttl: str | None, *, where: str) -> int | None:
    """Return the microseconds of a TTL; raise `DeclarationError` if every value would be expired.

    Examples
    --------
    >>> life("1s", where="feature group 'spend'")
    1000000
    """
    made = None if ttl is None else duration(ttl, where=f"ttl= of {where}")
    if made == 0:
        raise DeclarationError(
            f"{where} has ttl={ttl!r}: every value would be expired at once",
            next_step='write how old a value may be, such as "30d", or leave ttl= out',
        )
    return made


def _body(
    function: Callable[..., Any], entity: Entity, frame: str | None, features: Mapping[str, str] | None
) -> Callable[..., ir.Table]:
    if frame is not None:
        return frame_function(function, frame, keys={k.name: k.dtype for k in entity.keys}, features=features)
    if features is not None:
        raise DeclarationError(
            f"feature group {function.__name__!r} declares features=, but an Ibis definition says itself what it makes",
            next_step='leave features= out, or add frame="pandas"',
        )
    return function


def _inputs(function: Callable[..., Any]) -> dict[str, Source | FeatureGroup]:
    known = {n: v for n, v in function.__globals__.items() if isinstance(v, Source | FeatureGroup)}
    for name in inspect.signature(function).parameters:
        if name not in known:
            raise UnknownNameError(
                "source or group", name, list(known), where=f"the module of feature group {function.__name__!r}"
            )
    return {name: known[name] for name in inspect.signature(function).parameters}


def _apply(group: FeatureGroup, tables: Mapping[str, ir.Table]) -> ir.Table:
    try:
        made = group.function(**tables)
    except (AttributeError, IbisError, ValidationError) as error:
        where, missing = f"feature group {group.name!r}", _NO_COLUMN.search(str(error))
        if missing:
            known = list(dict.fromkeys(c for table in tables.values() for c in table.columns))
            raise UnknownNameError("column", missing[1], known, where=f"the input of {where}") from error
        raise DeclarationError(
            f"{where} cannot be built: {str(error).splitlines()[0][:200]}", next_step="mend its function"
        ) from error
    example = "return <an Ibis table>, such as: return payments.select(...)"
    check_kind(made, ir.Table, where=f"what the function of feature group {group.name!r} returns", example=example)
    return made


def _fields(owner: Source | FeatureGroup) -> dict[str, str]:
    return {k: v for k, v in owner.fields.items() if k not in SYSTEM_COLUMNS}


def _carry_times(table: ir.Table) -> ir.Table:
    """Keep both times through every projection, so that definitions need not name them.

    Where rows are told apart by what was selected, a time more would make rows of one many.
    """
    apart = {_selected(node.parent) for node in table.op().find(ops.Distinct)}
    # What `isin` looks into has one column, and what is compared with a value has one too.
    apart |= {_selected(node.rel) for node in table.op().find((ops.InSubquery, ops.ScalarSubquery))}

    def keep(node: Any, kwargs: Mapping[str, Any] | None) -> Any:
        # Ibis gives None where no child was replaced; the node's own arguments are in force then.
        arguments = kwargs or dict(zip(node.argnames, node.args, strict=True))
        if not isinstance(node, ops.Project) or node in apart:
            return node.__recreate__(arguments) if kwargs else node
        parent, values = arguments["parent"], arguments["values"]
        missing = [c for c in (EVENT_TIME, KNOWN_AT) if c not in values and c in parent.schema]
        return ops.Project(parent, {**values, **{c: ops.Field(parent, c) for c in missing}})

    return table.op().replace(keep).to_expr()


def _selected(node: Any) -> Any:
    """Return the projection that decides the columns of `node`."""
    while isinstance(node, ops.Filter | ops.Sort | ops.Limit):
        node = node.parent
    return node


def _check_result(group: FeatureGroup, table: ir.Table) -> None:
    where, schema = f"feature group {group.name!r}", table.schema()
    for key in group.entity.keys:
        if key.name not in schema:
            raise UnknownNameError("key column", key.name, list(schema), where=f"the result of {where}")
        if _dtype(group.name, key.name, schema[key.name]) != key.dtype:
            raise DeclarationError(
                f"{where}: key {key.name!r} is {schema[key.name]}, but entity {group.entity.name!r} says {key.dtype}",
                next_step=f"cast it: .cast({{{key.name!r}: {key.dtype!r}}})",
            )
    for time in (EVENT_TIME, KNOWN_AT):
        if time not in schema:
            raise DeclarationError(
                f"the result of {where} has no {time}",
                next_step=f"keep {time} in every aggregation, such as {time}=t.{time}.max()",
            )
    refuse_bleeding(table, group.entity, where=where)
    refuse_moving(table, where=where)
    refuse_mixed(table, where=where)


def _dtype(group: str, name: str, dtype: Any) -> str:
    if dtype.is_timestamp():
        return "timestamp"
    plain = str(dtype.copy(nullable=True))
    if plain not in _DTYPES:
        raise DeclarationError(
            f"feature group {group!r}: column {name!r} is {plain}, which windrow does not store",
            next_step=f"cast it to one of {', '.join(sorted(set(_DTYPES.values())))}",
        )
    return _DTYPES[plain]
