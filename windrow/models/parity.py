"""The proof that a compiled model answers as its original does: on held-out, hostile and boundary rows.

ONNX is silently wrong for some models (forests given a missing value, categorical histogram boosting,
boosting behind a scaler), so no compiled model is taken on trust.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, ParityError, listed
from windrow.features.contract import Frame
from windrow.models.hostile import Refused, answers, boundary_rows, hostile_rows, ordinary, planted, probe, resampled
from windrow.models.release import Task
from windrow.models.runtime import Model

HELD_OUT_ROWS = 10_000
TOLERANCE = 1e-5
GUARDED = ("missing", "infinite")
"""What a bundle refuses by itself where the original does; see `windrow.models.bundle.Bundle`."""
KINDS = ("held out", "hostile", "boundary")
MEASURES = {
    "classification": "absolute difference of the probability of class 1",
    "multiclass": "largest absolute difference of the probability of a class",
    "regression": "difference relative to the value, or to the mean held-out value where that is larger",
}
REFUSED = "missing and infinite numbers are refused by the release before the model sees them, others by both models"

_Values = NDArray[np.float64]


class Rows(msgspec.Struct):
    """Rows to compare on, with the original's answers."""

    kind: str
    frame: Frame
    expected: _Values


class Proof(msgspec.Struct):
    """What a compiled model must repeat; made by `proof_of`.

    Attributes
    ----------
    refused
        Kind of value -> columns in which the original raises instead of answering.
    probes
        Two ordinary rows to plant such values into.
    """

    task: Task
    refused: Refused
    probes: Frame
    rows: list[Rows]

    @property
    def held_out(self) -> Frame:
        """The held-out rows, 10,000 of them."""
        return self.rows[0].frame

    def check(self, model: Model) -> dict[str, Any]:
        """Return what was compared and how far apart the answers were.

        Raises
        ------
        ParityError
            If an answer differs by more than 1e-5, a class differs, or a value that the original
            refuses is answered.
        """
        with quiet():
            self._refuses_alike(model)
            return self._facts({rows.kind: _compare(self.task, model, rows, scale=self._scale) for rows in self.rows})

    def itself(self) -> dict[str, Any]:
        """Return the same facts for a model that is its own original."""
        return self._facts(dict.fromkeys(KINDS, 0.0))

    @property
    def _scale(self) -> float:
        return float(np.mean(np.abs(self.rows[0].expected))) or 1.0

    def _facts(self, measured: dict[str, float]) -> dict[str, Any]:
        return {
            "tolerance": TOLERANCE,
            "measure": MEASURES[self.task],
            "rows": {rows.kind: len(rows.expected) for rows in self.rows},
            "max_difference": measured,
            "changed_classes": 0,
            "refused_by_the_original": _merged(self.refused),
            "refused_rows": REFUSED if self.refused else "none",
        }

    def _refuses_alike(self, model: Model) -> None:
        for kind, names in self.refused.items():
            if kind.removeprefix("negative ") in GUARDED:
                continue
            silent = [name for name in names if answers(model, planted(self.probes, name, kind))]
            if silent:
                raise ParityError(
                    f"the original refuses {kind} values of {listed(silent)}, but the compiled model answers them",
                    next_step="use the original",
                )


def proof_of(original: Model, frame: Frame, *, task: Task) -> Proof:
    """Return the proof that `original` sets for its compiled forms.

    Parameters
    ----------
    original
        The model whose answers are right.
    frame
        Held-out rows in canonical form; resampled to 10,000 when there are fewer.

    Raises
    ------
    ModelError
        If there is no held-out row, or the original refuses each of them.
    """
    if not len(next(iter(frame.values()))):
        raise ModelError("there is no held-out row to compare the compiled model on", next_step="widen the test split")
    with quiet():
        refused = probe(original, frame)
        clean = _without_refused(frame, refused)
        frames = [resampled(clean, HELD_OUT_ROWS), hostile_rows(clean, refused), boundary_rows(original, clean)]
        rows = [Rows(kind, rows, original.predict(rows)) for kind, rows in zip(KINDS, frames, strict=True)]
    return Proof(task, refused, ordinary(frame), rows)


@contextmanager
def quiet() -> Iterator[None]:
    """Compare with one native thread and without warnings."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Extremes overflow in exp() and matmul: the answers are compared, the warnings say nothing new.
    # One native thread, because small calls that share a core wait for each other's threads.
    with warnings.catch_warnings(), np.errstate(all="ignore"), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _compare(task: Task, model: Model, rows: Rows, *, scale: float) -> float:
    found, expected = model.predict(rows.frame), rows.expected
    if found.shape != expected.shape:
        raise ParityError(
            f"it answers {found.shape[1:]} values a row, the original {expected.shape[1:]}",
            next_step="use the original",
        )
    distance, turned = _distance(task, found, expected, scale=scale), _turned(task, found, expected)
    wrong = (distance > TOLERANCE) | turned
    if wrong.any():
        classes = f", and the class of {int(turned.sum())}" if turned.any() else ""
        raise ParityError(
            f"it answers {int(wrong.sum())} of {len(wrong)} {rows.kind} rows differently, by up to {float(distance.max()):.2g}{classes}",
            next_step="use the original",
        )
    return float(distance.max(initial=0.0))


def _distance(task: Task, found: _Values, expected: _Values, *, scale: float) -> _Values:
    distance = np.abs(found - expected)
    if task == "regression":
        distance = distance / np.maximum(np.abs(expected), scale)
    # Equal infinities and two missing answers are the same answer.
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    distance = np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))
    return distance if distance.ndim == 1 else np.asarray(distance.max(axis=1))


def _turned(task: Task, found: _Values, expected: _Values) -> NDArray[np.bool_]:
    """Return which rows change their class, shape (n,)."""
    if task == "multiclass":
        return np.asarray(found.argmax(axis=1) != expected.argmax(axis=1))
    if task == "regression":
        return np.zeros(len(found), dtype=bool)
    # A forest of an even number of trees can say exactly 0.5: then the last bit decides the class.
    return np.asarray((found > 0.5) != (expected > 0.5))


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
