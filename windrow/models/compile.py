"""From a fitted scikit-learn estimator to the models that answer for it, each proven equal to it.

Three ways are tried in this order: ONNX Runtime, treelite, scikit-learn itself. The first that is proven
serves requests; batch scoring takes the fastest of the proven ones, as measured here.
"""

from __future__ import annotations

import time
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import msgspec

from windrow.errors import ModelError
from windrow.features.contract import Contract, Frame
from windrow.models.folding import forest_of
from windrow.models.forest import TreeliteModel
from windrow.models.parity import Proof, proof_of, quiet
from windrow.models.release import BACKENDS, Backend, Proven, Task
from windrow.models.runtime import (
    MATRIX_INPUT,
    Layout,
    Model,
    OnnxModel,
    SklearnModel,
    Way,
    batch_threads,
    few_threads,
    open_model,
)

SINGLE_ROWS, TURNS = 20, 5
PATIENCE = 2.0
"""Seconds after which batches of slow models are not measured again, once each had two turns."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One way to answer: its model file and the proof."""

    payload: bytes
    layout: Layout
    parity: dict[str, Any]


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be served.

    Attributes
    ----------
    backend, reason
        ``onnx``; or ``treelite`` or ``sklearn`` and why the ones before it were not taken.
    models
        Every proven way, the served one among them.
    backends
        Differences and speed of each.
    """

    backend: Backend
    task: Task
    models: dict[Backend, Form]
    backends: dict[Backend, Proven]
    reason: str = ""

    @property
    def payload(self) -> bytes:
        """Bytes of the model file that is served."""
        return self.models[self.backend].payload

    @property
    def layout(self) -> Layout:
        """How the served model takes its inputs."""
        return self.models[self.backend].layout

    @property
    def parity(self) -> dict[str, Any]:
        """What was compared for the served model, and how far apart the answers were."""
        return self.models[self.backend].parity

    @property
    def batch_backend(self) -> Backend:
        """The proven way with most rows a second."""
        return max(self.backends, key=lambda name: self.backends[name].rows_per_second)

    def model(self, contract: Contract) -> Model:
        """Return the model that is served."""
        return open_model(Way(self.backend, self.layout, self.task), self.payload, contract)


def task_of(estimator: Any) -> Task:
    """Return what kind of estimator it is; more than two classes count when it is fitted.

    Raises
    ------
    ModelError
        If it is neither a classifier nor a regressor.
    """
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(estimator):
        return "multiclass" if len(getattr(estimator, "classes_", ())) > 2 else "classification"
    if is_regressor(estimator):
        return "regression"
    raise ModelError(
        f"{type(estimator).__name__} is neither a classifier nor a regressor",
        next_step="return a scikit-learn estimator or a pipeline that ends with one",
    )


def compile_estimator(estimator: Any, contract: Contract, frame: Frame) -> Compiled:
    """Compile a fitted estimator in every way that repeats its answers.

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
        With each model whose answers are within 1e-5 (probability; relative for numbers) of the
        original's on all rows and whose classes do not differ.

    Raises
    ------
    ModelError
        If there is no held-out row, or no way to answer is left: no compiled model is equal, and the
        estimator cannot be stored without pickle.
    """
    task = task_of(estimator)
    proof = proof_of(SklearnModel(estimator, task=task), frame, task=task)
    models, reasons = dict[Backend, Form](), dict[str, str]()
    for backend in BACKENDS:
        try:
            models[backend] = _MAKERS[backend](estimator, contract, proof)
        except ModelError as error:
            reasons[backend] = error.what
            if backend == "sklearn" and not models:
                raise
    return compiled_of(models, contract, proof, reason="; ".join(_until(models, reasons)))


def compiled_of(models: dict[Backend, Form], contract: Contract, proof: Proof, *, reason: str = "") -> Compiled:
    """Measure every proven model and return them; the first in order is served."""
    ways = {backend: Way(backend, made.layout, proof.task) for backend, made in models.items()}
    single = {b: open_model(way, models[b].payload, contract) for b, way in ways.items()}
    batch = {b: open_model(way, models[b].payload, contract, threads=batch_threads()) for b, way in ways.items()}
    rows, one = proof.held_out, {name: values[:1] for name, values in proof.held_out.items()}
    with few_threads():
        many = _fastest(batch, rows, turns=TURNS)
    with quiet():
        alone = _fastest(single, one, turns=SINGLE_ROWS)
    measured = {
        backend: Proven(
            max_difference=made.parity["max_difference"],
            rows_per_second=round(len(next(iter(rows.values()))) / many[backend]),
            us_per_row=round(alone[backend] * 1e6, 1),
        )
        for backend, made in models.items()
    }
    return Compiled(backend=next(iter(models)), task=proof.task, models=models, backends=measured, reason=reason)


def _until(models: dict[Backend, Form], reasons: dict[str, str]) -> list[str]:
    served = next(iter(models))
    return [f"{backend}: {reasons[backend]}" for backend in BACKENDS[: BACKENDS.index(served)]]


def _onnx(estimator: Any, contract: Contract, proof: Proof) -> Form:
    layouts: list[Layout] = ["matrix", "columns"] if contract.numeric else ["columns"]
    reasons = []
    for layout in layouts:
        try:
            payload = _converted(estimator, contract, layout, task=proof.task)
            model = OnnxModel(payload, contract, task=proof.task, layout=layout)
            return Form(payload=payload, layout=layout, parity=proof.check(model))
        except ModelError as error:
            reasons.append(f"{layout}: {error.what}")
    raise ModelError("; ".join(reasons), next_step="use the original")


def _treelite(estimator: Any, contract: Contract, proof: Proof) -> Form:
    payload = forest_of(estimator, contract)
    model = TreeliteModel(payload, contract, task=proof.task)
    return Form(payload=payload, layout=model.layout, parity=proof.check(model))


def _sklearn(estimator: Any, contract: Contract, proof: Proof) -> Form:
    from skops.io import dumps

    payload = dumps(estimator, compression=zipfile.ZIP_DEFLATED)
    model = SklearnModel.load(payload, task=proof.task, where=f"a model of {type(estimator).__name__}")
    return Form(payload=payload, layout="columns", parity=proof.check(model))


_MAKERS: dict[Backend, Callable[[Any, Contract, Proof], Form]] = {
    "onnx": _onnx,
    "treelite": _treelite,
    "sklearn": _sklearn,
}


def _converted(estimator: Any, contract: Contract, layout: Layout, *, task: Task) -> bytes:
    from skl2onnx import convert_sklearn

    options = None if task == "regression" else {id(estimator): {"zipmap": False}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = convert_sklearn(estimator, initial_types=_inputs(contract, layout), options=options)
    except Exception as error:  # noqa: BLE001 - the converters raise whatever comes; every failure means "not convertible"
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise ModelError(f"cannot be converted to ONNX ({reason})", next_step="use the original") from error
    _speak_c(made.graph)
    payload: bytes = made.SerializeToString()
    return payload


def _inputs(contract: Contract, layout: Layout) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    fields = contract.features
    if layout == "matrix":
        return [(MATRIX_INPUT, FloatTensorType([None, len(fields)]))]
    return [
        (f.name, StringTensorType([None, 1]) if f.dtype == "string" else FloatTensorType([None, 1])) for f in fields
    ]


def _speak_c(graph: Any) -> None:
    """Let text be lower-cased in the C locale: the default is en_US, and where that is missing nothing loads."""
    from onnx.helper import make_attribute

    for node in graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, make_attribute("locale", "C")])


def _fastest(models: dict[Backend, Model], rows: Frame, *, turns: int) -> dict[Backend, float]:
    """Return the least seconds of a few calls of each, by turns: what else runs on the machine spoils all alike."""
    least, begin = dict.fromkeys(models, float("inf")), time.perf_counter()
    for turn in range(turns):
        for backend, model in models.items():
            started = time.perf_counter()
            model.predict(rows)
            least[backend] = min(least[backend], time.perf_counter() - started)
        if turn and time.perf_counter() - begin > PATIENCE:
            break
    return least
