"""The asset of an aggregate group: nothing is stored offline, each entity's state goes online."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.features.aggregate import AggregateGroup
from windrow.orchestrate.facts import Metadata, declared_schema, moment
from windrow.orchestrate.lineage_facts import group_lineage
from windrow.orchestrate.resources import Stores

if TYPE_CHECKING:
    from windrow.stores.publish import Published


def aggregate_metadata(group: AggregateGroup) -> Metadata:
    """Return what the declaration says."""
    functions = "\n".join(f"- `{name}`: {made}" for name, made in group.aggregates.items())
    return {
        "dagster/column_schema": declared_schema(group),
        **group_lineage(group),
        "entity": ", ".join(group.entity.key_names),
        "functions": dg.MetadataValue.md(functions),
        "stored offline": "nothing: history reads the events of its source in place",
    }


def materialize_states(group: AggregateGroup, stores: Stores) -> Iterator[dg.MaterializeResult[Any]]:
    """Check the version, count the events, and load the state of every entity into the online store."""
    from windrow.stores.materialize import check_version

    check_version(group, stores.metadata)
    table = stores.lake.table(group.source.key)
    events = table.stats()
    facts: Metadata = {"events": events.rows}
    if group.online:
        facts |= _published(group, stores)
    else:
        facts["skipped because"] = "it is declared online=False, and nothing of it is stored offline"
    stores.metadata.record_definition(group.key, group.fingerprint, group.describe())
    stores.metadata.record_materialization(group.key)
    version = dg.DataVersion(f"{group.fingerprint}-{events.seq}")
    yield dg.MaterializeResult(metadata=facts, data_version=version)


def _published(group: AggregateGroup, stores: Stores) -> Metadata:
    from windrow.stores.ingest.events import FOLDER
    from windrow.stores.online.store import open_online
    from windrow.stores.states import publish_aggregates

    now = stores.now([group.source])
    with open_online(stores.settings.online, write=True) as online:
        made = publish_aggregates(group, stores.lake, online, now, folder=stores.settings.folder(FOLDER))
    return {**_counts(made), "online as of": moment(now)}


def _counts(made: "Published") -> Metadata:
    facts: Metadata = {
        "events read": made.rows_read, "online entities written": made.entities_written, "online entities": made.entities,
    }  # fmt: skip
    return facts if made.rows_read else {**facts, "skipped because": "no event is new since the states were made"}
