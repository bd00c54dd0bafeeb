"""Whom a service is asked about: the entities of an external group that are worth bringing online."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.features.arrow import arrow_schema
from windrow.features.source import Source
from windrow.stores.engine import engine

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.group import FeatureGroup
    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog

_REQUESTS = 100_000  # the newest ones of a service


def keys_in_use(group: FeatureGroup, services: Iterable[PredictionService], lake: Lake, log: PredictionLog) -> pa.Table:
    """Return the entities of a group that services' stored events and newest requests name, each once.

    Parameters
    ----------
    group
        Looked up by fields of a request; an entity that is found through another group is found among its rows.
    services
        Those whose views read the group, in any role.

    Returns
    -------
    pyarrow.Table
        One row per entity, with the entity's keys as columns.
    """
    import pyarrow as pa

    schema = arrow_schema({key.name: key.dtype for key in group.entity.keys})
    parts = [schema.empty_table()]
    for service in services:
        for fields in _roles(service, group):
            parts += [made.cast(schema) for made in _named(service, fields, lake, log)]
    names = schema.names
    every = pa.concat_tables(parts).drop_null()
    return every.group_by(names).aggregate([]).sort_by([(n, "ascending") for n in names]) if names else every


def _roles(service: PredictionService, group: FeatureGroup) -> Iterator[dict[str, str]]:
    """Yield key of the group -> field or ``stored.<value>``, once per way in which a view finds the entity."""
    seen: list[dict[str, str]] = []
    for lookup in service.view.contract.lookups:
        if lookup.group == group.table_name and lookup.references not in seen:
            seen.append(lookup.references)
            yield lookup.references


def _named(service: PredictionService, fields: dict[str, str], lake: Lake, log: PredictionLog) -> Iterator[Any]:
    stored = [name.removeprefix("stored.") for name in fields.values() if name.startswith("stored.")]
    if stored:
        yield from _through(service, fields, stored, lake)
        return
    spine = service.view.spine
    owners = [spine.key] if isinstance(spine, Source) else [g.key for g in _of_same_keys(service, fields)]
    for key in owners:
        if lake.table(key).exists:
            rows = lake.table(key).scan(engine())
            yield rows.select(**{k: rows[f] for k, f in fields.items()}).distinct().to_pyarrow()
    yield _asked(service, fields, log)


def _of_same_keys(service: PredictionService, fields: dict[str, str]) -> list[FeatureGroup]:
    """Return the stored groups that say which entities a clock asks about."""
    wanted = set(fields.values())
    return [g for g in service.view.groups if g.external is None and set(g.entity.key_names) == wanted]


def _through(service: PredictionService, fields: dict[str, str], stored: Sequence[str], lake: Lake) -> Iterator[Any]:
    """Yield the entities that the rows of one other group name; of two groups nobody knows which belong together."""
    owners = [lookup for lookup in service.view.contract.lookups if set(stored) <= set(lookup.columns)]
    if len(stored) < len(fields) or not owners or not lake.table(f"features/{owners[0].group}").exists:
        return
    rows = lake.table(f"features/{owners[0].group}").scan(engine())
    columns = {key: rows[owners[0].columns[name.removeprefix("stored.")]] for key, name in fields.items()}
    yield rows.select(**columns).distinct().to_pyarrow()


def _asked(service: PredictionService, fields: dict[str, str], log: PredictionLog) -> pa.Table:
    import pyarrow as pa

    rows = log.table(service.name)
    texts = rows.slice(max(0, rows.num_rows - _REQUESTS))["request"].to_pylist()
    requests = [msgspec.json.decode(text) for text in texts]
    dtypes = {field.name: field.dtype for field in service.view.spine.spine_fields}
    schema = arrow_schema({key: dtypes[name] for key, name in fields.items()})
    return pa.table(
        {key: pa.array([r.get(name) for r in requests], schema.field(key).type) for key, name in fields.items()}
    )
