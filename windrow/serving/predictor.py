"""The model behind a service: in this process when it is compiled, beside it when it is not."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, RequestError
from windrow.models.bundle import Bundle
from windrow.models.runtime import OnnxModel
from windrow.serving.transformer import Vectors


class Predictor(Protocol):
    """Answers vectors of n rows with float64 of shape (n,)."""

    async def predict(self, vectors: Vectors) -> NDArray[np.float64]:
        """Return the probability of class 1, or the value; raise `RequestError` where there is none."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class CompiledPredictor:
    """A compiled model in this process: tens of microseconds, so it simply runs.

    Parameters
    ----------
    bundle
        A loaded release whose backend is ``onnx``.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._matrix = bundle.matrix_input and bundle.contract.numeric
        self._model = bundle.model

    async def predict(self, vectors: Vectors) -> NDArray[np.float64]:
        """Return the probability of class 1, or the value, as float64 of shape (n,)."""
        try:
            if self._matrix and vectors.matrix is not None:
                if vectors.finite and isinstance(self._model, OnnxModel):
                    return self._model.predict_matrix(vectors.matrix)  # nothing that a bundle could refuse
                return self._bundle.predict_matrix(vectors.matrix)
            return self._bundle.predict(vectors.frame)
        except ModelError as error:
            raise value_refused(error.what, error.next_step) from error

    def close(self) -> None:
        """Nothing to give back: the session ends with its last user."""


def value_refused(what: str, next_step: str) -> RequestError:
    """Return the error for a row that the model does not take."""
    return RequestError(422, "value-refused", what, where="$", next_step=next_step)
