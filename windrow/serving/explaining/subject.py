"""What is explained: a release with the rows it is compared with, and its original pipeline where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError
from windrow.features.contract import MISSING_TEXT, Frame, canonical
from windrow.models.background import FILE, Background, read_background
from windrow.models.bundle import MODEL_FILES, Bundle, load_model
from windrow.models.runtime import SklearnModel
from windrow.serving.answers import Output
from windrow.serving.explaining.explanation import Value, Vector


class Subject:
    """One release, ready to be explained.

    Parameters
    ----------
    bundle
        The loaded release.

    Attributes
    ----------
    rows
        The background in canonical form: arrays of shape (m,), without rows that the model refuses.
    background
        What they are, in words.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.contract = bundle, bundle.contract
        self.names = bundle.contract.feature_names
        data = bundle.file(FILE)
        self.facts = read_background(data, where=FILE) if data is not None else Background(rows=bundle.golden.inputs)
        frame = canonical(self.contract, self.facts.rows)
        taken = ~bundle.refused(frame)
        self.rows: Frame = {name: values[taken] for name, values in frame.items()}
        kind = "training" if data is not None else "held-out"
        self.background = f"{int(taken.sum())} {kind} rows of the release"

    @property
    def release(self) -> Any:
        """The release."""
        return self.bundle.release

    @property
    def immutable(self) -> list[str]:
        """Features that no counterfactual may change."""
        return self.facts.immutable

    @cached_property
    def estimator(self) -> Any:
        """The pipeline as it was fitted, or None where the release came without it."""
        payload = self.bundle.file(MODEL_FILES["sklearn"])
        if payload is None:
            return None
        served = self.bundle.model
        model = served if isinstance(served, SklearnModel) else load_model(self.release, payload, "sklearn")
        return model.estimator if isinstance(model, SklearnModel) else None

    @cached_property
    def usual(self) -> NDArray[np.float64]:
        """What the model says of the background."""
        return self.bundle.predict(self.rows)

    def frame(self, vectors: Sequence[Vector]) -> Frame:
        """Return rows in canonical form; raise `ModelError` for one that lacks a feature."""
        for name in self.names:
            if any(name not in vector for vector in vectors):
                raise ModelError(
                    f"the row has no value of {name!r}, which release {self.release.id!r} asks for",
                    next_step="explain it with the release that answered",
                )
        return canonical(self.contract, {name: [vector[name] for vector in vectors] for name in self.names})

    def values(self, frame: Frame, row: int) -> Vector:
        """Return one row as plain values, None for a missing number."""
        return {name: plain(values[row]) for name, values in frame.items()}


def plain(value: Any) -> Value:
    """Return a value of a canonical array as JSON has it: the shortest decimal that is the same float32.

    Examples
    --------
    >>> plain(np.float32(0.1)), plain(np.float32("nan")), plain("gold"), plain("(missing)")
    (0.1, None, 'gold', None)
    """
    if isinstance(value, str):
        return None if value == MISSING_TEXT else value
    return float(str(value)) if np.isfinite(value) else None


def output_of(answer: Any) -> Output:
    """Return one answer of a model as JSON has it."""
    made: Output = answer.tolist()
    return made


def repeated(frame: Frame, row: int, times: int) -> Frame:
    """Return one row of a frame many times, as arrays that may be written to."""
    return {name: np.repeat(values[row : row + 1], times) for name, values in frame.items()}
