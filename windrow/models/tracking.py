"""Tracking: one document per training run, whatever became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import DeclarationError
from windrow.features.code import meaning
from windrow.models.curves import Curves
from windrow.models.release import Release
from windrow.models.search import Trial, texts
from windrow.models.service import Notebook, PredictionService
from windrow.schema import fingerprint

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata

Figures = dict[str, float]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training run: what was trained, on what, by which code, and how good it was.

    Attributes
    ----------
    created_at
        UTC microseconds of the wall clock.
    dataset, dataset_hash, seq
        The training data: its id, its content, and the write order up to which tables were read.
    code
        Changes with what the trainer does.
    parameters
        Of the released estimator, as text.
    metrics, baseline
        On the test split, of the model and of the naive prediction.
    train, validation, validation_baseline
        The same on the other splits.
    curves
        Of the test split, and ``learning`` where the estimator noted it.
    trials
        Every candidate of a search of hyper-parameters.
    seconds
        Wall time of fitting, proving and releasing.
    """

    release: str
    service: str
    created_at: int
    dataset: str
    dataset_hash: str = ""
    seq: int = 0
    code: str = ""
    view_fingerprint: str
    backend: str
    estimator: str = ""
    parameters: dict[str, str]
    metrics: Figures
    baseline: Figures
    train: Figures = {}
    validation: Figures = {}
    validation_baseline: Figures = {}
    passed: bool
    curves: Curves = {}
    trials: list[Trial] = []
    seconds: float


def run_of(release: Release, *, seconds: float, **facts: Any) -> Run:
    """Return the run that made a release.

    Parameters
    ----------
    seconds
        Wall time of fitting, proving and releasing.
    **facts
        Those of `Run` that a release does not know: parameters, code, curves, trials.
    """
    return Run(
        release=release.id, service=release.service, created_at=release.created_at, dataset=release.dataset.id,
        dataset_hash=release.dataset.hash, seq=release.seq, view_fingerprint=release.view_fingerprint,
        backend=release.backend, metrics=release.metrics, baseline=release.baseline, passed=release.passed,
        seconds=round(seconds, 3), **facts,
    )  # fmt: skip


def record_run(metadata: Metadata, run: Run) -> None:
    """Keep a training run in the tracking table."""
    metadata.add_run(run.service, msgspec.to_builtins(run))


def runs_of(metadata: Metadata, service: str) -> list[Run]:
    """Return a service's training runs, oldest first."""
    return [msgspec.convert(document, Run) for document in metadata.runs(service)]


def parameters_of(estimator: Any) -> dict[str, str]:
    """Return the parameters of an estimator and of its parts as short text, for people.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> parameters_of(Ridge(alpha=2.0))["alpha"]
    '2.0'
    """
    return texts(estimator.get_params(deep=True)) if hasattr(estimator, "get_params") else {}


def code_of(service: PredictionService) -> str:
    """Return a fingerprint that changes with what a service's trainer does, not with its comments.

    A notebook's code is known where it runs: for one this is the fingerprint of its name.
    """
    trainer = service.trainer
    if isinstance(trainer, Notebook):
        return fingerprint([trainer.file])
    try:
        text = meaning(trainer.load(), where=f"the trainer of service {service.name!r}")
    except (DeclarationError, AttributeError):
        text = str(trainer)  # a class, or written at a prompt: it has a name and no text
    return fingerprint([text])
