"""Promises of refusal: what fails a check is not materialised, and the failure says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.orchestrate.conftest import PACKAGE, WORLD, copied_world, settings_of
from windrow.errors import DataError, ModelError, NotebookError, StoreError, ValidationError
from windrow.orchestrate import definitions
from windrow.orchestrate.resources import Stores, dagster_home
from windrow.orchestrate.run import run_service
from windrow.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GROUP = dg.AssetKey(["features", "habits_v1"])


def with_customers(tmp_path: Path, *lines: str) -> Settings:
    """Settings of the tiny project with a file of customers."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "customers.csv").write_text("\n".join(["id,plan,visits", *lines]))
    return settings_of(tmp_path / "home", data=folder)


def test_rows_that_fail_validation_block_before_anything_is_committed(tmp_path: Path) -> None:
    settings = with_customers(tmp_path, "1,gold,5", "2,plain,-1")
    with pytest.raises(ValidationError, match=r"1 of 2 rows fail its checks, nothing was written"):
        run_service("visits", settings, package=PACKAGE, select=["sources/customers", "features/habits_v1"])
    assert not Stores(settings).lake.table("features/habits_v1").exists
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        assert instance.get_latest_materialization_event(GROUP) is None
        (record,) = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(GROUP, "validation"), 5
        )
        assert record.status.value == "FAILED"


def test_the_failure_in_the_ui_says_what_is_wrong_and_the_next_step(tmp_path: Path) -> None:
    settings = with_customers(tmp_path, "1,gold,many")
    job = definitions(PACKAGE, settings).resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance, pytest.raises(dg.Failure) as caught:
        job.execute_in_process(quiet, instance=instance, asset_selection=[dg.AssetKey(["sources", "customers"])])
    assert isinstance(caught.value.__cause__, DataError)
    assert caught.value.description == str(caught.value.__cause__)
    assert {"error", "what", "next step"} <= set(caught.value.metadata)


def test_a_model_that_misses_its_gate_is_kept_but_neither_materialised_nor_deployed(tmp_path: Path) -> None:
    edit = {"tiny_gate/visits/service.py": ('Gate("auc", at_least=0.6)', 'Gate("log_loss", at_most=1e-9)')}
    settings = settings_of(tmp_path / "home", copied_world(tmp_path / "world", "tiny_gate", edit))
    keys = ["sources/*", "features/*", "visits/training_dataset", "visits/model"]
    with pytest.raises(
        ModelError,
        match=r"does not clear its gates: log_loss is .* on 30 rows .* the bar is at most 1e-09. Live is none",
    ):
        run_service("visits", settings, package="tiny_gate", select=keys)
    stores = Stores(settings)
    assert (len(stores.metadata.releases("visits")), stores.metadata.live("visits")) == (1, None)
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        assert instance.get_latest_materialization_event(dg.AssetKey(["visits", "model"])) is None


def test_a_waived_gate_warns_and_its_model_is_materialised_and_deployed(tmp_path: Path) -> None:
    waived = 'Fairness("plan", at_most=1e-6, min_rows=1, waiver=Waiver("the board", until="2100-01-01"))'
    imports = ("from windrow import Batch,", "from windrow import Waiver, Fairness, Batch,")
    edit = {"tiny_waived/visits/service.py": ('Gate("auc", at_least=0.6)', f'Gate("auc", at_least=0.6), {waived}')}
    world = copied_world(tmp_path / "world", "tiny_waived", edit)
    file = world / "tiny_waived/visits/service.py"
    file.write_text(file.read_text().replace(*imports))
    settings = settings_of(tmp_path / "home", world)
    keys = ["sources/*", "features/*", "visits/training_dataset", "visits/model"]
    done = run_service("visits", settings, package="tiny_waived", select=keys)
    name = "gate_fairness_plan_demographic_parity"
    assert (done.checks[f"visits/model {name}"], done.checks["visits/model golden_pairs"]) == (False, True)
    stores = Stores(settings)
    deployed = stores.metadata.deployments("visits")[0]
    assert deployed.reason.endswith("WAIVED until 2100-01-01T00:00:00+00:00 (the board)")
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        key = dg.AssetCheckKey(dg.AssetKey(["visits", "model"]), name)
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, 5)
        found = record.event.dagster_event.event_specific_data  # type: ignore[union-attr]
        assert found.severity == dg.AssetCheckSeverity.WARN
        assert found.metadata["waived because"].value == "the board"
        assert instance.get_latest_materialization_event(dg.AssetKey(["visits", "model"])) is not None


def test_a_notebook_that_fails_keeps_its_executed_copy_and_names_the_cell(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    run_service("visits", settings, package=PACKAGE, select=["sources/customers", "features/habits_v1"])
    config = {
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {"notebooks__look_at_habits": {"config": {"least": 3}}},
    }
    job = definitions(PACKAGE, settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance, pytest.raises(dg.Failure) as caught:
        job.execute_in_process(
            config, instance=instance, asset_selection=[dg.AssetKey(["notebooks", "look_at_habits"])]
        )
    error, copy = caught.value.__cause__, Path(str(caught.value.metadata["notebook"].value))
    assert isinstance(error, NotebookError)
    assert error.cell == 2
    assert "AssertionError: too few visits" in error.what
    assert "too few visits" in copy.read_text()
    assert (copy.parent / "look_at_habits.ipynb").read_text() == copy.read_text()


@pytest.mark.slow
def test_running_a_notebook_leaves_its_file_as_it_was(tmp_path: Path) -> None:
    path = WORLD / "notebooks" / "look_at_habits.ipynb"
    before, settings = path.read_bytes(), settings_of(tmp_path / "home")
    run_service("visits", settings, package=PACKAGE, select=["sources/customers", "features/habits_v1"])
    job = definitions(PACKAGE, settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        done = job.execute_in_process(
            quiet, instance=instance, asset_selection=[dg.AssetKey(["notebooks", "look_at_habits"])]
        )
    (event,) = done.get_asset_materialization_events()
    facts = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (facts["rows"], facts["owner"]) == (120, "team:front desk")
    assert path.read_bytes() == before


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.orchestrate.conftest import settings_of
from windrow.orchestrate.run import run_service

def die(key, state):
    if (key, state) == ("features/habits_v1", "started"):
        os.kill(os.getpid(), signal.SIGKILL)

run_service("visits", settings_of(Path(sys.argv[1])), package="tiny", select=["sources/*", "features/*"], on_step=die)
"""


def test_a_run_whose_process_was_killed_is_closed_by_the_next_one_which_works(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(settings.home)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        assert [run.status.value for run in instance.get_runs()] == ["STARTED"]
    again = run_service("visits", settings, package=PACKAGE, select=["sources/customers", "features/habits_v1"])
    assert again.step("features/habits_v1").facts["dagster/row_count"] == 120
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        assert [run.status.value for run in instance.get_runs()] == ["SUCCESS", "FAILURE"]


def test_a_run_whose_records_cannot_be_written_says_where_they_are(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    records = dagster_home(settings) / "history"
    records.mkdir(parents=True)
    (records / "runs.db").write_bytes(b"no database" * 1000)
    with pytest.raises(
        StoreError, match=r"Dagster's records in .*dagster cannot be used: .*not a database. Next: free"
    ):
        run_service("visits", settings, package=PACKAGE, select=["sources/customers"])
