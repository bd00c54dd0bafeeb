"""What was tracked here can be read back from MLflow, figure by figure, once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.models.worlds import World
from tests.needs import need_module
from windrow.errors import StoreError
from windrow.models.mlflow_export import export_runs
from windrow.models.search import Trial
from windrow.models.tracking import Run, record_run
from windrow.settings import Settings

need_module("mlflow")

TRIAL = Trial(number=0, parameters={"alpha": "1.0"}, scores=[0.5, None], mean=None, rank=1, seconds=0.1)
RUN = Run(
    release="load-1-abc", service="load", created_at=1_700_000_000_000_000, dataset="d1", dataset_hash="h1", seq=42,
    code="c0de", view_fingerprint="v1", backend="onnx", estimator="Ridge", parameters={f"p{n}": str(n) for n in range(130)},
    metrics={"mae": 1.5}, baseline={"mae": 3.0}, train={"mae": 1.0}, validation={"mae": 2.0}, passed=True,
    curves={"residuals": {"predicted": [1.0], "residual": [0.5]}}, trials=[TRIAL], seconds=2.5,
)  # fmt: skip


@pytest.mark.slow
def test_a_run_is_read_back_from_mlflow_as_it_was_and_is_written_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow keeps the artefacts of a SQLite store beside where it runs
    world, uri = World(tmp_path), f"sqlite:///{tmp_path / 'mlflow.db'}"
    where = Settings.read({"WINDROW_HOME": str(tmp_path)})
    record_run(world.metadata, RUN)
    assert export_runs("load", uri=uri, settings=where) == ["load-1-abc"]
    assert export_runs("load", uri=uri, settings=where) == []
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("load").experiment_id])
    assert found.data.metrics == {
        "mae": 1.5,
        "baseline_mae": 3.0,
        "train_mae": 1.0,
        "validation_mae": 2.0,
        "seconds": 2.5,
    }
    assert (len(found.data.params), found.data.params["p129"]) == (130, "129")
    assert (found.data.tags["windrow.seq"], found.data.tags["windrow.code"], found.data.tags["windrow.release"]) == ("42", "c0de", "load-1-abc")  # fmt: skip
    assert (found.info.run_name, found.info.status, found.info.end_time) == (
        "load-1-abc",
        "FINISHED",
        1_700_000_000_000,
    )
    files = {name: json.loads(Path(client.download_artifacts(found.info.run_id, name)).read_text()) for name in ("curves.json", "trials.json")}  # fmt: skip
    assert files["curves.json"] == RUN.curves
    assert files["trials.json"][0]["scores"] == [0.5, None]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.slow
def test_a_store_that_mlflow_refuses_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    record_run(world.metadata, RUN)
    with pytest.raises(
        StoreError, match=r"the MLflow store 'file' refuses: .*Next: give a store that can be written to"
    ):
        export_runs("load", uri=f"file://{tmp_path / 'runs'}", settings=Settings.read({"WINDROW_HOME": str(tmp_path)}))
