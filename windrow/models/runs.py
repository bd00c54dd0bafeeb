"""Training runs and the trials of their searches as Ibis tables, to compare, filter and plot.

from windrow import runs, trials

runs("churn").order_by(ibis.desc("auc"))     one row per training run, whatever became of it
trials("churn")                              one row per candidate of its searches
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from windrow.clock import from_micros
from windrow.errors import NotFoundError
from windrow.models.service import PredictionService
from windrow.models.tracking import Run, runs_of
from windrow.settings import Settings

if TYPE_CHECKING:
    import ibis.expr.types as ir

SETS: dict[str, Callable[[Run], dict[str, float]]] = {
    "": lambda run: run.metrics,
    "baseline_": lambda run: run.baseline,
    "validation_": lambda run: run.validation,
    "validation_baseline_": lambda run: run.validation_baseline,
    "train_": lambda run: run.train,
}


def runs(service: PredictionService | str, *, settings: Settings | None = None) -> ir.Table:
    """Return one row per training run of a service, oldest first.

    Parameters
    ----------
    service
        Or its name.
    settings
        Where the metadata are (default: as the environment says).

    Returns
    -------
    ibis.Table
        ``release``, ``created_at``, ``estimator``, ``backend``, ``passed``, ``seconds``, ``dataset``,
        ``dataset_hash``, ``seq``, ``code``, ``view_fingerprint``, ``trials`` (how many), ``parameters`` (a map),
        then the metrics: of the test split under their own names, ``baseline_<metric>``,
        ``validation_<metric>``, ``validation_baseline_<metric>`` and ``train_<metric>``.

    Raises
    ------
    NotFoundError
        If the service was never trained.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> runs("churn", settings=Settings.read({"WINDROW_HOME": mkdtemp()}))
    Traceback (most recent call last):
    windrow.errors.NotFoundError: service 'churn' was never trained here. Next: run windrow run churn.
    """
    found = _found(service, settings)
    columns: dict[str, Any] = {name: [getattr(run, name) for run in found] for name in _FACTS}
    columns["created_at"] = [from_micros(run.created_at) for run in found]
    columns["trials"] = [len(run.trials) for run in found]
    columns["parameters"] = [list(run.parameters.items()) for run in found]
    for prefix, figures in SETS.items():
        for metric in dict.fromkeys(name for run in found for name in figures(run)):
            columns[prefix + metric] = [figures(run).get(metric) for run in found]
    return _table(columns)


def trials(service: PredictionService | str, *, settings: Settings | None = None) -> ir.Table:
    """Return one row per candidate of the searches in a service's training runs.

    Returns
    -------
    ibis.Table
        ``release``, ``created_at``, ``number``, ``parameters`` (a map), ``mean`` and ``scores`` (of each fold;
        higher is better), ``rank``, ``seconds``, ``resources`` (of a halving search).

    Raises
    ------
    NotFoundError
        If no run of the service searched.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> trials("churn", settings=Settings.read({"WINDROW_HOME": mkdtemp()}))
    Traceback (most recent call last):
    windrow.errors.NotFoundError: service 'churn' was never trained here. Next: run windrow run churn.
    """
    tried = [(run, trial) for run in _found(service, settings) for trial in run.trials]
    if not tried:
        raise NotFoundError(
            f"no run of service {_name(service)!r} searched for hyper-parameters",
            next_step="return GridSearchCV(...) or another search of scikit-learn from its trainer",
        )
    names = ("number", "mean", "scores", "rank", "seconds", "resources")
    columns: dict[str, Any] = {"release": [run.release for run, _ in tried]}
    columns["created_at"] = [from_micros(run.created_at) for run, _ in tried]
    columns["parameters"] = [list(trial.parameters.items()) for _, trial in tried]
    return _table(columns | {name: [getattr(trial, name) for _, trial in tried] for name in names})


_FACTS = ("release", "created_at", "estimator", "backend", "passed", "seconds", "dataset", "dataset_hash", "seq", "code", "view_fingerprint")  # fmt: skip


def _found(service: PredictionService | str, settings: Settings | None) -> Sequence[Run]:
    from windrow.stores.metadata import Metadata

    metadata = Metadata((settings or Settings.read()).metadata)
    try:
        found = runs_of(metadata, _name(service))
    finally:
        metadata.close()
    if not found:
        raise NotFoundError(
            f"service {_name(service)!r} was never trained here", next_step=f"run windrow run {_name(service)}"
        )
    return found


def _name(service: PredictionService | str) -> str:
    return service if isinstance(service, str) else service.name


def _table(columns: dict[str, list[Any]]) -> ir.Table:
    import ibis
    import pyarrow as pa

    known = {
        "created_at": pa.timestamp("us", "UTC"), "parameters": pa.map_(pa.string(), pa.string()), "seq": pa.int64(),
        "scores": pa.list_(pa.float64()), "mean": pa.float64(), "seconds": pa.float64(), "resources": pa.int64(),
    }  # fmt: skip
    dtypes = {name: known.get(name, pa.float64() if _figures(values) else None) for name, values in columns.items()}
    return ibis.memtable(pa.table({name: pa.array(values, dtypes[name]) for name, values in columns.items()}))


def _figures(values: list[Any]) -> bool:
    return any(isinstance(value, float) for value in values) or all(value is None for value in values)
