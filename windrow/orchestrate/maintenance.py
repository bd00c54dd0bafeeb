"""Maintenance of every table: a job that compacts, checkpoints and cleans, once a day or when files pile up."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from windrow.errors import WindrowError
from windrow.features.group import FeatureGroup
from windrow.orchestrate.facts import asset_key, failure
from windrow.orchestrate.resources import Stores
from windrow.stores.maintenance import KEEP_HOURS, SMALL_FILES, Maintained, crowded, maintain_all

JOB, SCHEDULE, SENSOR = "maintenance", "maintenance_schedule", "crowded_tables"
_SECONDS = 600
_OWN = ("predictions", "log", "outcomes")


class Upkeep(dg.Config):
    """When a table is compacted, and how long files of old versions stay."""

    small_files: int = SMALL_FILES
    keep_hours: int = KEEP_HOURS


def maintenance_job(groups: Sequence[FeatureGroup]) -> dg.JobDefinition:
    """Return the job ``maintenance``: every table of the lake, each observed on its own asset.

    Rows keep their order of writing, so that every ``as_of`` answers as before; writers and readers go on
    meanwhile. Tables of `groups` are sorted by their keys and times, the others by their times.
    """
    keys = sort_keys(groups)

    @dg.op(
        name="maintain_tables",
        required_resource_keys={"stores"},
        description="Compact tables with many small files, write checkpoints, remove files of old versions.",
    )
    def maintain_tables(context: dg.OpExecutionContext, config: Upkeep) -> None:
        stores: Stores = context.resources.stores
        small, keep = config.small_files, config.keep_hours
        try:
            done = maintain_all(stores.lake, keys, small=small, keep_hours=keep, told=context.log.info)
        except WindrowError as error:
            raise failure(error) from error
        for table in done:
            context.log_event(dg.AssetObservation(table_asset(table.key), metadata=facts(table)))
        context.add_output_metadata(totals(done))

    @dg.job(name=JOB, description="Compaction, checkpoint and vacuum of every table.")
    def maintenance() -> None:
        maintain_tables()

    return maintenance


def maintenance_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the daily schedule of the job; stopped until somebody starts it, as every schedule that writes."""
    return dg.ScheduleDefinition(
        name=SCHEDULE,
        job=job,
        cron_schedule="30 3 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Compaction, checkpoint and vacuum of every table, at night.",
    )


def crowded_sensor() -> dg.SensorDefinition:
    """Return the sensor that starts the job as soon as a table has more than `SMALL_FILES` small files."""

    @dg.sensor(
        name=SENSOR,
        job_name=JOB,
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Starts the maintenance when a table has more than {SMALL_FILES} small files.",
    )
    def crowded_tables(
        context: dg.SensorEvaluationContext, stores: dg.ResourceParam[Stores]
    ) -> dg.RunRequest | dg.SkipReason:
        found = crowded(stores.lake)
        return dg.RunRequest() if found else dg.SkipReason("No table has many small files.")

    return crowded_tables


def sort_keys(groups: Sequence[FeatureGroup]) -> dict[str, Sequence[str]]:
    """Return table key -> the entity's keys, for groups and what is put aside from them."""
    names = {group.table_name: group.entity.key_names for group in groups}
    return {f"{room}/{name}": keys for name, keys in names.items() for room in ("features", "quarantine")}


def table_asset(key: str) -> dg.AssetKey:
    """Return the asset that shows a table: predictions and logs are assets of their service.

    Examples
    --------
    >>> table_asset("features/card_v1").path, table_asset("log/churn").path
    (['features', 'card_v1'], ['churn', 'log'])
    """
    room, _, name = key.partition("/")
    return asset_key(f"{name}/{room}" if room in _OWN else key)


def facts(table: Maintained) -> dict[str, Any]:
    """Return what was done to one table, as its observation shows it."""
    return {
        "files": table.files_after,
        "files before": table.files_before,
        "bytes": table.bytes_after,
        "bytes before": table.bytes_before,
        "rows rewritten": table.rows_rewritten,
        "old files removed": table.files_removed,
        "log entries to read": table.log_after,
        "log entries before": table.log_before,
        "seconds": round(table.seconds, 3),
    }


def totals(done: Sequence[Maintained]) -> Mapping[str, Any]:
    """Return the sums over all tables, and one line for each."""
    sums = {name: sum(facts(table)[name] for table in done) for name in ("files", "files before", "bytes", "seconds")}
    heads = ("table", "files before", "files", "rows rewritten", "seconds")
    lines = [f"| {t.key} | {t.files_before} | {t.files_after} | {t.rows_rewritten:,} | {t.seconds:.2f} |" for t in done]
    table = "\n".join([f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---:|", *lines])
    return {"tables": len(done), **sums, "by table": dg.MetadataValue.md(table)}
