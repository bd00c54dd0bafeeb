"""Training: fit on the training split only, judge on the test split, prove, release."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.clock import from_micros
from windrow.errors import ModelError, WindrowError, listed
from windrow.features.contract import numbers
from windrow.models.bundle import Bundle, open_bundle
from windrow.models.candidate import Candidate
from windrow.models.compile import compile_estimator, task_of
from windrow.models.dataset import Split, TrainingDataset, load_split
from windrow.models.gate import BetterThanGolden
from windrow.models.gates import GOLDEN_PAIRS, PARITY, check_gates
from windrow.models.golden import seen_rows
from windrow.models.metrics import metrics_of
from windrow.models.packing import environment, hashes, pack
from windrow.models.registry import Registry
from windrow.models.release import DatasetRef, GateResult, Release, Task, sha256
from windrow.models.runtime import SklearnModel, few_threads
from windrow.models.service import Notebook, PredictionService
from windrow.models.splits import TEST, TRAIN
from windrow.models.tracking import parameters_of, record_run

if TYPE_CHECKING:
    from windrow.models.compile import Compiled
    from windrow.stores.metadata import Metadata

Metrics = dict[str, dict[str, float]]


def train(
    service: PredictionService,
    dataset: TrainingDataset,
    *,
    registry: Registry,
    metadata: Metadata,
    estimator: Any = None,
    at: int | None = None,
) -> Release:
    """Make a release from a dataset, and make it live if every gate is cleared.

    Parameters
    ----------
    dataset
        From `windrow.models.dataset.build_dataset` or `dataset_from_log`.
    registry, metadata
        Where the release goes, and the record of this run.
    estimator
        Already fitted (by a notebook, on the training split); default: what the service's trainer
        returns, fitted here.
    at
        UTC microseconds of the deployment (default: the wall clock's).

    Returns
    -------
    Release
        Registered and visible; ``registry.live(service.name)`` says whether it was promoted.

    Raises
    ------
    ModelError
        If the trainer's estimator does not fit the view; nothing is released then.
    """
    begin = time.perf_counter()
    _check_view(service, dataset)
    fitted = fit(service, dataset) if estimator is None else checked(estimator, service)
    judged = evaluate(service, dataset, fitted)
    contract, held_out = service.view.contract, load_split(dataset, service.view.contract, TEST)
    compiled = compile_estimator(fitted, contract, held_out.frame)
    files = pack(compiled, contract, held_out.frame)
    parameters = parameters_of(fitted)
    release = _release(
        service, dataset, compiled, hashes(files), judged=judged, number=registry.next_number(service.name)
    )
    release = msgspec.structs.replace(release, evidence={"estimator": type(fitted).__name__, "parameters": parameters})
    release = msgspec.structs.replace(
        release, gates=_gates(service, open_bundle(release, files), held_out, registry=registry, metadata=metadata)
    )
    registry.register(release, files)
    record_run(metadata, release, parameters=parameters, seconds=time.perf_counter() - begin)
    if release.passed:
        registry.promote(service.name, release.id, reason=_reason(release), at=at)
    return release


def fit(service: PredictionService, dataset: TrainingDataset) -> Any:
    """Return the service's estimator, fitted on the training split and on nothing else.

    Raises
    ------
    ModelError
        If the trainer returns no unfitted estimator, or the estimator cannot be fitted on the view's columns.
    """
    estimator = unfitted(service)
    learn = load_split(dataset, service.view.contract, TRAIN)
    _check_classes(service, learn.y)
    try:
        with few_threads():
            estimator.fit(learn.X, learn.y)
    except WindrowError:
        raise
    except Exception as error:
        # The estimator is the project's own code and may raise anything; the cause is kept.
        raise ModelError(
            f"the estimator of service {service.name!r} cannot be fitted: {type(error).__name__}: {_short(error)}",
            exists=f"The view's columns are {listed(service.view.contract.feature_names, shown=40)}",
            next_step=f"change {_trainer(service)}; X is a DataFrame with these columns, float32 for numbers and text as objects",
        ) from error
    return checked(estimator, service)


def unfitted(service: PredictionService) -> Any:
    """Return what the service's trainer makes, if it is an unfitted estimator of the right kind."""
    if isinstance(service.model, Notebook):
        raise ModelError(
            f"service {service.name!r} is trained by the notebook {service.model.file!r}",
            next_step=f"run it: windrow run {service.name}, or give its fitted model as estimator=",
        )
    made = service.model.call(f"the trainer of service {service.name!r}")
    if isinstance(made, type):
        raise ModelError(
            f"{service.model} returned the class {made.__name__!r}, not an estimator",
            next_step=f"return {made.__name__}(...)",
        )
    if not all(hasattr(made, name) for name in ("fit", "predict", "get_params")):
        raise ModelError(
            f"{service.model} returned {'None' if made is None else type(made).__name__}, which is no estimator",
            next_step="return an unfitted scikit-learn estimator or pipeline",
        )
    if _is_fitted(made):
        raise ModelError(
            f"{service.model} returned a {type(made).__name__} that is fitted already",
            next_step="return it unfitted: windrow fits it, on the training split only",
        )
    _check_task(service, made)
    return made


def checked(estimator: Any, service: PredictionService) -> Any:
    """Return a fitted estimator if it can answer for the service.

    Raises
    ------
    ModelError
        If it is not fitted, of the wrong kind, gives no probability, or was fitted on other columns.
    """
    if estimator is None or not hasattr(estimator, "predict"):
        raise ModelError(
            f"service {service.name!r} was given {type(estimator).__name__}, which is no estimator",
            next_step="give a fitted scikit-learn estimator or pipeline",
        )
    if not _is_fitted(estimator):
        raise ModelError(
            f"the {type(estimator).__name__} given to service {service.name!r} is not fitted",
            next_step="call fit(train.X, train.y) first",
        )
    _check_task(service, estimator)
    _check_columns(service, estimator)
    if service.label.binary and list(estimator.classes_) != [0, 1]:
        raise ModelError(
            f"the estimator of service {service.name!r} knows the classes {list(estimator.classes_)[:5]}, not 0 and 1",
            next_step="fit it on the labels as they are in the training split (0.0 and 1.0)",
        )
    return estimator


def evaluate(service: PredictionService, dataset: TrainingDataset, estimator: Any) -> Metrics:
    """Return the metrics of a fitted estimator and of the baseline, on the test split.

    Returns
    -------
    dict
        ``metrics`` and ``baseline``, each metric -> value. Where the baseline is missing on some rows
        it is measured on the others, and ``baseline`` has the estimator's metrics on these rows as
        ``model_<metric>`` (and ``rows``), so that both are compared on the same ones.
    """
    contract = service.view.contract
    learn, test = load_split(dataset, contract, TRAIN), load_split(dataset, contract, TEST)
    with few_threads():
        answers = SklearnModel(estimator, task=_task(service)).predict(test.frame)
    naive = baseline_of(service, learn, test)
    has = ~np.isnan(naive)
    baseline = metrics_of(_task(service), test.y[has], naive[has])
    if not has.all():
        on_these = metrics_of(_task(service), test.y[has], answers[has])
        baseline |= {f"model_{name}": value for name, value in on_these.items()} | {"rows": float(has.sum())}
    return {"metrics": metrics_of(_task(service), test.y, answers), "baseline": baseline}


def baseline_of(service: PredictionService, learn: Split, test: Split) -> NDArray[np.float64]:
    """Return the naive prediction for each test row: the baseline feature, or the training label's mean."""
    if service.baseline is None:
        return np.full(len(test.y), float(learn.y.mean()))
    return numbers(test.frame[service.baseline])


def _release(
    service: PredictionService, dataset: TrainingDataset, compiled: Compiled, files: dict[str, str], *,
    judged: Metrics, number: int,
) -> Release:  # fmt: skip
    contract = service.view.contract
    return Release(
        id=f"{service.name}-{number}-{os.urandom(3).hex()}", service=service.name, number=number,
        created_at=time.time_ns() // 1000, task=compiled.task, contract=contract, label=service.label.describe(),
        view_fingerprint=contract.fingerprint, groups={g.table_name: g.fingerprint for g in service.view.groups},
        sources=tuple(s.name for s in service.sources), seq=dataset.seq, dataset=_reference(dataset),
        backend=compiled.backend, backend_reason=compiled.reason, layout=compiled.layout, parity=compiled.parity,
        metrics=judged["metrics"], baseline=judged["baseline"], gates=[], files=files,
        on_demand_sha256=sha256(contract.on_demand_source.encode()), environment=environment(),
        unknown_entity=service.online.unknown_entity if service.online else "refuse",
        p99_ms=service.online.p99_ms if service.online else None,
    )  # fmt: skip


def _gates(
    service: PredictionService, bundle: Bundle, test: Split, *, registry: Registry, metadata: Metadata
) -> list[GateResult]:
    """Judge the model as it would be served, against the release that answers now."""
    live = registry.live(service.name) if any(isinstance(g, BetterThanGolden) for g in service.gates) else None
    if live is None:
        return check_gates(service, Candidate(bundle, test))
    seen = seen_rows(live, test, metadata)
    return check_gates(service, Candidate(bundle, test, live=registry.load(live.id), seen=seen))


def _reference(dataset: TrainingDataset) -> DatasetRef:
    return DatasetRef(
        id=dataset.id,
        hash=dataset.content_hash,
        rows=dataset.rows,
        kind=dataset.kind,
        now=dataset.now,
        splits=dataset.splits,
    )


def _check_view(service: PredictionService, dataset: TrainingDataset) -> None:
    if dataset.service != service.name or dataset.view_fingerprint != service.view.fingerprint:
        raise ModelError(
            f"dataset {dataset.id!r} is not of service {service.name!r} as it is declared now (it is of {dataset.service!r})",
            next_step=f"build {service.name}/training_dataset again, then train",
        )


def _check_classes(service: PredictionService, labels: NDArray[np.float64]) -> None:
    if service.label.binary and len(np.unique(labels)) < 2:
        raise ModelError(
            f"every row of the training split of service {service.name!r} has the label {labels[0]:g}",
            next_step="look at the label's source and matures_after, or at the split",
        )


def _check_task(service: PredictionService, estimator: Any) -> None:
    wanted, kind = _task(service), type(estimator).__name__
    if task_of(estimator) != wanted:
        needed = (
            "classes (0 and 1), so it needs a classifier"
            if service.label.binary
            else "numbers, so it needs a regressor"
        )
        raise ModelError(
            f"{kind} is made for {task_of(estimator)}, but the label of service {service.name!r} is {needed}",
            next_step=f"change {_trainer(service)}",
        )
    if service.label.binary and not hasattr(estimator, "predict_proba"):
        raise ModelError(f"{kind} gives no probability", next_step="wrap it: CalibratedClassifierCV(model)")


def _check_columns(service: PredictionService, estimator: Any) -> None:
    names, expected = getattr(estimator, "feature_names_in_", None), list(service.view.contract.feature_names)
    if names is None and getattr(estimator, "n_features_in_", len(expected)) == len(expected):
        return
    if names is None or list(names) != expected:
        raise ModelError(
            f"the estimator of service {service.name!r} was fitted on other columns than its view has",
            exists=f"The view's columns are {listed(expected, shown=40)}",
            next_step="fit it on train.X as it is, all columns in their order; choose columns inside the pipeline",
        )


def _is_fitted(estimator: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):
        return False
    return True


def _task(service: PredictionService) -> Task:
    return "classification" if service.label.binary else "regression"


def _trainer(service: PredictionService) -> str:
    return service.model.file if isinstance(service.model, Notebook) else str(service.model)


def _reason(release: Release) -> str:
    told = [_told(gate) for gate in release.gates if gate.name not in (PARITY, GOLDEN_PAIRS)]
    return f"all gates cleared: {', '.join(told)}" if told else "trained; the service declares no gate"


def _told(gate: GateResult) -> str:
    if gate.passed or gate.waived is None:
        return gate.why
    return f"{gate.why}, WAIVED until {from_micros(gate.waived.until).isoformat()} ({gate.waived.reason})"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
