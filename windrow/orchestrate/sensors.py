"""What runs by itself: a schedule per batch service, and a sensor that observes logs and outcomes.

The sensor runs from the start: it only reads, and without it the log's place in the lineage stays
empty. Schedules are stopped until somebody starts them: they write, and need the machine to be on.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import dagster as dg
import msgspec

from windrow.errors import DeclarationError
from windrow.models.service import PredictionService
from windrow.orchestrate.facts import asset_key, moment
from windrow.orchestrate.resources import Stores

_SECONDS = 60
_KINDS = {"log": "prediction", "outcomes": "outcome"}


class Logged(NamedTuple):
    """What is in one log or outcome table; `newest` event time in UTC microseconds, `unmatched` outcomes."""

    key: str
    rows: int
    newest: int | None
    unmatched: int


def log_assets(service: PredictionService) -> list[dg.AssetSpec]:
    """Return the external assets of a service: what it answered, and what really happened."""
    upstream = [f"{service.name}/model", *([f"{service.name}/predictions"] if service.batch else [])]
    texts = {
        "log": ("Every request that the service answered or refused, with its vector.", upstream),
        "outcomes": ("What really happened, by request.", [f"{service.name}/log"]),
    }
    return [
        dg.AssetSpec(
            asset_key(f"{service.name}/{name}"),
            deps=[asset_key(key) for key in deps],
            group_name=service.name,
            description=text,
            kinds={"delta", "bentoml"},
        )
        for name, (text, deps) in texts.items()
    ]


def log_sensor(services: Sequence[PredictionService]) -> dg.SensorDefinition:
    """Return the sensor that observes ``<service>/log`` and ``<service>/outcomes`` when they have grown."""

    @dg.sensor(
        name="observe_logs",
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Counts the rows of every log and of every outcome table; starts nothing.",
    )
    def observe_logs(
        context: dg.SensorEvaluationContext, stores: dg.ResourceParam[Stores]
    ) -> dg.SensorResult | dg.SkipReason:
        seen = msgspec.json.decode(context.cursor or "{}", type=dict[str, int])
        found = list(logged(services, stores))
        grown = [one for one in found if one.rows != seen.get(one.key, 0)]
        if not grown:
            return dg.SkipReason("No log has grown.")
        cursor = msgspec.json.encode({one.key: one.rows for one in found}).decode()
        return dg.SensorResult(asset_events=[observed(one) for one in grown], cursor=cursor)

    return observe_logs


def logged(services: Iterable[PredictionService], stores: Stores) -> Iterator[Logged]:
    """Yield what is in every log and outcome table."""
    for service in services:
        for name, kind in _KINDS.items():
            rows = stores.log.table(service.name, kind=kind)
            times = rows.column("event_time").cast("int64").to_pylist() if rows.num_rows else []
            unmatched = stores.log.unmatched(service.name) if kind == "outcome" and times else 0
            yield Logged(f"{service.name}/{name}", rows.num_rows, max(times, default=None), unmatched)


def batch_job(service: PredictionService, keys: Sequence[str]) -> Any:
    """Return the job of one batch service: its data and its predictions, without training."""
    selection = dg.AssetSelection.assets(*(asset_key(key) for key in keys))
    return dg.define_asset_job(f"{service.name}_batch", selection=selection, description="Read new data, then score.")


def batch_schedule(
    service: PredictionService, job: Any, *, partitions: dg.DailyPartitionsDefinition | None
) -> dg.ScheduleDefinition:
    """Return the schedule of a batch service; a daily service scores the newest day of its clock."""
    assert service.batch is not None

    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if partitions is None:
            return dg.RunRequest()
        newest = partitions.get_last_partition_key()
        if newest is None:
            return dg.SkipReason("There is no day to score yet: materialize the sources first.")
        return dg.RunRequest(partition_key=newest)

    try:
        return dg.schedule(
            name=f"{service.name}_schedule",
            job=job,
            cron_schedule=service.batch.schedule,
            default_status=dg.DefaultScheduleStatus.STOPPED,
            description=f"Score {service.name} ({service.batch.schedule}).",
        )(schedule)
    except dg.DagsterInvalidDefinitionError as error:
        raise DeclarationError(
            f"the schedule {service.batch.schedule!r} of service {service.name!r} is no cron line",
            next_step='write "@daily", "@hourly" or minute, hour, day, month and weekday, such as "30 6 * * *"',
        ) from error


def stream_job(service: PredictionService, keys: Sequence[str]) -> Any:
    """Return the job of one stream: its feature groups and the answers that are due, without training."""
    selection = dg.AssetSelection.assets(*(asset_key(key) for key in keys))
    text = "Make features of what came in, then answer what is due."
    return dg.define_asset_job(f"{service.name}_stream", selection=selection, description=text)


def stream_schedule(service: PredictionService, job: Any) -> dg.ScheduleDefinition:
    """Return the schedule that answers what is due, every minute."""
    return dg.ScheduleDefinition(
        name=f"{service.name}_stream_schedule",
        job=job,
        cron_schedule="* * * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Answer what {service.name} is due to say, every minute.",
    )


def observed(one: Logged) -> dg.AssetObservation:
    """Return what is seen of one log: its rows, the newest time they are about, and what belongs to nothing."""
    newest = {} if one.newest is None else {"newest": moment(one.newest)}
    lost = {"outcomes_without_prediction": one.unmatched} if one.unmatched else {}
    return dg.AssetObservation(asset_key(one.key), metadata={"dagster/row_count": one.rows, **newest, **lost})
