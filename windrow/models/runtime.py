"""The ways a model answers: an ONNX Runtime session, trees in treelite, or scikit-learn itself.

Only what a request needs is imported at the top; scikit-learn, skops and pandas come with `SklearnModel`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError, listed
from windrow.features.contract import Contract, Frame, matrix
from windrow.models.forest import TreeliteModel
from windrow.models.release import Backend, Task
from windrow.models.trusted import check_archive, check_types

Layout = Literal["matrix", "columns"]
MATRIX_INPUT = "inputs"


class Model(Protocol):
    """Answers a canonical frame of n rows with float64 of shape (n,), or (n, classes) for three classes or more."""

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return the probability of class 1, of each class, or the value."""
        ...


class OnnxModel:
    """A compiled model in ONNX Runtime, on the CPU.

    Parameters
    ----------
    payload
        Bytes of the ONNX file.
    contract
        Names and order of the inputs.
    layout
        ``matrix``: one float32 input of shape (n, features); ``columns``: one (n, 1) input per column.
    threads
        One, so that requests do not wait for each other's threads; more for batches.
    """

    def __init__(self, payload: bytes, contract: Contract, *, task: Task, layout: Layout, threads: int = 1) -> None:
        self.layout = layout
        self._task = task
        self._session = _session(payload, threads)
        self._inputs = _inputs(self._session, contract, layout)
        self._outputs = [self._session.get_outputs()[-1].name]

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return the probability of class 1, of each class, or the value, as float64."""
        if self.layout == "matrix":
            return self.predict_matrix(matrix(frame))
        return self._run({name: frame[name].reshape(-1, 1) for name in self._inputs})

    @property
    def session(self) -> Any:
        """The ONNX Runtime session, for callers that bind its input and output themselves."""
        return self._session

    def predict_matrix(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Answer a float32 matrix of shape (n, features), where the layout is ``matrix``."""
        return self._run({MATRIX_INPUT: inputs})

    def _run(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        try:
            made = self._session.run(self._outputs, feed)[0]
        except Exception as error:  # noqa: BLE001 - the runtime raises pybind classes that share no public base
            raise _refused(error) from error
        return _answers(made, self._task)


class SklearnModel:
    """The fitted estimator itself; loads pandas and scikit-learn."""

    layout: Layout = "columns"

    def __init__(self, estimator: Any, *, task: Task) -> None:
        self.estimator = estimator
        self._task = task

    @classmethod
    def load(cls, payload: bytes, *, task: Task, where: str) -> SklearnModel:
        """Read a skops file whose hash was checked; refuse types that are not on our list."""
        check_archive(payload, where=where)
        from skops.io import get_untrusted_types, loads

        try:
            found = get_untrusted_types(data=payload)
        except Exception as error:  # noqa: BLE001 - a file made to harm can fail anywhere in the parser
            raise ModelError(
                f"{where} is not a skops file ({type(error).__name__})",
                next_step="train again; do not edit files of a release",
            ) from error
        trusted = check_types(found, where=where)
        try:
            return cls(loads(payload, trusted=trusted), task=task)
        except Exception as error:  # noqa: BLE001 - as above, and packages of other versions raise what they like
            raise ModelError(
                f"{where} cannot be loaded here: {type(error).__name__}: {str(error)[:200]}",
                next_step="install the versions in its environment.txt, or train again",
            ) from error

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return the probability of class 1, of each class, or the value, as float64.

        Raises
        ------
        ModelError
            If the estimator refuses a row.
        """
        from windrow.features.arrow import to_pandas

        inputs = to_pandas(frame)
        try:
            number = self._task == "regression"
            made = self.estimator.predict(inputs) if number else self.estimator.predict_proba(inputs)
            return _answers(np.asarray(made), self._task)
        except (ValueError, TypeError) as error:
            raise _refused(error) from error


class Way(NamedTuple):
    """How a model file is to be read."""

    backend: Backend
    layout: Layout
    task: Task


def open_model(
    way: Way, payload: bytes, contract: Contract, *, threads: int = 1, where: str = "the model file"
) -> Model:
    """Return a model from the bytes of its file, whose hash was checked."""
    if way.backend == "onnx":
        return OnnxModel(payload, contract, task=way.task, layout=way.layout, threads=threads)
    if way.backend == "treelite":
        return TreeliteModel(payload, contract, task=way.task, threads=threads)
    return SklearnModel.load(payload, task=way.task, where=where)


def single(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one number a row: the answer itself, or the place of the most likely of three classes or more.

    Examples
    --------
    >>> single(np.array([[0.2, 0.5, 0.3]]))
    array([1.])
    """
    return answers if answers.ndim == 1 else answers.argmax(axis=1).astype(np.float64)


@contextmanager
def few_threads() -> Iterator[None]:
    """Let native code (OpenMP, BLAS) use half of the cores.

    Threads that share a core with another process wait for each other: histogram boosting on two busy
    cores took 15 times as long with two threads as with one.
    """
    with _native(len(sys.modules)).limit(limits=batch_threads()):
        yield


@lru_cache(maxsize=1)
def _native(imported: int) -> Any:
    """Return threadpoolctl's hold on the native libraries of this process; new ones come with imports.

    Looking for them takes 4 ms, which is a twentieth of 100,000 rows through gradient boosting.
    """
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def batch_threads() -> int:
    """Return how many native threads a batch may use: half of the cores."""
    return max(1, (os.cpu_count() or 1) // 2)


def _answers(made: NDArray[Any], task: Task) -> NDArray[np.float64]:
    """Take what is asked from a model's output of shape (n,), (n, 1) or (n, classes)."""
    if task == "multiclass" or made.ndim == 1:
        return np.asarray(made, dtype=np.float64)
    return np.asarray(made[:, -1], dtype=np.float64)


def _session(payload: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # a refused row is our error to report, not a line on stderr
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the runtime raises pybind classes that share no public base
        raise ModelError(
            f"ONNX Runtime cannot load the model: {str(error)[:200]}", next_step="train again in this environment"
        ) from error


def _inputs(session: Any, contract: Contract, layout: Layout) -> list[str]:
    expected = [MATRIX_INPUT] if layout == "matrix" else list(contract.feature_names)
    found = [i.name for i in session.get_inputs()]
    # A column that the model ignores need not be an input of the graph.
    if not set(found) <= set(expected):
        raise ModelError(
            f"the compiled model asks for {listed(found)}, which are not the inputs of view {contract.view!r}",
            next_step="train again",
        )
    return found


def _refused(error: Exception) -> ModelError:
    reason = str(error).partition("\n")[0][:200]
    return ModelError(
        f"the model refuses a row: {reason}", next_step="fill the value before the model, or train one that takes it"
    )
