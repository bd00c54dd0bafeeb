"""Assets made from declarations: one factory per kind of thing, all of one shape."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.clock import spoken
from windrow.errors import ValidationError, WindrowError
from windrow.features.aggregate import AggregateGroup
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.orchestrate.aggregate_asset import aggregate_metadata, materialize_states
from windrow.orchestrate.facts import (
    Metadata,
    asset_key,
    counts,
    declared_schema,
    failure,
    moment,
    owners,
    table_facts,
    table_fingerprint,
)
from windrow.orchestrate.lineage_facts import group_lineage, probed_lineage
from windrow.orchestrate.resources import Stores

if TYPE_CHECKING:
    from windrow.stores.materialize import Write

Events = Iterator[Any]
Body = Callable[[dg.AssetExecutionContext, Stores], Events]

VALIDATION = "validation"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about one asset except what it does.

    Attributes
    ----------
    key, deps
        Windrow keys, such as ``features/card_v1``.
    code
        Fingerprint of the declaration: Dagster's code version.
    options
        More arguments for `dagster.asset`.
    """

    key: str
    deps: Sequence[str]
    group: str
    code: str
    description: str
    kinds: set[str]
    owner: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[dg.AssetCheckSpec] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def build(plan: Plan, body: Body) -> dg.AssetsDefinition:
    """Return the asset: `body` runs with the stores, and windrow's errors become readable failures."""

    def compute(context: dg.AssetExecutionContext) -> Events:
        stores: Stores = context.resources.stores
        with stores.step(plan.key):
            try:
                yield from body(context, stores)
            except WindrowError as error:
                raise failure(error) from error

    return _asset(
        key=asset_key(plan.key),
        deps=[asset_key(key) for key in dict.fromkeys(plan.deps)],
        group_name=plan.group,
        code_version=plan.code,
        description=plan.description or None,
        kinds=plan.kinds,
        owners=owners(plan.owner),
        metadata=plan.metadata,
        check_specs=list(plan.checks),
        required_resource_keys={"stores"},
        output_required=False,  # a blocked write materialises nothing
        **plan.options,
    )(compute)


def _asset(**arguments: Any) -> Callable[[Callable[..., Events]], dg.AssetsDefinition]:
    with warnings.catch_warnings():
        # backfill_policy is called beta; one run over a range of days is what it is for.
        warnings.simplefilter("ignore", dg.BetaWarning)
        made: Callable[[Callable[..., Events]], dg.AssetsDefinition] = dg.asset(**arguments)
    return made


def source_asset(source: Source, *, group: str) -> dg.AssetsDefinition:
    """Return ``sources/<name>``: a file or simulator read, checked, and its new rows appended."""
    origin = f"file {source.file.name!r}, else its simulator" if source.file else "its simulator"
    plan = Plan(
        key=source.key,
        deps=[],
        group=group,
        code=source.fingerprint,
        description=f"Rows of {source.name!r} with the time they were true and the time they could be known ({origin}).",
        kinds={"delta", "duckdb"},
        metadata={"dagster/column_schema": declared_schema(source)},
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.stores.materialize import materialize_source

        write = materialize_source(source, stores.lake, stores.metadata, stores.settings.data)
        yield _materialized(write, stores)

    return build(plan, body)


def group_asset(feature_group: FeatureGroup, *, group: str) -> dg.AssetsDefinition:
    """Return ``features/<name>_v<N>``: evaluated, validated, committed, and loaded into the online store."""
    if isinstance(feature_group, AggregateGroup):
        return _aggregate_asset(feature_group, group=group)
    plan = Plan(
        key=feature_group.key,
        deps=[item.key for item in feature_group.inputs.values()],
        group=group,
        code=feature_group.fingerprint,
        description=feature_group.description,
        kinds={"delta", "duckdb", "lmdb"} if feature_group.online else {"delta", "duckdb"},
        owner=feature_group.owner,
        metadata=_group_metadata(feature_group),
        checks=[_validation(feature_group)],
    )

    def body(context: dg.AssetExecutionContext, stores: Stores) -> Events:
        from windrow.stores.materialize import materialize_group

        found = probed_lineage(feature_group, stores)
        try:
            write = materialize_group(feature_group, stores.lake, stores.metadata)
        except ValidationError as error:
            # Nothing is committed yet: the failed check is recorded, and no materialisation follows.
            yield dg.AssetCheckResult(check_name=VALIDATION, passed=False, metadata={"reasons": counts(error.reasons)})
            raise
        yield _validated(write)
        yield _materialized(write, stores, extra={**_published(feature_group, stores), **found})

    return build(plan, body)


def _aggregate_asset(aggregates: AggregateGroup, *, group: str) -> dg.AssetsDefinition:
    plan = Plan(
        key=aggregates.key,
        deps=[aggregates.source.key],
        group=group,
        code=aggregates.fingerprint,
        description=aggregates.description or f"Windows over the events of {aggregates.source.name!r}.",
        kinds={"lmdb"} if aggregates.online else {"duckdb"},
        owner=aggregates.owner,
        metadata=aggregate_metadata(aggregates),
    )
    return build(plan, lambda context, stores: materialize_states(aggregates, stores))


def _group_metadata(group: FeatureGroup) -> Metadata:
    return {
        "dagster/column_schema": declared_schema(group),
        **group_lineage(group),
        "entity": ", ".join(group.entity.key_names),
        "ttl": spoken(group.ttl) if group.ttl else "none",
        "checks": str(group.checks or "keys and times"),
        "on bad rows": group.on_bad,
    }


def _validation(group: FeatureGroup) -> dg.AssetCheckSpec:
    text = f"Rows pass {group.checks or 'the built-in checks'} before they are committed; bad rows: {group.on_bad}."
    return dg.AssetCheckSpec(VALIDATION, asset=asset_key(group.key), blocking=True, description=text)


def _validated(write: "Write") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=VALIDATION,
        passed=not write.rows_quarantined,
        # Quarantined rows are kept aside and the others are good: worth a look, not a stop.
        severity=dg.AssetCheckSeverity.WARN if write.rows_quarantined else dg.AssetCheckSeverity.ERROR,
        metadata={"rows quarantined": write.rows_quarantined, "reasons": counts(write.reasons)},
    )


def _published(group: FeatureGroup, stores: Stores) -> Metadata:
    if not group.online:
        return {"online": "not published: declared online=False"}
    from windrow.stores.ingest.events import FOLDER
    from windrow.stores.online.store import open_online
    from windrow.stores.publish import publish_online

    online = open_online(stores.settings.online, write=True)
    try:
        now = stores.now(all_sources(group))
        made = publish_online(group, stores.lake, online, now, folder=stores.settings.folder(FOLDER))
    finally:
        online.close()
    facts = {"online rows read": made.rows_read, "online entities written": made.entities_written}
    return {**facts, "online entities": made.entities, "online as of": moment(now)}


def _materialized(write: "Write", stores: Stores, *, extra: Metadata | None = None) -> dg.MaterializeResult[Any]:
    table = stores.lake.table(write.key)
    facts = {
        "rows read": write.rows_read,
        "rows written": write.rows_written,
        "rows unchanged": write.rows_unchanged,
        "rows quarantined": write.rows_quarantined,
        **({"skipped because": write.skipped} if write.skipped else {}),
        **({"rows deleted": write.rows_deleted} if write.rows_deleted else {}),
        **table_facts(table),
        **(extra or {}),
    }
    return dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(table_fingerprint(table)))


def all_sources(group: FeatureGroup) -> list[Source]:
    """Return every source below `group`, each once."""
    inner = [all_sources(item) if isinstance(item, FeatureGroup) else [item] for item in group.inputs.values()]
    return list(dict.fromkeys(source for sources in inner for source in sources))
