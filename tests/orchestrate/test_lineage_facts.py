"""Column lineage as Dagster's metadata: of every group, training dataset and predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from tests.orchestrate.conftest import PACKAGE, copied_world, settings_of
from windrow.models.graph import load_graph
from windrow.orchestrate import definitions
from windrow.orchestrate.run import run_service
from windrow.settings import Settings
from windrow.stores.metadata import Metadata

Graph = Callable[[str], dg.AssetSpec]


def deps(spec: dg.AssetSpec) -> dict[str, set[str]]:
    found = spec.metadata["dagster/column_lineage"].deps_by_column
    return {name: {f"{d.asset_key.to_user_string()}.{d.column_name}" for d in read} for name, read in found.items()}


def test_a_training_dataset_shows_which_features_and_label_its_columns_are(graph: Graph) -> None:
    found = deps(graph("visits/training_dataset"))
    assert found["often"] == {"features/habits_v1.often"}
    assert found["label"] == {"sources/returned.ts"}


def test_predictions_show_everything_that_goes_into_them(graph: Graph) -> None:
    found = deps(graph("visits/predictions"))
    assert found["prediction"] >= {"features/habits_v1.often", "features/habits_v1.plan"}
    assert found["customer_id"] == {"sources/customers.customer_id"}


def test_a_group_shows_what_decides_its_rows(graph: Graph) -> None:
    told = graph("features/habits_v1").metadata["rows are decided by"].value
    assert told == "- keys: `sources/customers.customer_id`"
    assert "- times: " in graph("features/heat_now_v1").metadata["rows are decided by"].value


def test_every_column_that_a_lineage_names_is_in_the_schema_of_its_asset(tiny: Settings) -> None:
    specs = {spec.key: spec for spec in definitions(PACKAGE, tiny).resolve_all_asset_specs()}
    missing = [
        f"{spec.key.to_user_string()}.{name} from {dep.asset_key.to_user_string()}.{dep.column_name}"
        for spec in specs.values()
        for name, read in getattr(spec.metadata.get("dagster/column_lineage"), "deps_by_column", {}).items()
        for dep in read
        if dep.column_name not in {c.name for c in specs[dep.asset_key].metadata["dagster/column_schema"].columns}
    ]
    assert missing == []


def test_loading_definitions_writes_the_lineage_once_anything_was_recorded(tiny: Settings) -> None:
    Metadata(tiny.metadata).close()
    definitions(PACKAGE, tiny)
    shown = load_graph(tiny.home)
    assert shown is not None
    assert {"visits/input.often", "heat/prediction"} <= {node.id for node in shown.nodes}


def test_a_group_that_pandas_makes_shows_what_was_found_by_probing_it(tmp_path: Path) -> None:
    old = "@feature_group(customer, checks"
    new = '@feature_group(customer, frame="pandas", features={"plan": "string", "visits": "int64", "often": "bool"}, checks'
    body = 'return customers.select("customer_id", "plan", "visits", often=customers.visits > 5)'
    frame = "return customers.assign(often=customers.visits > 5).drop(columns=[])"
    project = copied_world(tmp_path / "project", "opaque", {"opaque/visits/features.py": (old, new)})
    file = project / "opaque/visits/features.py"
    file.write_text(file.read_text().replace(body, frame))
    settings = settings_of(tmp_path / "home", project)
    keys = ["sources/customers", "features/habits_v1"]
    done = run_service("visits", settings, select=keys, package="opaque")
    assert done.step("features/habits_v1").facts["lineage"] == "found by changing one input column at a time"
    shown = {spec.key.to_user_string(): spec for spec in definitions("opaque", settings).resolve_all_asset_specs()}
    assert "features/habits_v1" in shown
    made = load_graph(settings.home)
    assert made is not None
    assert {(e.source, e.kind) for e in made.edges if e.target == "features/habits_v1.often"} == {
        ("sources/customers.visits", "probed"),
        ("features/habits_v1.*", "rows"),
    }
