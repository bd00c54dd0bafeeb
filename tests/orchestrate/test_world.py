"""Promises of a whole run: two services from source to drift report, in this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import ibis
import pytest

from tests.orchestrate.conftest import PACKAGE, settings_of
from windrow.errors import SettingsError, UnknownNameError
from windrow.orchestrate import definitions
from windrow.orchestrate.resources import Stores, dagster_home
from windrow.orchestrate.run import RunResult, run_service
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.log import LogRecord, LogWriter
from windrow.stores.online.store import open_online

DAYS = "2024-04-06..2024-04-09"


@dataclass(frozen=True)
class Made:
    """Both services, materialised once; the tests only look, or write what is theirs."""

    settings: Settings
    visits: RunResult
    heat: RunResult
    told: list[tuple[str, str]]

    @property
    def stores(self) -> Stores:
        return Stores(self.settings)

    def rows(self, key: str) -> ibis.Table:
        return self.stores.lake.table(key).scan(engine())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    settings, told = settings_of(tmp_path_factory.mktemp("made") / "home"), list[tuple[str, str]]()
    visits = run_service("visits", settings, package=PACKAGE, on_step=lambda key, state: told.append((key, state)))
    return Made(settings, visits, run_service("heat", settings, package=PACKAGE, partitions=DAYS), told)


@pytest.fixture
def instance(made: Made) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(dagster_home(made.settings))) as found:
        yield found


def test_every_asset_of_a_service_is_made_inputs_first(made: Made) -> None:
    keys = [
        "sources/customers", "sources/returned", "features/habits_v1", "visits/training_dataset", "visits/model",
        "visits/predictions", "visits/monitoring/drift",
    ]  # fmt: skip
    assert [step.key for step in made.visits.steps] == keys
    assert made.told == [(key, state) for key in keys for state in ("started", "done")]


def test_every_check_runs_and_passes(made: Made) -> None:
    assert made.heat.checks == {
        "features/heat_now_v1 validation": True, "features/heat_now_v1 freshness": True,
        "features/heat_range_v1 validation": True, "heat/model gate_mae": True,
        "heat/model parity": True, "heat/model golden_pairs": True,
        "heat/predictions freshness": True, "heat/monitoring/drift drift": True,
    }  # fmt: skip


def test_the_metrics_of_model_and_baseline_stand_side_by_side(made: Made) -> None:
    facts = made.visits.step("visits/model").facts
    assert facts["auc"] == 1.0
    assert facts["baseline auc"] == 0.5
    assert facts["metrics"].splitlines()[:3] == [
        "| metric | model | baseline | train |",
        "| --- | ---: | ---: | ---: |",
        "| auc | 1 | 0.5 | 1 |",
    ]


def test_what_a_training_notebook_reports_is_metadata_of_the_model(made: Made) -> None:
    facts = made.heat.step("heat/model").facts
    assert (facts["alpha"], facts["rows"], facts["answers with"]) == (1.0, 120, "onnx")


def test_the_executed_training_notebook_is_kept_and_the_model_file_is_not(made: Made) -> None:
    run = made.heat.step("heat/model").run[:8]
    kept = sorted(path.name for path in (made.settings.home / "notebooks").iterdir())
    assert kept == [f"train_heat-{run}.ipynb", "train_heat.ipynb"]


def test_the_model_carries_a_picture_of_the_test_split(made: Made, instance: dg.DagsterInstance) -> None:
    event = instance.get_latest_materialization_event(dg.AssetKey(["visits", "model"]))
    assert event is not None
    assert event.asset_materialization is not None
    picture = event.asset_materialization.metadata["test split"].value
    assert str(picture).startswith("![plot](data:image/png;base64,")


def test_runs_are_on_the_projects_own_instance_for_the_ui(instance: dg.DagsterInstance) -> None:
    runs = instance.get_runs()
    assert {run.status.value for run in runs} == {"SUCCESS"}
    assert len(runs) >= 8


def test_group_rows_are_in_the_online_store(made: Made) -> None:
    facts = made.visits.step("features/habits_v1").facts
    assert (facts["online rows read"], facts["online entities written"], facts["online entities"]) == (120, 120, 120)
    store = open_online(made.settings.online)
    try:
        assert store.count("habits_v1") == 120
    finally:
        store.close()


def test_days_appear_with_the_data_and_none_is_empty(made: Made) -> None:
    graph = definitions(PACKAGE, made.settings).resolve_asset_graph()
    days = graph.get(dg.AssetKey(["heat", "predictions"])).partitions_def
    assert days is not None
    keys = list(days.get_partition_keys())
    assert (keys[0], keys[-1], len(keys)) == ("2024-03-02", "2024-04-10", 40)


def test_a_range_of_days_is_one_run_and_each_day_is_recorded(made: Made, instance: dg.DagsterInstance) -> None:
    step = made.heat.step("heat/predictions")
    assert (step.partitions, step.facts["dagster/partition_row_count"]) == (4, 16)
    recorded = instance.get_materialized_partitions(dg.AssetKey(["heat", "predictions"]))
    assert {"2024-04-06", "2024-04-07", "2024-04-08", "2024-04-09"} <= recorded


def test_a_day_that_is_scored_again_is_replaced_in_every_sink(made: Made) -> None:
    import duckdb

    again = run_service("heat", made.settings, package=PACKAGE, select=["heat/predictions"], partitions="2024-04-07")
    assert again.step("heat/predictions").facts["dagster/partition_row_count"] == 4
    assert made.rows("predictions/heat").count().execute() == 16
    with duckdb.connect(str(made.settings.home / "sinks" / "heat.duckdb"), read_only=True) as con:
        assert con.execute("select count(*), count(distinct event_time) from predictions").fetchone() == (16, 16)


def test_scoring_the_newest_rows_gives_one_prediction_for_each_key(made: Made) -> None:
    table = made.rows("predictions/visits")
    facts = table.aggregate(rows=table.count(), people=table.customer_id.nunique()).to_pyarrow().to_pylist()
    assert facts == [{"rows": 120, "people": 120}]


def test_a_day_outside_the_partitions_is_refused_with_what_there_is(made: Made) -> None:
    with pytest.raises(UnknownNameError, match=r"no day '2031-01-01'. It has '2024-03-02 to 2024-04-10'"):
        run_service("heat", made.settings, package=PACKAGE, select=["heat/predictions"], partitions="2031-01-01")


def test_running_unchanged_sources_again_writes_nothing_and_keeps_the_data_version(
    made: Made, instance: dg.DagsterInstance
) -> None:
    keys = ["sources/customers", "features/habits_v1"]
    before = [version_of(instance, key) for key in keys]
    again = run_service("visits", made.settings, package=PACKAGE, select=keys)
    assert [again.step(key).facts["rows written"] for key in keys] == [0, 0]
    assert [version_of(instance, key) for key in keys] == before


def test_a_monitor_without_traffic_says_that_it_judged_nothing(made: Made) -> None:
    facts = made.visits.step("visits/monitoring/drift").facts
    assert facts["judged"] == 0
    assert facts["skipped because"] == (
        "nothing was judged: the window has 0 rows, 20 are wanted; the log has no prediction yet"
    )


def test_an_unknown_service_is_refused_with_the_close_name(made: Made) -> None:
    with pytest.raises(UnknownNameError, match=r"no prediction service 'visit'.*did you mean 'visits'\?"):
        run_service("visit", made.settings, package=PACKAGE)


def test_an_unknown_asset_is_refused_with_the_close_name(made: Made) -> None:
    with pytest.raises(UnknownNameError, match=r"no asset 'visits/modell'.*did you mean 'visits/model'\?"):
        run_service("visits", made.settings, package=PACKAGE, select=["visits/modell"])


def test_the_daily_schedule_scores_the_newest_day_of_the_clock(made: Made) -> None:
    defs = definitions(PACKAGE, made.settings)
    schedule = defs.resolve_schedule_def("heat_schedule")
    data = schedule.evaluate_tick(dg.build_schedule_context(repository_def=defs.get_repository_def()))
    assert [request.partition_key for request in data.run_requests or []] == ["2024-04-10"]


def test_the_scheduled_job_reads_new_data_and_scores_without_training(made: Made) -> None:
    job = definitions(PACKAGE, made.settings).resolve_job_def("heat_batch")
    keys = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert keys == {"sources/readings", "features/heat_now_v1", "features/heat_range_v1", "heat/predictions"}


def test_the_scheduled_job_runs_for_one_day(made: Made, instance: dg.DagsterInstance) -> None:
    job = definitions(PACKAGE, made.settings).resolve_job_def("heat_batch")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    done = job.execute_in_process(quiet, instance=instance, partition_key="2024-04-08")
    scored = [e.partition for e in done.get_asset_materialization_events() if "predictions" in e.asset_key.path]
    assert (done.success, scored) == (True, ["2024-04-08"])


def test_the_sensor_observes_a_log_once_for_each_growth(tmp_path: Path) -> None:
    defs = definitions(PACKAGE, settings_of(tmp_path / "home"))
    sensor = defs.resolve_sensor_def("observe_logs")

    def look(cursor: str | None) -> dg.SensorResult | dg.SkipReason:
        resources = {"stores": Stores(settings_of(tmp_path / "home"))}
        with dg.build_sensor_context(cursor=cursor, resources=resources, definitions=defs) as context:
            return sensor(context)  # type: ignore[return-value]

    with LogWriter(tmp_path / "home" / "log", "api-0") as log:
        log.append([LogRecord(kind="prediction", request_id="r", service="visits", event_time=5, output=0.5)])
        log.append([LogRecord(kind="outcome", request_id="nobody", service="visits", outcome=1.0)])
        first = look(None)
    assert isinstance(first, dg.SensorResult)
    observed = [(e.asset_key.to_user_string(), e.metadata["dagster/row_count"].value) for e in first.asset_events]
    assert observed == [("visits/log", 1), ("visits/outcomes", 1)]
    assert list(first.asset_events)[1].metadata["outcomes_without_prediction"].value == 1
    assert isinstance(look(first.cursor), dg.SkipReason)


def test_the_training_dataset_can_be_made_from_the_log_and_its_outcomes(
    made: Made, instance: dg.DagsterInstance
) -> None:
    at = 1_706_659_200_000_000  # the time of the snapshot
    with LogWriter(made.settings.home / "log", "api-0") as log:
        for number in range(40):
            vector: dict[str, float | str | None] = {
                "plan": "gold",
                "visits": float(number % 11),
                "often": float(number % 2),
            }
            facts = {"service": "visits", "request_id": f"r{number}", "event_time": at, "known_at": at}
            keys = {"customer_id": number}
            log.append([LogRecord(kind="prediction", vector=vector, keys=keys, request=keys, output=0.5, **facts)])
            log.append([LogRecord(kind="outcome", outcome=float(number % 2), **facts)])
    config = {
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {"visits__training_dataset": {"config": {"rows": "log"}}},
    }
    job = definitions(PACKAGE, made.settings).resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(["visits", "training_dataset"])
    (event,) = job.execute_in_process(
        config, instance=instance, asset_selection=[key]
    ).get_asset_materialization_events()
    facts_of = event.materialization.metadata
    assert (facts_of["made from"].value, facts_of["dagster/row_count"].value) == ("log", 40)


def version_of(instance: dg.DagsterInstance, key: str) -> str:
    event = instance.get_latest_materialization_event(dg.AssetKey(key.split("/")))
    assert event is not None
    assert event.asset_materialization is not None
    return (event.asset_materialization.tags or {})["dagster/data_version"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("december", "'december' names no days. Next: write latest, all, 30d"),
        ("2024-4-8", "'2024-4-8' names no days"),
        ("2024-04-08..", "'2024-04-08..' names no days"),
        ("2024-04-08..2024-04-01", "ends before it begins. Next: write 2024-04-01..2024-04-08"),
    ],
)
def test_days_that_cannot_be_are_refused_before_anything_is_made(tmp_path: Path, asked: str, told: str) -> None:
    home = tmp_path / "home"
    with pytest.raises(SettingsError, match=re.escape(told)):
        run_service("visits", settings_of(home), package=PACKAGE, partitions=asked)
    assert not home.exists()
