"""External groups as assets: nothing is copied; the keys in use are brought online."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from windrow.clock import spoken
from windrow.errors import NotFoundError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.models.service import PredictionService
from windrow.orchestrate.factories import Events, Plan, build
from windrow.orchestrate.facts import Metadata, declared_schema, moment
from windrow.orchestrate.resources import Stores
from windrow.schema import fingerprint


def in_place_asset(
    group: FeatureGroup, services: Sequence[PredictionService], *, asset_group: str
) -> dg.AssetsDefinition:
    """Return ``features/<name>_v<N>`` of an external group: materialising it publishes the keys in use.

    Parameters
    ----------
    services
        Those whose views read it: their events and requests say which keys are in use.
    """
    assert group.external is not None
    kind = type(group.external.place).__name__.lower()
    plan = Plan(
        key=group.key,
        deps=[s.view.spine.key for s in services if isinstance(s.view.spine, Source)],
        group=asset_group,
        code=group.fingerprint,
        description=group.description or f"Read in place: {group.external.place}.",
        kinds={"ibis" if kind == "ibistable" else kind},
        owner=group.owner,
        metadata={
            "dagster/column_schema": declared_schema(group),
            "read in place": str(group.external.place),
            "entity": ", ".join(group.entity.key_names),
            "ttl": spoken(group.ttl) if group.ttl else "none",
        },
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.stores.materialize import check_version

        check_version(group, stores.metadata)
        facts = _published(group, services, stores)
        stores.metadata.record_definition(group.key, group.fingerprint, group.describe())
        yield dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(fingerprint(facts)))

    return build(plan, body)


def _published(group: FeatureGroup, services: Sequence[PredictionService], stores: Stores) -> Metadata:
    users = [service for service in services if service.online is not None]
    if not group.online or not users:
        return {"online": "not published: no online service reads it, or it is declared online=False"}
    from windrow.models.keys_in_use import keys_in_use
    from windrow.stores.online.store import open_online
    from windrow.stores.publish_in_place import publish_in_place

    keys = keys_in_use(group, users, stores.lake, stores.log)
    now = _now(users, stores)
    with open_online(stores.settings.online, write=True) as online:
        made = publish_in_place(group, online, now, keys=keys)
    facts: dict[str, Any] = {"keys in use": keys.num_rows, "rows read": made.rows_read}
    facts |= {"online entities written": made.entities_written, "online entities": made.entities}
    return {**facts, "online as of": moment(now)}


def _now(services: Sequence[PredictionService], stores: Stores) -> int:
    sources = list(dict.fromkeys(source for service in services for source in service.sources))
    try:
        return stores.now(sources)
    except NotFoundError as error:
        raise NotFoundError(
            error.what, exists="Whose keys are in use is said by the services' sources", next_step=error.next_step
        ) from None
