"""Promises of the maintenance job: every table, told on its own asset, started by the day or by too many files."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from tests.orchestrate.conftest import PACKAGE
from windrow.orchestrate import definitions
from windrow.orchestrate.resources import Stores
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable


def habits(tiny: Settings, batches: int) -> LakeTable:
    table = Lake(tiny.lake).table("features/habits_v1")
    times = pa.array([1], pa.timestamp("us", "UTC"))
    for number in range(batches, 0, -1):
        row = {"customer_id": pa.array([number], pa.int64()), "event_time": times, "known_at": times}
        table.append(pa.table(row))
    return table


def run(tiny: Settings, **config: Any) -> dg.ExecuteInProcessResult:
    job = definitions(PACKAGE, tiny).resolve_job_def("maintenance")
    ops = {"ops": {"maintain_tables": {"config": config}}} if config else {}
    return job.execute_in_process({"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **ops})


def test_a_table_with_many_small_files_is_sorted_by_its_entity_and_told_on_its_asset(tiny: Settings) -> None:
    table = habits(tiny, batches=22)
    done = run(tiny)
    assert table.scan(engine()).customer_id.to_pyarrow().to_pylist() == list(range(1, 23))
    (event,) = [e for e in done.all_events if e.event_type == dg.DagsterEventType.ASSET_OBSERVATION]
    assert event.asset_key == dg.AssetKey(["features", "habits_v1"])
    facts = {name: value.value for name, value in event.asset_observation_data.asset_observation.metadata.items()}
    assert (facts["files before"], facts["files"], facts["rows rewritten"]) == (22, 1, 22)
    assert facts["bytes"] < facts["bytes before"]


def test_a_table_with_few_files_keeps_them(tiny: Settings) -> None:
    table = habits(tiny, batches=3)
    run(tiny)
    assert table.stats().files == 3


def test_when_a_table_is_compacted_can_be_configured(tiny: Settings) -> None:
    table = habits(tiny, batches=3)
    run(tiny, small_files=2)
    assert table.stats().files == 1


def test_an_empty_machine_has_nothing_to_maintain(tiny: Settings) -> None:
    assert run(tiny).success


@pytest.mark.parametrize(("batches", "starts"), [(21, True), (20, False)])
def test_too_many_small_files_start_the_job(tiny: Settings, batches: int, starts: bool) -> None:
    habits(tiny, batches=batches)
    found = next(s for s in definitions(PACKAGE, tiny).sensors or [] if s.name == "crowded_tables")
    context = dg.build_sensor_context(resources={"stores": Stores(tiny)})
    assert isinstance(found(context), dg.RunRequest) is starts
