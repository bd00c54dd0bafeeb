"""Onboarding: a model that was made elsewhere becomes a release with everything that a home-grown one has."""

from __future__ import annotations

import time
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.errors import ModelError, listed
from windrow.features.contract import Contract, Frame
from windrow.models.compile import Compiled, Form, compile_estimator, compiled_of
from windrow.models.dataset import Splits, TrainingDataset
from windrow.models.fitting import checked, task_for
from windrow.models.foreign import Foreign, Input, OriginalModel, read_foreign
from windrow.models.forest import Column, TreeliteModel, encode_forest
from windrow.models.parity import proof_of
from windrow.models.registry import Registry
from windrow.models.release import Release, Task, sha256
from windrow.models.runtime import Model, OnnxModel
from windrow.models.service import PredictionService
from windrow.models.splits import TEST
from windrow.models.tracking import parameters_of
from windrow.models.training import judge, register

if TYPE_CHECKING:
    from windrow.stores.metadata import Metadata


def onboard(
    path: Path, service: PredictionService, dataset: TrainingDataset, *, registry: Registry, metadata: Metadata,
    allow_code_execution: bool = False,
) -> Release:  # fmt: skip
    """Make a release of a model file; it is judged by the service's gates and not promoted.

    Parameters
    ----------
    path
        A skops, ONNX, XGBoost (JSON or UBJSON) or LightGBM (text) file, the folder of an MLflow model, or a joblib
        or pickle file.
    service
        Whose view the model is given.
    dataset
        Its test split judges the model, and gives the golden pairs and the rows of the parity proof.
    allow_code_execution
        Read joblib and pickle files too, in a process of their own.

    Raises
    ------
    ModelError
        If the file cannot be read, holds what is not trusted, or asks for other inputs than the view has.
    """
    begin = time.perf_counter()
    found = read_foreign(path, allow_code_execution=allow_code_execution)
    check_inputs(found, service.view.contract, where=path.name)
    splits = Splits(dataset, service.view.contract)
    compiled = _compiled(found, service, splits[TEST].frame, where=path.name)
    judged = judge(service, splits, compiled.model(service.view.contract))
    return register(
        service, splits, compiled, judged=judged, facts=_evidence(found, path),
        registry=registry, metadata=metadata, begin=begin,
    )  # fmt: skip


def check_inputs(found: Foreign, contract: Contract, *, where: str) -> None:
    """Raise `ModelError` unless a model asks for exactly the view's columns, of their kinds."""
    names = list(contract.feature_names)
    wrong = _renamed(found.inputs, names) + _other_kinds(found.inputs, contract)
    wrong += [] if wrong else _misplaced(found, names)
    if found.width is not None and found.width != len(names) and not wrong:
        wrong = [f"it takes {found.width} inputs, the view has {len(names)}"]
    if wrong:
        raise ModelError(
            f"{where} does not take what view {contract.view!r} gives: {'; '.join(wrong)}",
            exists=f"The view's columns are {listed(names, shown=40)}",
            next_step="train it on these columns, or declare a view that has what it asks for",
        )


def _renamed(inputs: list[Input], names: list[str]) -> list[str]:
    asked = [i.name for i in inputs]
    if not asked:
        return []
    told = []
    for name in (n for n in asked if n not in names):
        close = get_close_matches(name, names, n=1, cutoff=0.5)
        told.append(f"{name!r} is not in the view" + (f" (did you mean {close[0]!r}?)" if close else ""))
    return told + [f"the view's {name!r} is not among its inputs" for name in names if name not in asked]


def _misplaced(found: Foreign, names: list[str]) -> list[str]:
    """A model that takes a matrix knows its columns by their places only, whatever its signature calls them."""
    matrix = found.portable is not None and found.portable.layout == "matrix"
    unnamed = found.estimator is not None and not hasattr(found.estimator, "feature_names_in_")
    asked = [i.name for i in found.inputs]
    if not (matrix or unnamed) or not asked or asked == names:
        return []
    return [f"it takes its columns by their places, {', '.join(asked)}, and the view gives {', '.join(names)}"]


def _other_kinds(inputs: list[Input], contract: Contract) -> list[str]:
    kinds = {f.name: "text" if f.dtype == "string" else "number" for f in contract.features}
    return [
        f"{i.name!r} is {i.kind} to the model and {kinds[i.name]} in the view"
        for i in inputs
        if i.kind != "unknown" and i.name in kinds and kinds[i.name] != i.kind
    ]


def _compiled(found: Foreign, service: PredictionService, frame: Frame, *, where: str) -> Compiled:
    contract, task = service.view.contract, task_for(service)
    if found.estimator is not None:
        return compile_estimator(checked(found.estimator, service), contract, frame)
    if found.portable is not None:
        portable = found.portable
        _check_outputs(portable.outputs, task, service, where=where)
        model = OnnxModel(portable.payload, contract, task=task, layout=portable.layout)
        form = Form(payload=portable.payload, layout=portable.layout, parity={})
        return _proven("onnx", form, model, contract, frame=frame, task=task, original=None)
    return _of_trees(found, service, frame, where=where)


def _of_trees(found: Foreign, service: PredictionService, frame: Frame, *, where: str) -> Compiled:
    contract, task = service.view.contract, task_for(service)
    if not contract.numeric:
        raise ModelError(f"{where} takes numbers only", next_step="give it a view without text columns")
    names = [i.name for i in found.inputs] or list(contract.feature_names)
    payload = encode_forest([Column(name) for name in names], found.trees.serialize_bytes())
    _check_link(found, task, service, where=where)
    model = TreeliteModel(payload, contract, task=task)
    original = OriginalModel(found.original, names) if found.original else None
    form = Form(payload=payload, layout="matrix", parity={})
    return _proven("treelite", form, model, contract, frame=frame, task=task, original=original)


def _proven(
    backend: Any, form: Form, model: Model, contract: Contract, *, frame: Frame, task: Task, original: Model | None
) -> Compiled:
    proof = proof_of(original or model, frame, task=task)
    parity = proof.check(model) if original else proof.itself() | {"original": "the file itself"}
    made = Form(payload=form.payload, layout=form.layout, parity=parity)
    return compiled_of({backend: made}, contract, proof)


def _check_outputs(outputs: int | None, task: Task, service: PredictionService, *, where: str) -> None:
    wanted = {"regression": (1,), "classification": (1, 2)}.get(task)
    if outputs is not None and wanted is not None and outputs not in wanted:
        raise ModelError(
            f"{where} answers {outputs} values a row, but the label of service {service.name!r} is {_said(task)}",
            next_step="give a model that was made for this label",
        )


def _check_link(found: Foreign, task: Task, service: PredictionService, *, where: str) -> None:
    """A model of trees that answers with log-odds, or with classes, is no model of probabilities."""
    header = found.trees.get_header_accessor()
    link, classes = str(header.get_field("postprocessor")), int(max(header.get_field("num_class")))
    fits = {
        "regression": classes == 1 and link != "sigmoid",
        "classification": link == "sigmoid" or (link in ("softmax", "identity_multiclass") and classes == 2),
        "multiclass": link == "softmax" and classes > 2,
    }
    if not fits[task]:
        raise ModelError(
            f"{where} answers through {link!r} for {classes} class(es), but the label of service {service.name!r} is {_said(task)}",
            next_step="train it with an objective for this label, such as binary:logistic or multi:softprob for classes",
        )


def _said(task: Task) -> str:
    return "a number" if task == "regression" else "a class"


def _evidence(found: Foreign, path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"onboarded": found.source, "file": path.name}
    facts |= {"file_sha256": sha256(path.read_bytes())} if path.is_file() else {}
    if found.estimator is not None:
        facts |= {"estimator": type(found.estimator).__name__, "parameters": parameters_of(found.estimator)}
    return facts
