"""Which names events can be sent to, as plain data: the worker and the applier know no declarations.

Whoever has loaded the project (``windrow up``, ``windrow run``, ``windrow materialize``) records the catalogue in
the metadata store; who takes events in, or applies them, reads it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.clock import duration
from windrow.features.agg import Aggregate
from windrow.features.source import Source
from windrow.schema import EVENT_TIME, KNOWN_AT, Field, fingerprint

if TYPE_CHECKING:
    from windrow.features.group import FeatureGroup
    from windrow.stores.metadata import Metadata

KEY = "ingest/catalogue"
_REMEMBERED = duration("1d")  # how long an id is remembered that no window asks for


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One name that events can be sent to: a source, or a feature group.

    Attributes
    ----------
    name
        Of a source; of a group with its version.
    kind
        ``source`` or ``group``.
    key
        The table in the lake.
    fields
        What a row has: for a source its columns and times, for a group keys, features and ``event_time``.
    event_time, known_at
        The fields that hold the times; without a field for ``known_at`` it is the event's time plus `delay`, but
        never before the row arrived.
    id
        The field that identifies an event.
    keys, features
        Of a group.
    online
        The group's name in the online store, or None.
    checks
        ``"module:attribute"`` of the group's validation schema.
    aggregates
        Of a source: online group -> what to keep of its events.
    sources
        The sources whose latest known time moves on with these events (the clock ``data``).
    """

    name: str
    kind: str
    key: str
    fields: tuple[Field, ...]
    event_time: str = EVENT_TIME
    known_at: str | None = None
    delay: int = 0
    id: str | None = None
    keys: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    online: str | None = None
    checks: str | None = None
    aggregates: dict[str, Aggregate] = {}
    sources: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of a row, in order."""
        return tuple(field.name for field in self.fields)

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the table in the lake, with dtypes, ``_seq`` excepted."""
        times = {EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}
        return {**{field.name: field.dtype for field in self.fields if field.name not in times}, **times}

    @property
    def quarantine(self) -> str:
        """The table of rows that could not be applied (``quarantine/<group>_vN`` has those of a materialisation)."""
        return f"quarantine/{self.name if self.kind == 'source' else self.name.rpartition('_v')[0]}"

    @property
    def remembered(self) -> int:
        """Microseconds after an event for which its id has to be remembered: no window reaches back further."""
        made = [agg for spec in self.aggregates.values() for agg in spec.features.values()]
        return max((2 * (agg.window + agg.delay + (agg.hop or 0)) for agg in made), default=0) + _REMEMBERED


def stream_of_source(source: Source, aggregates: Mapping[str, Aggregate] | None = None) -> Stream | None:
    """Return how events of a source are taken in, or None for a source without times: nothing happens in it.

    Examples
    --------
    >>> payments = Source("payments", id="payment_id", event_time="ts", columns={"payment_id": "int64", "amount": "float64"})
    >>> stream_of_source(payments).names
    ('payment_id', 'amount', 'ts')
    """
    if not isinstance(source.event_time, str):
        return None
    specs, needed = dict(aggregates or {}), {*source.time_columns, source.id}
    fields = tuple(Field(name, dtype, nullable=name not in needed) for name, dtype in source.fields.items())
    return Stream(
        name=source.name, kind="source", key=source.key, fields=fields, event_time=source.event_time,
        known_at=source.known_at, delay=source.delay, id=source.id, aggregates=specs, sources=(source.name,),
    )  # fmt: skip


def stream_of_group(group: FeatureGroup) -> Stream:
    """Return how rows of a feature group are taken in."""
    keys = tuple(Field(key.name, key.dtype, nullable=False) for key in group.entity.keys)
    features = tuple(Field(name, dtype) for name, dtype in group.features.items())
    return Stream(
        name=group.table_name, kind="group", key=group.key, fields=(*keys, *features, Field(EVENT_TIME, "timestamp", False)),
        keys=group.entity.key_names, features=tuple(group.features), online=group.table_name if group.online else None,
        checks=str(group.checks) if group.checks else None, sources=tuple(sorted(_sources(group))),
    )  # fmt: skip


def catalogue(sources: Iterable[Source], groups: Iterable[FeatureGroup]) -> dict[str, Stream]:
    """Return every stream by the names it can be asked for.

    A group answers to ``name_vN``, and its newest version to ``name`` unless a source has that name.
    """
    from windrow.features.aggregate import AggregateGroup

    found, specs = dict[str, Stream](), dict[str, dict[str, Aggregate]]()
    plain: list[FeatureGroup] = []
    for group in sorted(groups, key=lambda group: group.version):
        if not isinstance(group, AggregateGroup):
            plain.append(group)
        elif group.online:
            specs.setdefault(group.source.name, {})[group.table_name] = group.spec
    for group in plain:
        found[group.table_name] = found[group.name] = stream_of_group(group)
    for source in sources:
        stream = stream_of_source(source, specs.get(source.name))
        if stream is not None:
            found[source.name] = stream
    return found


def record(streams: Mapping[str, Stream], metadata: Metadata) -> None:
    """Keep the catalogue for who takes events in; the same one again adds nothing."""
    document: dict[str, Any] = msgspec.to_builtins(dict(streams))
    metadata.record_definition(KEY, fingerprint(document), document)


def recorded(metadata: Metadata) -> dict[str, Stream]:
    """Return the catalogue that was recorded last; empty where none was.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.stores.metadata import Metadata
    >>> store = Metadata(f"sqlite:///{mkdtemp()}/metadata.db")
    >>> payments = Source("payments", event_time="ts", columns={"amount": "float64"})
    >>> record(catalogue([payments], []), store)
    >>> recorded(store)["payments"].key
    'sources/payments'
    """
    kept = metadata.definition(KEY)
    return {} if kept is None else msgspec.convert(kept.definition, dict[str, Stream], strict=False)


def _sources(group: FeatureGroup) -> set[str]:
    found: set[str] = set()
    for item in group.inputs.values():
        found |= {item.name} if isinstance(item, Source) else _sources(item)
    return found
