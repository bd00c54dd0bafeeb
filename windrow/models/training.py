"""Training: fit on the training split only, judge on the test split, prove, release."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.clock import from_micros
from windrow.errors import ModelError
from windrow.features.contract import numbers
from windrow.models import background, card, trusted
from windrow.models.bundle import Bundle, open_bundle
from windrow.models.candidate import Candidate
from windrow.models.compile import compile_estimator
from windrow.models.curves import curves_of, learning_of
from windrow.models.dataset import Split, Splits, TrainingDataset
from windrow.models.fitting import Fitted, chosen, fit, places_of, task_for
from windrow.models.gate import BetterThanGolden
from windrow.models.gates import GOLDEN_PAIRS, PARITY, check_gates, intervals_of
from windrow.models.golden import against
from windrow.models.metrics import metrics_of
from windrow.models.origins import background_of
from windrow.models.packing import environment, hashes, pack
from windrow.models.policies import Policies
from windrow.models.registry import Finished, Registry
from windrow.models.release import EXPLAIN_MS, DatasetRef, GateResult, Release, sha256
from windrow.models.runtime import Model, SklearnModel, few_threads
from windrow.models.search import Say, summary_of
from windrow.models.service import PredictionService
from windrow.models.splits import TEST, TRAIN, VALIDATION
from windrow.models.tracking import Run, code_of, parameters_of, record_run, run_of

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
    code: str | None = None,
    say: Say | None = None,
    promote: bool = True,
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
    code
        Fingerprint of what trained `estimator`; default: of the service's trainer.
    say
        Is told how far a search of hyper-parameters is; default: a bar on a terminal.
    promote
        False for a challenger or a shadow: it is never made live here, whatever its gates say.

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
    splits = Splits(dataset, service.view.contract)
    fitted = fit(service, dataset, say=say, splits=splits) if estimator is None else chosen(estimator, service)
    judged = evaluate(service, dataset, fitted.estimator, splits=splits)
    compiled = compile_estimator(fitted.estimator, service.view.contract, splits[TEST].frame)
    facts = _run_facts(service, splits, fitted, code=code)
    release = register(
        service, splits, compiled, judged=judged, facts=facts, registry=registry, metadata=metadata, begin=begin
    )
    if promote and release.passed:
        registry.promote(service.name, release.id, reason=_reason(release), at=at)
    return release


def register(
    service: PredictionService, splits: Splits, compiled: Compiled, *, judged: Metrics, facts: dict[str, Any],
    registry: Registry, metadata: Metadata, begin: float,
) -> Release:  # fmt: skip
    """Pack a proven model, judge it by the service's gates, and make it visible in the registry.

    Parameters
    ----------
    judged
        From `evaluate`.
    facts
        What else is known of it: the release carries it as evidence, without the curves and trials, which stand
        in the record of this run.
    begin
        When the work began, of `time.perf_counter`.
    """
    held_out = splits[TEST]
    files = pack(compiled, service.view.contract, held_out.frame)
    files[background.FILE] = background_of(service, splits[TRAIN].frame)
    release = _release(service, splits.dataset, compiled, hashes(files), judged=judged)
    evidence = {name: value for name, value in facts.items() if name not in ("curves", "trials")}
    release = msgspec.structs.replace(release, evidence=evidence)
    release = _judged(service, open_bundle(release, files), held_out, registry=registry, metadata=metadata)
    release = registry.register_next(release, lambda numbered: _with_card(numbered, files))
    kept = {"parameters": {}} | {name: value for name, value in facts.items() if name in Run.__struct_fields__}
    record_run(metadata, run_of(release, seconds=time.perf_counter() - begin, **kept))
    return release


def _with_card(release: Release, files: dict[str, bytes]) -> Finished:
    whole = {**files, card.FILE: card.card(release).encode()}
    return msgspec.structs.replace(release, files=hashes(whole)), whole


def evaluate(
    service: PredictionService,
    dataset: TrainingDataset,
    estimator: Any,
    *,
    split: str = TEST,
    splits: Splits | None = None,
) -> Metrics:
    """Return the metrics of a fitted estimator and of the baseline, on the test split or another.

    Parameters
    ----------
    splits
        The dataset's, where they are in memory already.

    Returns
    -------
    dict
        ``metrics`` and ``baseline``, each metric -> value. Where the baseline is missing on some rows
        it is measured on the others, and ``baseline`` has the estimator's metrics on these rows as
        ``model_<metric>`` (and ``rows``), so that both are compared on the same ones.
    """
    splits = splits or Splits(dataset, service.view.contract)
    return judge(service, splits, SklearnModel(estimator, task=task_for(service)), split=split)


def judge(service: PredictionService, splits: Splits, model: Model, *, split: str = TEST) -> Metrics:
    """Return what `evaluate` does, for a model of any kind."""
    task, learn, judged = task_for(service), splits[TRAIN], splits[split]
    with few_threads():
        answers = model.predict(judged.frame)
    _check_answers(answers, split)
    naive = baseline_of(service, learn, judged)
    has = ~np.isnan(naive if naive.ndim == 1 else naive[:, 0])
    baseline = metrics_of(task, judged.y[has], naive[has])
    if not has.all():
        on_these = metrics_of(task, judged.y[has], answers[has])
        baseline |= {f"model_{name}": value for name, value in on_these.items()} | {"rows": float(has.sum())}
    return {"metrics": metrics_of(task, judged.y, answers), "baseline": baseline}


def _check_answers(answers: NDArray[np.float64], split: str) -> None:
    # Not left to the gates: NaN sorts above every probability, and is not above a threshold, so that AUC and
    # accuracy of such answers are numbers like others.
    bad = int((~np.isfinite(answers.reshape(len(answers), -1))).any(axis=1).sum())
    if bad:
        raise ModelError(
            f"the model answers {bad:,} of {len(answers):,} rows of the {split} split with NaN or infinity",
            next_step="look at what it does with missing and extreme values",
        )


def _run_facts(service: PredictionService, splits: Splits, fitted: Fitted, *, code: str | None) -> dict[str, Any]:
    """Return what is kept of a run, besides what its release says."""
    estimator, test = fitted.estimator, splits[TEST]
    model = SklearnModel(estimator, task=task_for(service))
    nothing: Metrics = {"metrics": {}, "baseline": {}}
    tuned = judge(service, splits, model, split=VALIDATION) if VALIDATION in splits.dataset.splits else nothing
    with few_threads():
        answers = model.predict(test.frame)
    return {
        **({"search": summary_of(fitted.trials)} if fitted.trials else {}),
        "estimator": type(estimator).__name__,
        "parameters": parameters_of(estimator),
        "code": code or code_of(service),
        "train": judge(service, splits, model, split=TRAIN)["metrics"],
        "validation": tuned["metrics"],
        "validation_baseline": tuned["baseline"],
        "curves": curves_of(task_for(service), test.y, answers, classes=service.label.classes) | learning_of(estimator),
        "trials": fitted.trials,
    }


def baseline_of(service: PredictionService, learn: Split, test: Split) -> NDArray[np.float64]:
    """Return the naive prediction for each row that is judged: the baseline feature, or the training label's mean."""
    if service.baseline is None:
        if service.label.multiclass:
            shares = [float((learn.y == place).mean()) for place in places_of(service)]
            return np.tile(shares, (len(test.y), 1))
        return np.full(len(test.y), float(learn.y.mean()))
    return numbers(test.frame[service.baseline])


def _release(
    service: PredictionService, dataset: TrainingDataset, compiled: Compiled, files: dict[str, str], *,
    judged: Metrics,
) -> Release:  # fmt: skip
    """Return the candidate: it is numbered when it is registered, and no one else can take the number then."""
    contract = service.view.contract
    return Release(
        id=f"{service.name}-candidate", service=service.name, number=0,
        created_at=time.time_ns() // 1000, task=compiled.task, contract=contract, label=service.label.describe(),
        view_fingerprint=contract.fingerprint, groups={g.table_name: g.fingerprint for g in service.view.groups},
        sources=tuple(s.name for s in service.sources), seq=dataset.seq, dataset=_reference(dataset),
        backend=compiled.backend, backend_reason=compiled.reason, layout=compiled.layout, parity=compiled.parity,
        batch_backend=compiled.batch_backend, backends=compiled.backends, trusted_types=trusted.FORMAT,
        classes=service.label.classes if service.label.multiclass else (),
        metrics=judged["metrics"], baseline=judged["baseline"], gates=[], files=files,
        on_demand_sha256=sha256(contract.on_demand_source.encode()), environment=environment(),
        unknown_entity=service.online.unknown_entity if service.online else "refuse",
        policies=service.online.policies_for(service.label.classes) if service.online else Policies(),
        p99_ms=service.online.p99_ms if service.online else None,
        explain_ms=service.online.explain_ms if service.online else EXPLAIN_MS,
        schedule=service.batch.schedule if service.batch else "@daily",
    )  # fmt: skip


def _judged(
    service: PredictionService, bundle: Bundle, test: Split, *, registry: Registry, metadata: Metadata
) -> Release:
    """Judge the model as it would be served, against the release that answers now; return it with its gates."""
    candidate = Candidate(bundle, test)
    if any(isinstance(gate, BetterThanGolden) for gate in service.gates):
        candidate = against(candidate, registry, metadata)
    gates, sure = check_gates(service, candidate), intervals_of(candidate)
    evidence = {**bundle.release.evidence, "intervals": sure}
    return msgspec.structs.replace(bundle.release, gates=gates, evidence=evidence)


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


def _reason(release: Release) -> str:
    told = [_told(gate) for gate in release.gates if gate.name not in (PARITY, GOLDEN_PAIRS)]
    return f"all gates cleared: {', '.join(told)}" if told else "trained; the service declares no gate"


def _told(gate: GateResult) -> str:
    if gate.passed or gate.waived is None:
        return gate.why
    return f"{gate.why}, WAIVED until {from_micros(gate.waived.until).isoformat()} ({gate.waived.reason})"
