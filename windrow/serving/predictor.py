"""The model behind a service: in this process when it is compiled, beside it when it is not."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, RequestError
from windrow.models.bundle import Bundle
from windrow.models.runtime import MATRIX_INPUT, OnnxModel
from windrow.serving.answers import Output
from windrow.serving.vectors import Vectors

DEADLINE = 0.8  # seconds: before BentoML's own time-out answers in our place


class Predictor(Protocol):
    """Answers vectors of n rows with n outputs."""

    async def predict(self, vectors: Vectors, seconds: float = DEADLINE) -> list[Output]:
        """Return the probability of class 1, of each class, or the value; raise `RequestError` where there is none.

        Who can be interrupted answers within `seconds` or raises.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class CompiledPredictor:
    """A compiled model in this process: tens of microseconds, so it simply runs.

    Parameters
    ----------
    bundle
        A loaded release whose backend is ``onnx`` or ``treelite``.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, model = bundle, bundle.model
        self._matrix = bundle.matrix_input and bundle.contract.numeric
        self._one: _OneRow | None = None
        if self._matrix and isinstance(model, OnnxModel) and bundle.release.task != "multiclass":
            self._one = _OneRow(model, len(bundle.contract.features))

    async def predict(self, vectors: Vectors, seconds: float = DEADLINE) -> list[Output]:
        """Return the probability of class 1, of each class, or the value, for each row; never interrupted."""
        matrix = vectors.matrix
        try:
            if matrix is None or not self._matrix:
                return _plain(self._bundle.predict(vectors.frame))
            if self._one is not None and len(vectors.finite) == 1 and vectors.finite[0]:
                return [self._one.predict(matrix)]  # a bundle refuses missing and infinite values only
            return _plain(self._bundle.predict_matrix(matrix))
        except ModelError as error:
            if all(vectors.finite):
                raise  # it takes such rows: what failed is the model
            raise value_refused(error.what, error.next_step) from error

    def close(self) -> None:
        """Nothing to give back: the session ends with its last user."""


class _OneRow:
    """One row through ONNX Runtime with input and output bound once: half the cost of an ordinary call.

    For one thread: the event loop's.
    """

    def __init__(self, model: OnnxModel, width: int) -> None:
        import onnxruntime

        session = model._session
        name = session.get_outputs()[-1].name
        self._input = np.zeros((1, width), dtype=np.float32)
        self._output = np.ascontiguousarray(session.run([name], {MATRIX_INPUT: self._input})[0])
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(MATRIX_INPUT, onnxruntime.OrtValue.ortvalue_from_numpy(self._input))
        self._binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(self._output))
        self._place = self._output.size - 1  # the probability of class 1, or the only value
        # The runtime's own call without its Python wrapper, which asks about devices every time.
        self._run, self._bound = session._sess.run_with_iobinding, self._binding._iobinding
        # None would do, but then the runtime makes new options for every call: 5 of a request's microseconds.
        self._options = onnxruntime.RunOptions()

    def predict(self, matrix: NDArray[np.float32]) -> float:
        self._input[:] = matrix
        self._run(self._bound, self._options)
        answer: float = self._output.item(self._place)
        return answer


def value_refused(what: str, next_step: str) -> RequestError:
    """Return the error for a row that the model does not take."""
    return RequestError(422, "value-refused", what, where="$", next_step=next_step)


def _plain(outputs: NDArray[Any]) -> list[Output]:
    made: list[Output] = outputs.tolist()
    return made
