"""Export of training runs to MLflow, for teams that keep their experiments there.

windrow's own tracking table stays the source; exporting again adds what is new and changes nothing. Needs
``pip install 'windrow[mlflow]'``; nothing else in windrow does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import ModelError, StoreError
from windrow.models.runs import SETS
from windrow.models.tracking import Run, runs_of
from windrow.telemetry import switch_off

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata

RELEASE_TAG = "windrow.release"


def export_runs(service: str, metadata: Metadata, *, uri: str) -> list[str]:
    """Write a service's training runs that are not there yet into the MLflow experiment of its name.

    Each becomes a finished run with the release's id as its name: parameters; every metric of the test split
    under its own name, of the others as ``baseline_<metric>``, ``validation_<metric>``, ``train_<metric>``;
    data, code and view fingerprints as tags; curves and trials as ``curves.json`` and ``trials.json``.

    Parameters
    ----------
    service
        Its name.
    metadata
        Where windrow keeps its runs.
    uri
        MLflow's tracking store, such as ``sqlite:///mlflow.db`` or ``http://host:5000``.

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
    with _client(uri) as client:
        experiment = _experiment(client, service)
        there = {run.data.tags.get(RELEASE_TAG) for run in _every_run(client, experiment)}
        new = [run for run in runs_of(metadata, service) if run.release not in there]
        for run in new:
            _write(client, experiment, run)
    return [run.release for run in new]


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    switch_off()  # before the import: it is then that MLflow decides whether to phone home
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ModelError(f"mlflow is not installed: {error}", next_step="pip install 'windrow[mlflow]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's words about its own dependencies
            yield MlflowClient(tracking_uri=uri)
    except MlflowException as error:
        raise StoreError(
            f"the MLflow store {uri.partition('://')[0]!r} refuses: {' '.join(str(error).split())[:200]}",
            next_step="give a store that can be written to, such as sqlite:///mlflow.db",
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
