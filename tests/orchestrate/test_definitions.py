"""Promises of the definitions: complete lineage, checks and schedules, light to load, loud when wrong."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from tests.models.worlds import fraud
from tests.orchestrate.conftest import PACKAGE, copied_world, settings_of
from windrow import Batch
from windrow.errors import DeclarationError, UnknownNameError
from windrow.orchestrate import definitions
from windrow.orchestrate.sensors import batch_job, batch_schedule
from windrow.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("pandas", "sklearn", "pandera", "evidently", "papermill", "bentoml", "shap")

Graph = Callable[[str], dg.AssetSpec]


def above(spec: dg.AssetSpec) -> set[str]:
    return {dep.asset_key.to_user_string() for dep in spec.deps}


def test_every_declaration_is_an_asset(tiny: Settings) -> None:
    keys = {spec.key.to_user_string() for spec in definitions(PACKAGE, tiny).resolve_all_asset_specs()}
    assert keys == {
        "sources/customers", "sources/returned", "sources/readings",
        "features/habits_v1", "features/heat_now_v1", "features/heat_range_v1",
        "visits/training_dataset", "visits/model", "visits/predictions", "visits/monitoring/drift",
        "heat/training_dataset", "heat/model", "heat/predictions", "heat/monitoring/drift",
        "visits/log", "visits/outcomes", "heat/log", "heat/outcomes", "notebooks/look_at_habits",
    }  # fmt: skip


def test_lineage_is_unbroken_from_source_to_drift_report(graph: Graph) -> None:
    chain = ("heat/log", "heat/predictions", "heat/model", "heat/training_dataset", "features/heat_range_v1",
             "features/heat_now_v1", "sources/readings")  # fmt: skip
    below = "heat/monitoring/drift"
    for key in chain:
        assert key in above(graph(below)), f"{below} does not depend on {key}"
        below = key


def test_drift_compares_the_log_with_the_training_dataset(graph: Graph) -> None:
    assert above(graph("visits/monitoring/drift")) == {"visits/log", "visits/training_dataset"}


def test_a_notebook_named_by_a_service_is_its_model_and_nothing_else(graph: Graph) -> None:
    assert "jupyter" in graph("heat/model").kinds
    with pytest.raises(KeyError, match="train_heat"):
        graph("notebooks/train_heat")


def test_a_notebooks_inputs_are_what_it_loads(graph: Graph) -> None:
    assert above(graph("notebooks/look_at_habits")) == {"features/habits_v1"}


def test_a_notebooks_description_is_its_first_heading(graph: Graph) -> None:
    assert graph("notebooks/look_at_habits").description == "**Look at habits**\n\nWho visits how often."


def test_predictions_by_day_say_why_the_graph_may_show_them_in_yellow(graph: Graph) -> None:
    told = graph("heat/predictions").description
    assert told is not None
    assert "in yellow while it has days without predictions" in told
    assert "`windrow run heat --select heat/predictions --partitions all`" in told
    assert "in yellow" not in (graph("visits/predictions").description or "")


def test_assets_are_grouped_by_service(graph: Graph) -> None:
    groups = {key: graph(key).group_name for key in ("sources/customers", "features/heat_now_v1", "visits/model")}
    assert groups == {"sources/customers": "visits", "features/heat_now_v1": "heat", "visits/model": "visits"}


def test_owners_and_kinds_come_from_the_declaration(graph: Graph) -> None:
    assert list(graph("features/habits_v1").owners) == ["someone@example.org"]
    assert list(graph("visits/model").owners) == ["team:front_desk"]
    assert graph("features/habits_v1").kinds == {"delta", "duckdb", "lmdb"}


def test_the_code_version_is_the_fingerprint_of_the_declaration(graph: Graph) -> None:
    from tiny.heat.features import heat_now

    assert graph("features/heat_now_v1").code_version == heat_now.fingerprint


def test_a_group_shows_its_columns_before_it_was_ever_materialised(graph: Graph) -> None:
    schema = graph("features/habits_v1").metadata["dagster/column_schema"]
    assert [(c.name, c.type) for c in schema.columns] == [
        ("customer_id", "int64"), ("plan", "string"), ("visits", "int64"), ("often", "bool"),
        ("event_time", "timestamp"), ("known_at", "timestamp"), ("_seq", "int64"),
    ]  # fmt: skip


def test_a_group_shows_which_column_comes_from_which(graph: Graph) -> None:
    lineage = graph("features/habits_v1").metadata["dagster/column_lineage"]
    deps = {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage.deps_by_column["often"]}
    assert deps == {("sources/customers", "visits")}


def test_checks_follow_the_declarations(tiny: Settings) -> None:
    found = definitions(PACKAGE, tiny).resolve_asset_graph().asset_check_keys
    assert {f"{c.asset_key.to_user_string()} {c.name}" for c in found} == {
        "features/habits_v1 validation", "features/heat_now_v1 validation", "features/heat_range_v1 validation",
        "features/heat_now_v1 freshness", "heat/predictions freshness", "visits/model gate_auc",
        "visits/model parity", "visits/model golden_pairs", "heat/model parity", "heat/model golden_pairs",
        "heat/model gate_mae", "visits/monitoring/drift drift", "heat/monitoring/drift drift",
    }  # fmt: skip


def test_each_batch_service_and_the_maintenance_have_one_daily_schedule_that_waits_to_be_started(
    tiny: Settings,
) -> None:
    schedules = list(definitions(PACKAGE, tiny).schedules or [])
    assert [
        (s.name, s.cron_schedule, s.default_status.value) for s in schedules if isinstance(s, dg.ScheduleDefinition)
    ] == [
        ("heat_schedule", "@daily", "STOPPED"),
        ("visits_schedule", "@daily", "STOPPED"),
        ("maintenance_schedule", "30 3 * * *", "STOPPED"),
    ]


def test_predictions_by_day_are_backfilled_in_one_run(tiny: Settings) -> None:
    node = definitions(PACKAGE, tiny).resolve_asset_graph().get(dg.AssetKey(["heat", "predictions"]))
    assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_definitions_load_on_an_empty_machine_and_write_nothing(tiny: Settings) -> None:
    definitions(PACKAGE, tiny)
    assert not tiny.home.exists()


def test_loading_the_projects_definitions_imports_nothing_heavy() -> None:
    code = f"import sys, assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_dagster_validates_the_definitions_from_the_root(tmp_path: Path) -> None:
    program = Path(sysconfig.get_path("scripts"), "dagster")
    command = [str(program), "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_trainer_that_asks_for_a_column_that_nothing_makes_fails_at_load_with_the_close_match(tmp_path: Path) -> None:
    edit = {"notebooks/train_heat.ipynb": ("alpha = 1.0", "x = columns('degres')")}
    world = copied_world(tmp_path / "world", "tiny_column", edit)
    with pytest.raises(UnknownNameError, match=r"no feature 'degres'.*did you mean 'degrees'\?"):
        definitions("tiny_column", settings_of(tmp_path / "home", world))


def test_a_notebook_that_loads_what_nothing_makes_fails_at_load_with_the_close_match(tmp_path: Path) -> None:
    edit = {"notebooks/look_at_habits.ipynb": ("habits_v1", "habit_v1")}
    world = copied_world(tmp_path / "world", "tiny_input", edit)
    with pytest.raises(UnknownNameError, match=r"no input 'features/habit_v1'.*did you mean 'features/habits_v1'\?"):
        definitions("tiny_input", settings_of(tmp_path / "home", world))


def test_a_missing_training_notebook_fails_at_load(tmp_path: Path) -> None:
    world = copied_world(tmp_path / "world", "tiny_missing")
    (world / "notebooks" / "train_heat.ipynb").unlink()
    with pytest.raises(DeclarationError, match=r"service 'heat': its trainer 'train_heat.ipynb' does not exist"):
        definitions("tiny_missing", settings_of(tmp_path / "home", world))


def test_a_schedule_that_no_clock_shows_is_refused_with_its_service() -> None:
    service = fraud(batch=Batch("99 99 99 99 99"))
    with pytest.raises(
        DeclarationError, match="schedule '99 99 99 99 99' of service 'fraud' is no cron line. Next: write"
    ):
        batch_schedule(service, batch_job(service, ["sources/payments"]), partitions=None)
