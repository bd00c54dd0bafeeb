"""Models go to MLflow's own folders and come from them, as MLflow itself writes and reads them, with equal answers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from tests.models.elsewhere import dataset_of, service, world_of
from tests.models.worlds import World, fraud, fraud_world
from tests.needs import need_module
from windrow.errors import ModelError, StoreError
from windrow.models.dataset import Split, TrainingDataset, build_dataset, load_split
from windrow.models.mlflow_export import export_model
from windrow.models.onboard import onboard
from windrow.models.release import Release
from windrow.models.training import train
from windrow.settings import Settings
from windrow.telemetry import switch_off

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import
need_module("mlflow")
PLAIN: dict[str, Any] = {"pip_requirements": ["mlflow"]}  # else MLflow starts a process to find out


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in switch_off({}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's words about its own dependencies
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_of(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="module")
def dataset(world: World) -> TrainingDataset:
    return dataset_of(world)


@pytest.fixture(scope="module")
def learn(dataset: TrainingDataset) -> Split:
    return load_split(dataset, service().view.contract, "train")


def onboarded(folder: Path, dataset: TrainingDataset, world: World, **options: Any) -> Release:
    return onboard(folder, service(), dataset, registry=world.registry, metadata=world.metadata, **options)


def signature(learn: Split) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(learn.X, learn.y)


def boosted(learn: Split) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(learn.X, learn.y)


def sklearn_model(learn: Split, folder: Path, serialization: str) -> Callable[[Any], Any]:
    import mlflow.sklearn
    from skops.io import dumps, get_untrusted_types

    model = boosted(learn)
    types = get_untrusted_types(data=dumps(model)) if serialization == "skops" else None
    mlflow.sklearn.save_model(
        model, str(folder), serialization_format=serialization, skops_trusted_types=types, signature=signature(learn), **PLAIN
    )  # fmt: skip
    return lambda rows: mlflow.sklearn.load_model(str(folder)).predict_proba(rows)[:, 1]


def onnx_model(learn: Split, folder: Path, _: str) -> Callable[[Any], Any]:
    import mlflow.onnx
    from skl2onnx import to_onnx

    made = to_onnx(boosted(learn), learn.X.to_numpy()[:1], options={"zipmap": False})
    mlflow.onnx.save_model(made, str(folder), **PLAIN)
    loaded = mlflow.pyfunc.load_model(str(folder))
    return lambda rows: loaded.predict(rows.to_numpy())["probabilities"][:, 1]


def xgboost_model(learn: Split, folder: Path, kind: str) -> Callable[[Any], Any]:
    import mlflow.xgboost
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(learn.X, learn.y)
    made = model if kind == "classifier" else model.get_booster()
    mlflow.xgboost.save_model(made, str(folder), signature=signature(learn), **PLAIN)
    loaded = mlflow.xgboost.load_model(str(folder))
    if kind == "classifier":
        return lambda rows: loaded.predict_proba(rows)[:, 1]
    return lambda rows: loaded.predict(xgboost.DMatrix(rows))


def lightgbm_model(learn: Split, folder: Path, kind: str) -> Callable[[Any], Any]:
    import lightgbm
    import mlflow.lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1, min_child_samples=2)
    stop = {"eval_set": [(learn.X, 1 - learn.y)], "callbacks": [lightgbm.early_stopping(2, verbose=False)]}
    model.fit(learn.X, learn.y, **(stop if kind == "stopped early" else {}))
    made = model.booster_ if kind == "booster" else model
    mlflow.lightgbm.save_model(made, str(folder), signature=signature(learn), **PLAIN)
    loaded = mlflow.lightgbm.load_model(str(folder))
    return loaded.predict if kind == "booster" else lambda rows: loaded.predict_proba(rows)[:, 1]


WRITTEN = [
    (sklearn_model, "skops", "MLflow (sklearn), skops"),
    (sklearn_model, "cloudpickle", "MLflow (sklearn), joblib, converted to skops in another process"),
    (onnx_model, "", "MLflow (onnx), ONNX"),
    (xgboost_model, "booster", "MLflow (xgboost), XGBoost"),
    (xgboost_model, "classifier", "MLflow (xgboost), XGBoost"),
    (lightgbm_model, "booster", "MLflow (lightgbm), LightGBM"),
    (lightgbm_model, "classifier", "MLflow (lightgbm), LightGBM"),
    (lightgbm_model, "stopped early", "MLflow (lightgbm), LightGBM"),
]


@pytest.mark.parametrize(("write", "kind", "source"), WRITTEN, ids=lambda value: getattr(value, "__name__", value))
def test_what_mlflow_wrote_is_onboarded_and_answers_as_mlflow_does(
    write, kind, source, learn, dataset, world, tmp_path
):
    answer = write(learn, tmp_path / "model", kind)
    release = onboarded(tmp_path / "model", dataset, world, allow_code_execution=kind == "cloudpickle")
    assert release.evidence["onboarded"] == source
    found = world.registry.load(release.id).predict(learn.frame)
    np.testing.assert_allclose(found, answer(learn.X), rtol=0, atol=1e-6)


def test_a_model_that_was_logged_to_a_tracking_store_is_onboarded_from_where_mlflow_put_it(
    learn, dataset, world, tmp_path
):
    import mlflow.sklearn

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    model = LogisticRegression().fit(learn.X.fillna(0), learn.y)
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(model, name="model", **PLAIN)
    (folder,) = {path.parent for path in tmp_path.rglob("MLmodel")}
    assert logged.model_id in str(folder)
    assert onboarded(folder, dataset, world).evidence["estimator"] == "LogisticRegression"


def test_a_signature_in_another_order_than_the_views_is_refused_where_columns_go_by_their_places(
    learn, dataset, world, tmp_path
):
    import mlflow.onnx
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from skl2onnx import to_onnx

    turned = learn.X[learn.X.columns[::-1]]
    model = LogisticRegression().fit(turned.fillna(0).to_numpy(), learn.y)
    facts = {"signature": infer_signature(turned, learn.y), **PLAIN}
    mlflow.sklearn.save_model(model, str(tmp_path / "sklearn"), **facts)
    mlflow.onnx.save_model(to_onnx(model, turned.to_numpy()[:1]), str(tmp_path / "onnx"), **facts)
    first, second = learn.X.columns
    told = f"takes its columns by their places, {second}, {first}, and the view gives {first}, {second}"
    for flavour in ("sklearn", "onnx"):
        with pytest.raises(ModelError, match=told):
            onboarded(tmp_path / flavour, dataset, world)


def exported_model(release: Release, world: World, folder: Path) -> Path:
    return export_model(release.id, folder, settings=Settings.read({"WINDROW_HOME": str(world.home)}))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Release, Split]:
    """A release of ours with text and missing values."""
    made = fraud_world(tmp_path_factory.mktemp("ours"))
    made.groups(fraud())
    dataset = build_dataset(fraud(), made.lake, made.metadata, now=60 * 86_400_000_000, home=made.home)
    release = train(fraud(), dataset, registry=made.registry, metadata=made.metadata)
    return made, release, load_split(dataset, fraud().view.contract, "test")


def test_an_exported_release_answers_in_mlflow_as_it_does_here(exported, tmp_path):
    import mlflow.pyfunc
    import mlflow.sklearn

    world, release, test = exported
    folder = exported_model(release, world, tmp_path / "model")
    expected = world.registry.load(release.id).predict(test.frame)
    answered = mlflow.pyfunc.load_model(str(folder)).predict(test.X)
    np.testing.assert_allclose(answered[:, 1], expected, rtol=0, atol=1e-5)
    estimator = mlflow.sklearn.load_model(str(folder))
    np.testing.assert_allclose(estimator.predict_proba(test.X)[:, 1], expected, rtol=0, atol=1e-5)


def test_an_exported_model_names_its_release_its_columns_and_its_versions_and_holds_no_pickle(exported, tmp_path):
    from mlflow.models import Model

    world, release, _ = exported
    folder = exported_model(release, world, tmp_path / "model")
    described = Model.load(str(folder))
    assert described.metadata == {"windrow.release": release.id}
    assert [(c.name, c.type.name) for c in described.signature.inputs] == [
        ("limit", "float"), ("plan", "string"), ("amount", "float"), ("share", "float"),
    ]  # fmt: skip
    assert f"scikit-learn=={release.environment['scikit-learn']}" in (folder / "requirements.txt").read_text()
    assert sorted(path.name for path in folder.iterdir()) == [
        "MLmodel", "conda.yaml", "model.skops", "python_env.yaml", "requirements.txt",
    ]  # fmt: skip
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_an_exported_model_can_be_onboarded_again(exported, tmp_path):
    world, release, test = exported
    folder = exported_model(release, world, tmp_path / "model")
    dataset = build_dataset(fraud(), world.lake, world.metadata, now=60 * 86_400_000_000, home=world.home)
    again = onboard(folder, fraud(), dataset, registry=world.registry, metadata=world.metadata)
    found, expected = (world.registry.load(r.id).predict(test.frame) for r in (again, release))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_folder_that_holds_something_and_a_release_without_a_scikit_learn_model_are_refused(
    exported, learn, dataset, world, tmp_path
):
    ours, release, _ = exported
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StoreError, match=r"the MLflow folder 'full' refuses: .*give a folder that is not there yet"):
        exported_model(release, ours, tmp_path / "full")
    xgboost_model(learn, tmp_path / "trees", "booster")
    made = onboarded(tmp_path / "trees", dataset, world)
    with pytest.raises(ModelError, match=r"has no scikit-learn model. It has .*'model.treelite'"):
        exported_model(made, world, tmp_path / "out")
