"""From a fitted scikit-learn estimator to the model that is served, with the proof that both answer alike.

ONNX is silently wrong for some models (forests given a missing value, categorical histogram boosting,
boosting behind a scaler), so no compiled model is taken on trust: it answers held-out and hostile rows
as the original does, or the original itself is released.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, ParityError, listed
from windrow.features.contract import Contract, Frame
from windrow.models.hostile import Refused, answers, boundary_rows, hostile_rows, ordinary, planted, probe, resampled
from windrow.models.release import Backend, Task
from windrow.models.runtime import MATRIX_INPUT, Layout, Model, OnnxModel, SklearnModel

HELD_OUT_ROWS = 10_000
TOLERANCE = 1e-5
GUARDED = ("missing", "infinite")
"""What a bundle refuses by itself where the original does; see `windrow.models.bundle.Bundle`."""
KINDS = ("held out", "hostile", "boundary")
MEASURES = {
    "classification": "absolute difference of the probability of class 1",
    "regression": "difference relative to the value, or to the mean held-out value where that is larger",
}
REFUSED = "missing and infinite numbers are refused by the release before the model sees them, others by both models"


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be served.

    Attributes
    ----------
    backend, reason
        ``onnx``, or ``sklearn`` and why.
    payload
        Bytes of the model file.
    parity
        What was compared and how far apart the answers were.
    """

    backend: Backend
    task: Task
    layout: Layout
    payload: bytes
    parity: dict[str, Any]
    reason: str = ""

    def model(self, contract: Contract) -> Model:
        """Return the model itself."""
        if self.backend == "onnx":
            return OnnxModel(self.payload, contract, task=self.task, layout=self.layout)
        return SklearnModel.load(self.payload, task=self.task, where="the model file")


class _Rows(msgspec.Struct):
    """Rows to compare on, with the original's answers."""

    kind: str
    frame: Frame
    expected: NDArray[np.float64]


class _Case(msgspec.Struct):
    """Everything that one attempt needs."""

    estimator: Any
    contract: Contract
    task: Task
    refused: Refused
    probes: Frame
    rows: list[_Rows]


def task_of(estimator: Any) -> Task:
    """Return what kind of estimator it is.

    Raises
    ------
    ModelError
        If it is neither a classifier nor a regressor.
    """
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(estimator):
        return "classification"
    if is_regressor(estimator):
        return "regression"
    raise ModelError(
        f"{type(estimator).__name__} is neither a classifier nor a regressor",
        next_step="return a scikit-learn estimator or a pipeline that ends with one",
    )


def compile_estimator(estimator: Any, contract: Contract, frame: Frame) -> Compiled:
    """Compile a fitted estimator, or keep it as it is and say why.

    Parameters
    ----------
    estimator
        Fitted on a DataFrame of the contract's columns (float32 and object).
    contract
        Names and dtypes of the inputs.
    frame
        Held-out rows in canonical form; resampled to 10,000 when there are fewer.

    Returns
    -------
    Compiled
        ONNX where its answers are within 1e-5 (probability; relative for numbers) of the original's
        on all rows and no class differs; else scikit-learn.

    Raises
    ------
    ModelError
        If there is no held-out row, or the estimator cannot be stored without pickle either.
    """
    case = _case(estimator, contract, frame)
    reasons = []
    for layout in _layouts(contract):
        try:
            return _attempt(case, layout)
        except ModelError as error:
            reasons.append(f"{layout}: {error.what}")
    return _kept(case, "; ".join(reasons))


def _layouts(contract: Contract) -> list[Layout]:
    return ["matrix", "columns"] if contract.numeric else ["columns"]


def _case(estimator: Any, contract: Contract, frame: Frame) -> _Case:
    task, original = task_of(estimator), SklearnModel(estimator, task=task_of(estimator))
    if not len(next(iter(frame.values()))):
        raise ModelError("there is no held-out row to compare the compiled model on", next_step="widen the test split")
    with _quiet():
        refused = probe(original, frame)
        clean = _without_refused(frame, refused)
        frames = [resampled(clean, HELD_OUT_ROWS), hostile_rows(clean, refused), boundary_rows(original, clean)]
        rows = [_Rows(kind, rows, original.predict(rows)) for kind, rows in zip(KINDS, frames, strict=True)]
    return _Case(estimator, contract, task, refused, ordinary(frame), rows)


@contextmanager
def _quiet() -> Iterator[None]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Extremes overflow in exp() and matmul: the answers are compared, the warnings say nothing new.
    # One native thread, because small calls that share a core wait for each other's threads.
    with warnings.catch_warnings(), np.errstate(all="ignore"), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _attempt(case: _Case, layout: Layout) -> Compiled:
    payload = _convert(case, layout)
    model = OnnxModel(payload, case.contract, task=case.task, layout=layout)
    _refuses_alike(case, model)
    parity = _prove(case, model)
    return Compiled(backend="onnx", task=case.task, layout=layout, payload=payload, parity=parity)


def _kept(case: _Case, reason: str) -> Compiled:
    from skops.io import dumps

    payload = dumps(case.estimator, compression=zipfile.ZIP_DEFLATED)
    model = SklearnModel.load(payload, task=case.task, where=f"a model of {type(case.estimator).__name__}")
    with _quiet():
        parity = _prove(case, model)
    return Compiled(backend="sklearn", task=case.task, layout="columns", payload=payload, parity=parity, reason=reason)


def _convert(case: _Case, layout: Layout) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    fields = case.contract.features
    columns = [
        (f.name, StringTensorType([None, 1]) if f.dtype == "string" else FloatTensorType([None, 1])) for f in fields
    ]
    inputs = columns if layout == "columns" else [(MATRIX_INPUT, FloatTensorType([None, len(fields)]))]
    options = {id(case.estimator): {"zipmap": False}} if case.task == "classification" else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = convert_sklearn(case.estimator, initial_types=inputs, options=options)
    except Exception as error:  # noqa: BLE001 - the converters raise whatever comes; every failure means "not convertible"
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise ModelError(f"cannot be converted to ONNX ({reason})", next_step="use the original") from error
    payload: bytes = made.SerializeToString()
    return payload


def _refuses_alike(case: _Case, model: Model) -> None:
    for kind, names in case.refused.items():
        if kind.removeprefix("negative ") in GUARDED:
            continue
        silent = [name for name in names if answers(model, planted(case.probes, name, kind))]
        if silent:
            raise ParityError(
                f"the original refuses {kind} values of {listed(silent)}, but the compiled model answers them",
                next_step="use the original",
            )


def _prove(case: _Case, model: Model) -> dict[str, Any]:
    scale = float(np.mean(np.abs(case.rows[0].expected))) or 1.0
    measured = {rows.kind: _compare(case.task, model, rows, scale=scale) for rows in case.rows}
    return {
        "tolerance": TOLERANCE,
        "measure": MEASURES[case.task],
        "rows": {rows.kind: len(rows.expected) for rows in case.rows},
        "max_difference": measured,
        "changed_classes": 0,
        "refused_by_the_original": _merged(case.refused),
        "refused_rows": REFUSED if case.refused else "none",
    }


def _compare(task: Task, model: Model, rows: _Rows, *, scale: float) -> float:
    found, expected = model.predict(rows.frame), rows.expected
    with np.errstate(all="ignore"):
        distance = np.abs(found - expected)
        if task == "regression":
            distance = distance / np.maximum(np.abs(expected), scale)
    # Equal infinities and two missing answers are the same answer.
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    distance = np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))
    # A forest of an even number of trees can say exactly 0.5: then the last bit decides the class.
    turned = (found > 0.5) != (expected > 0.5) if task == "classification" else np.zeros(len(found), dtype=bool)
    wrong = (distance > TOLERANCE) | turned
    if wrong.any():
        classes = f", and the class of {int(turned.sum())}" if turned.any() else ""
        raise ParityError(
            f"it answers {int(wrong.sum())} of {len(wrong)} {rows.kind} rows differently, by up to {float(distance.max()):.2g}{classes}",
            next_step="use the original",
        )
    return float(distance.max(initial=0.0))


def _merged(refused: Refused) -> Refused:
    infinite = sorted({*refused.get("infinite", []), *refused.get("negative infinite", [])})
    others = {k: v for k, v in refused.items() if "infinite" not in k}
    return {**others, "infinite": infinite} if infinite else others


def _without_refused(frame: Frame, refused: Refused) -> Frame:
    bad = np.zeros(len(next(iter(frame.values()))), dtype=bool)
    for kind, test in (("missing", np.isnan), ("infinite", np.isinf)):
        for name in refused.get(kind, []):
            bad |= test(frame[name])
    if bad.all():
        raise ModelError(
            "the model refuses every held-out row: each has a missing value",
            next_step="put an imputer in the pipeline, or use a model that takes missing values",
        )
    return {name: values[~bad] for name, values in frame.items()}
