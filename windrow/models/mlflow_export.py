"""Export of training runs and of models to MLflow, for teams that keep their experiments or serve models there.

windrow's own tracking table and registry stay the source; exporting runs again adds what is new and changes nothing.
Needs ``pip install 'windrow[mlflow]'``; nothing else in windrow does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import ModelError, StoreError, listed
from windrow.models.bundle import MODEL_FILES, checked_file
from windrow.models.registry import Registry
from windrow.models.runs import SETS
from windrow.models.runtime import SklearnModel
from windrow.models.tracking import Run, runs_of
from windrow.settings import Settings
from windrow.telemetry import switch_off

if TYPE_CHECKING:
    from windrow.models.release import Release
    from windrow.stores.metadata import Metadata

RELEASE_TAG = "windrow.release"
_NEEDED = ("scikit-learn", "skops", "numpy", "pandas")


def export_runs(service: str, *, uri: str, settings: Settings | None = None) -> list[str]:
    """Write a service's training runs that are not there yet into the MLflow experiment of its name.

    Each becomes a finished run with the release's id as its name: parameters; every metric of the test split
    under its own name, of the others as ``baseline_<metric>``, ``validation_<metric>``, ``train_<metric>``;
    data, code and view fingerprints as tags; curves and trials as ``curves.json`` and ``trials.json``.

    Parameters
    ----------
    service
        Its name.
    uri
        MLflow's tracking store, such as ``sqlite:///mlflow.db`` or ``http://host:5000``.
    settings
        Where windrow keeps its runs (default: as the environment says).

    Returns
    -------
    list of str
        Releases whose runs were written, oldest first.

    Raises
    ------
    ModelError
        If mlflow is not installed.
    StoreError
        If the tracking store refuses.
    """
    with _metadata(settings) as metadata, _client(uri) as client:
        experiment = _experiment(client, service)
        there = {run.data.tags.get(RELEASE_TAG) for run in _every_run(client, experiment)}
        new = [run for run in runs_of(metadata, service) if run.release not in there]
        for run in new:
            _write(client, experiment, run)
    return [run.release for run in new]


def export_model(release: str, folder: str | Path, *, settings: Settings | None = None) -> Path:
    """Write a release's scikit-learn model as the folder of an MLflow model, without pickle.

    ``mlflow.sklearn.load_model`` gives the estimator; ``mlflow.pyfunc.load_model`` answers a DataFrame of the view's
    columns, float32 and text (``"(missing)"`` where there is none), in the contract's order: with the value, or with
    shape (n, classes) probabilities. On-demand features are columns like others: MLflow computes none.

    Parameters
    ----------
    release
        Its id.
    folder
        Is made; must not hold anything yet.
    settings
        Where the release is (default: as the environment says).

    Returns
    -------
    Path
        The folder. Its ``requirements.txt`` has the versions that the release was made with.

    Raises
    ------
    ModelError
        If mlflow is not installed, or the release has no scikit-learn model: it was made elsewhere.
    NotFoundError
        If there is no such release.
    StoreError
        If MLflow cannot write there.
    """
    made, payload = _sklearn_file(release, settings or Settings.read())
    estimator, folder = SklearnModel.load(payload, task=made.task, where=f"release {release!r}").estimator, Path(folder)
    with _mlflow(f"folder {folder.name!r}", advice="give a folder that is not there yet, and can be made"):
        import mlflow.sklearn
        from skops.io import get_untrusted_types

        mlflow.sklearn.save_model(
            estimator, str(folder), serialization_format="skops", skops_trusted_types=get_untrusted_types(data=payload),
            pyfunc_predict_fn="predict" if made.task == "regression" else "predict_proba",
            signature=_signature(made), pip_requirements=_requirements(made), metadata={RELEASE_TAG: release},
        )  # fmt: skip
    return folder


def _sklearn_file(id: str, settings: Settings) -> tuple[Release, bytes]:
    with _metadata(settings) as metadata:
        registry, file = Registry(metadata, settings.folder("releases")), MODEL_FILES["sklearn"]
        release = registry.release(id)
        if file not in release.files:
            raise ModelError(
                f"release {id!r} has no scikit-learn model",
                exists=f"It has {listed(release.files)}",
                next_step="give MLflow the file that it was onboarded from, in its own flavour",
            )
        return release, checked_file(registry.path(id), release, file)


@contextmanager
def _metadata(settings: Settings | None) -> Iterator[Metadata]:
    from windrow.stores.metadata import Metadata

    metadata = Metadata((settings or Settings.read()).metadata)
    try:
        yield metadata
    finally:
        metadata.close()


def _signature(release: Release) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    kinds = {"string": DataType.string}
    columns: list[Any] = [ColSpec(kinds.get(f.dtype, DataType.float), f.name) for f in release.contract.features]
    return ModelSignature(inputs=Schema(columns))


def _requirements(release: Release) -> list[str]:
    return [f"{n}=={v}" for n in _NEEDED if (v := release.environment.get(n))]


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    store = f"store {uri.partition('://')[0]!r}"
    with _mlflow(store, advice="give a store that can be written to, such as sqlite:///mlflow.db"):
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=uri)


@contextmanager
def _mlflow(place: str, *, advice: str) -> Iterator[None]:
    switch_off()  # before the import: it is then that MLflow decides whether to phone home
    try:
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ModelError(f"mlflow is not installed: {error}", next_step="pip install 'windrow[mlflow]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's words about its own dependencies
            yield
    except MlflowException as error:
        raise StoreError(
            f"the MLflow {place} refuses: {' '.join(str(error).split())[:200]}", next_step=advice
        ) from error


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _every_run(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write(client: Any, experiment: str, run: Run) -> None:
    from mlflow.entities import Metric, Param, RunTag

    begin = run.created_at // 1000  # MLflow counts milliseconds
    names = (
        "release",
        "service",
        "dataset",
        "dataset_hash",
        "seq",
        "code",
        "view_fingerprint",
        "backend",
        "estimator",
        "passed",
    )
    tags = [RunTag(f"windrow.{name}", str(getattr(run, name))) for name in names]
    figures = {prefix + name: value for prefix, of in SETS.items() for name, value in of(run).items()}
    metrics = [Metric(name, value, begin, 0) for name, value in {**figures, "seconds": run.seconds}.items()]
    parameters = [Param(_plain(name), value) for name, value in run.parameters.items()]
    id = client.create_run(experiment, start_time=begin - int(run.seconds * 1000), run_name=run.release).info.run_id
    client.log_batch(id, metrics=metrics, params=parameters[:100], tags=tags[1:])
    for rest in range(100, len(parameters), 100):  # what MLflow takes at once
        client.log_batch(id, params=parameters[rest : rest + 100])
    client.log_dict(id, run.curves, "curves.json")
    client.log_dict(id, msgspec.to_builtins(run.trials), "trials.json")
    # The tag that says "this run is there" comes last, so that a run that was cut short is written again.
    client.set_tag(id, RELEASE_TAG, run.release)
    client.set_terminated(id, "FINISHED", end_time=begin)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
