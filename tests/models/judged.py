"""Candidates whose answers are given, so that what a gate says of them is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.models.making import contract_of
from windrow.features.contract import Frame
from windrow.models.bundle import Bundle, Golden
from windrow.models.candidate import Candidate
from windrow.models.dataset import Split
from windrow.models.metrics import metrics_of
from windrow.models.release import DatasetRef, Release, sha256

PROOF = {"tolerance": 1e-5, "rows": {"held out": 100}, "max_difference": {"held out": 1e-7}}


class Says:
    """A model whose answer is its input ``score``."""

    def predict(self, frame: Frame) -> np.ndarray:
        """Return the score."""
        return np.asarray(frame["score"], dtype=np.float64)


def release_of(*features: str, **facts: Any) -> Release:
    """A release of features called so."""
    contract = contract_of(**dict.fromkeys(features, "float64"))
    given: dict[str, Any] = {
        "id": "toy-2", "service": "toy", "number": 2, "created_at": 0, "task": "classification", "contract": contract,
        "label": {"how": "joined"}, "view_fingerprint": contract.fingerprint, "groups": {}, "seq": 0,
        "dataset": DatasetRef(id="d", hash="h", rows=1, kind="view", now=0, splits={"train": 1, "test": 1}),
        "backend": "onnx", "parity": PROOF, "metrics": {}, "baseline": {}, "gates": [], "files": {},
        "on_demand_sha256": sha256(b""), "environment": {},
    }  # fmt: skip
    return Release(**{**given, **facts})


def bundle(release: Release) -> Bundle:
    """A bundle that answers with the feature ``score``."""
    return Bundle(release, Says(), Golden({name: [0.5] for name in release.contract.feature_names}, [0.5]))


def candidate(truth: Any, score: Any, *, features: Frame | None = None, **options: Any) -> Candidate:
    """A candidate with the truth and the answers of its test rows.

    `features` are more of them, `live` a bundle, `seen` the candidate's, `classes` names, other `options` columns
    of the spine. Scores of shape (n, classes) are those of several.
    """
    classes = options.pop("classes", None)
    named = {"label": {"how": "joined", "classes": classes}, "classes": tuple(classes)} if classes else {}
    golden = options.pop("live", None)
    others = {"live": golden and golden.release, "golden": golden, "seen": options.pop("seen", None)}
    frame = {"score": np.asarray(score, dtype=np.float32), **(features or {})}
    truth = np.asarray(truth, dtype=float)
    task = "multiclass" if frame["score"].ndim == 2 else "classification"
    metrics = metrics_of(task, truth, frame["score"].astype(float))
    rows = pa.table({"row": list(range(len(truth))), **options})
    made = bundle(release_of(*frame, metrics=metrics, baseline={"auc": 0.5}, p99_ms=50.0, task=task, **named))
    return Candidate(made, Split(frame, truth, rows), **others)
