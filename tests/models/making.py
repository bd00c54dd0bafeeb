"""Small models, frames and releases made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from windrow.features.contract import Contract, Frame, canonical
from windrow.models.bundle import write_bundle
from windrow.models.compile import Compiled, compile_estimator
from windrow.models.packing import environment, hashes, pack
from windrow.models.release import DatasetRef, Release, sha256
from windrow.schema import Field


def contract_of(on_demand_source: str = "", **features: str) -> Contract:
    """A contract of raw features only."""
    fields = tuple(Field(name, dtype) for name, dtype in features.items())
    return Contract(
        view="toy", spine="rows", request=fields, optional=(), lookups=(), on_demand=(), features=fields,
        on_demand_source=on_demand_source,
    )  # fmt: skip


NUMBERS = contract_of(a="float64", b="float64", c="int64")
MIXED = contract_of(a="float64", plan="string", b="float64")


def columns(rows: int = 400, *, missing: bool = True, seed: int = 0) -> dict[str, Any]:
    """Columns for both contracts; `a` has missing values, `plan` too."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    plan = rng.choice(np.array(["x", "y", "z"], dtype=object), rows)
    if missing:
        a[::11], plan[::13] = np.nan, None
    return {"a": a, "b": rng.gamma(2.0, size=rows), "c": rng.integers(0, 9, rows), "plan": plan}


def frame_of(contract: Contract, rows: int = 400, *, missing: bool = True, seed: int = 0) -> Frame:
    return canonical(contract, columns(rows, missing=missing, seed=seed))


def classes(frame: Frame) -> np.ndarray:
    """A class that the features explain."""
    return (np.nan_to_num(frame["a"]) + frame["b"] > 2.0).astype(float)


def labels(frame: Frame, classes_: int) -> np.ndarray:
    """Two classes, more of them, or a value where there are none."""
    if classes_ == 2:
        return classes(frame)
    return np.digitize(np.nan_to_num(frame["a"]) + frame["b"], [1.5, 3.0]).astype(float) if classes_ else values(frame)


def values(frame: Frame) -> np.ndarray:
    """A value around 5,000 that the features explain."""
    return 5_000.0 + 300.0 * frame["b"] + 100.0 * np.nan_to_num(frame["a"])


def fitted(estimator: Any, frame: Frame) -> Any:
    from sklearn.base import is_classifier

    from windrow.features.arrow import to_pandas

    return estimator.fit(to_pandas(frame), classes(frame) if is_classifier(estimator) else values(frame))


def release_of(compiled: Compiled, contract: Contract, files: dict[str, bytes], id: str = "toy-1") -> Release:
    return Release(
        id=id, service="toy", number=1, created_at=0, task=compiled.task, contract=contract, label={"how": "joined"},
        view_fingerprint=contract.fingerprint, groups={}, seq=0,
        dataset=DatasetRef(id="d", hash="h", rows=1, kind="view", now=0, splits={"train": 1, "test": 1}),
        backend=compiled.backend, backend_reason=compiled.reason, layout=compiled.layout, parity=compiled.parity,
        metrics={"auc": 0.9}, baseline={"auc": 0.5}, gates=[], files=hashes(files),
        on_demand_sha256=sha256(contract.on_demand_source.encode()), environment=environment(),
        batch_backend=compiled.batch_backend, backends=compiled.backends,
    )  # fmt: skip


def bundle_folder(folder: Path, estimator: Any, contract: Contract, *, missing: bool = True) -> Path:
    """Fit, compile, pack and write a toy release; return its folder."""
    frame = frame_of(contract, missing=missing)
    compiled = compile_estimator(fitted(estimator, frame), contract, frame)
    files = pack(compiled, contract, frame)
    return write_bundle(folder / "toy-1", release_of(compiled, contract, files), files)


def bare_release(**facts: Any) -> Release:
    """A release of a small model, with other facts."""
    from msgspec.structs import replace
    from sklearn.linear_model import LogisticRegression

    frame = frame_of(NUMBERS, missing=False)
    return replace(
        release_of(compile_estimator(fitted(LogisticRegression(), frame), NUMBERS, frame), NUMBERS, {}), **facts
    )
