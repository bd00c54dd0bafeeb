"""Given rows: dicts by source or group name, made into the tables that a group or view reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from windrow.errors import DeclarationError, SchemaError, UnknownNameError, listed
from windrow.features.aggregate import AggregateGroup
from windrow.features.arrow import arrow_schema
from windrow.features.exact import exactly
from windrow.features.group import FeatureGroup
from windrow.features.source import Constant, Source
from windrow.features.view import FeatureView
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.testing.tables import micros

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Sequence[Mapping[str, Any]]
Subject = FeatureGroup | FeatureView
Tables = Mapping[str, "pa.Table"]
TIMES = {EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}


def tables_of(subject: Subject, rows: Mapping[str, Rows]) -> dict[str, pa.Table]:
    """Return the given rows as tables, by source or group name.

    Raises
    ------
    UnknownNameError
        For rows or columns of what the subject does not read.
    DeclarationError, SchemaError
        When rows are missing, have no time, or hold a value that its dtype cannot.
    """
    owners = {owner.name: owner for owner in _below(subject)}
    for name in rows:
        if name not in owners:
            raise UnknownNameError("source or group", name, list(owners), where=f"{subject.name!r}")
    missing = [o.name for o in _needed(subject, rows) if o.name not in rows]
    if missing:
        raise DeclarationError(
            f"{subject.name!r} reads {listed(missing)}, of which no rows are given", next_step=f"add {missing[0]}=[...]"
        )
    return {name: table_of(owners[name], given) for name, given in rows.items()}


def table_of(owner: Source | FeatureGroup, rows: Rows) -> pa.Table:
    """Return rows of a source or group as a table: its fields and both times; a column left out is null."""
    import pyarrow as pa

    fields = {**owner.fields, **TIMES}
    for row in rows:
        for name in row:
            if name not in fields:
                raise UnknownNameError("column", name, list(fields), where=f"{owner.name!r}")
    plain, schema = [_plain(owner, row, fields) for row in rows], arrow_schema(fields)
    try:
        # Without a type, because Arrow stores 1.7 given as an integer as 1.
        given = {n: pa.chunked_array([pa.array([r[n] for r in plain])]) for n in fields}
        columns = {n: exactly(given[n], dtype, place=f"column {n!r}") for n, dtype in fields.items()}
        return pa.table(columns, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise SchemaError(
            f"A given row of {owner.name!r} holds a value that its dtype cannot: {error}",
            next_step="correct the row, or declare another dtype",
        ) from None


def _below(subject: Subject) -> Iterable[Source | FeatureGroup]:
    # A group's own rows can be given only where nothing else can make them.
    own = isinstance(subject, FeatureGroup) and subject.external is not None
    return [o for o in _walk(subject, ()) if own or o is not subject]


def _needed(subject: Subject, given: Iterable[str]) -> list[Source | FeatureGroup]:
    found = _walk(subject, tuple(given))
    return [o for o in found if isinstance(o, Source) or (isinstance(o, FeatureGroup) and o.external is not None)]


def _walk(subject: Any, stop: tuple[str, ...]) -> list[Any]:
    below: list[Any] = []
    if isinstance(subject, FeatureView):
        below = [*([subject.spine] if isinstance(subject.spine, Source) else []), *subject.groups]
    elif isinstance(subject, FeatureGroup) and (subject.name not in stop or isinstance(subject, AggregateGroup)):
        below = list(subject.inputs.values())
    return [subject, *(found for owner in below for found in _walk(owner, stop))]


def _plain(owner: Source | FeatureGroup, row: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        n: micros(row[n]) if d == "timestamp" and row.get(n) is not None else row.get(n) for n, d in fields.items()
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
