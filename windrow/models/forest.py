"""A model of trees as a file of its own: how its columns are prepared, and the trees as treelite keeps them.

Reading it needs NumPy, msgspec and treelite (which brings SciPy); nothing of scikit-learn or pandas.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError
from windrow.features.contract import Contract, Frame
from windrow.models.release import Task

FORMAT = 1


class Fill(msgspec.Struct, frozen=True, tag="fill"):
    """A missing number becomes `value`."""

    value: float

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the filled column, in its own dtype."""
        return np.where(np.isnan(values), values.dtype.type(self.value), values)


class Scale(msgspec.Struct, frozen=True, tag="scale"):
    """Less `shift`, divided by `width`: in the column's own dtype, as scikit-learn does it."""

    shift: float
    width: float

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the scaled column."""
        made = values.copy()
        made -= self.shift
        made /= self.width
        return made


class Place(msgspec.Struct, frozen=True, tag="place"):
    """A number becomes its place in `values` (ascending); another one is missing."""

    values: list[float]

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return float64 places."""
        known = np.array(self.values)
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        return np.where(known[places] == values, places, np.nan)


class Code(msgspec.Struct, frozen=True, tag="code"):
    """A text becomes its place in `categories`; another one becomes `unknown`."""

    categories: list[str]
    unknown: float

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return float64 codes."""
        places = {category: float(place) for place, category in enumerate(self.categories)}
        return np.array([places.get(value, self.unknown) for value in values], dtype=np.float64)


class Flag(msgspec.Struct, frozen=True, tag="flag"):
    """1 where a text is `category`, else 0."""

    category: str

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return float64 zeros and ones."""
        return np.asarray(values == self.category, dtype=np.float64)


Step = Fill | Scale | Place | Code | Flag


class Column(msgspec.Struct, frozen=True):
    """One input of the trees: a feature of the view, and what is done to it first."""

    feature: str
    steps: tuple[Step, ...] = ()


class Forest(msgspec.Struct, frozen=True):
    """The model file."""

    columns: list[Column]
    trees: bytes
    format: int = FORMAT


class TreeliteModel:
    """Trees in treelite's own interpreter: one thread, on the CPU.

    Parameters
    ----------
    payload
        Bytes of `Forest`, made by `encode_forest`.
    contract
        Names and order of the inputs.
    """

    layout: Literal["matrix", "columns"]

    def __init__(self, payload: bytes, contract: Contract, *, task: Task, threads: int = 1) -> None:
        forest = decode_forest(payload)
        self._trees, self._columns = _trees(forest), forest.columns
        self._task, self._threads = task, threads
        self._bare = [c.feature for c in forest.columns] == list(contract.feature_names) and not any(
            c.steps for c in forest.columns
        )
        self._names = contract.feature_names
        self.layout = "matrix" if contract.numeric else "columns"
        self._dtype = np.dtype(self._trees.input_type)

    def predict(self, frame: Frame) -> NDArray[np.float64]:
        """Return the probability of class 1, of each class, or the value, as float64."""
        made = np.empty((len(next(iter(frame.values()))), len(self._columns)), dtype=self._dtype)
        for place, column in enumerate(self._columns):
            values: NDArray[Any] = frame[column.feature]
            for step in column.steps:
                values = step.apply(values)
            made[:, place] = values
        return self._run(made)

    def predict_matrix(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Answer a float32 matrix of shape (n, features) in the contract's order."""
        if self._bare:
            return self._run(inputs)
        return self.predict(dict(zip(self._names, inputs.T, strict=True)))

    def _run(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        from treelite import gtil

        made = gtil.predict(self._trees, inputs, nthread=self._threads).reshape(len(inputs), -1)
        return np.asarray(made if self._task == "multiclass" else made[:, -1], dtype=np.float64)


def encode_forest(columns: list[Column], trees: bytes) -> bytes:
    """Return the bytes of a model file.

    Examples
    --------
    >>> decode_forest(encode_forest([Column("plan", (Code(["a", "b"], -1.0),))], b"")).columns[0].feature
    'plan'
    """
    return msgspec.msgpack.encode(Forest(columns, trees))


def decode_forest(payload: bytes) -> Forest:
    """Read a model file.

    Raises
    ------
    ModelError
        If it is none, or one of a newer format.
    """
    try:
        forest = msgspec.msgpack.decode(payload, type=Forest)
    except msgspec.MsgspecError as error:
        raise ModelError(f"the file is no model of trees: {error}", next_step="train again") from None
    if forest.format != FORMAT:
        raise ModelError(
            f"the model of trees is of format {forest.format}, and this windrow reads {FORMAT}",
            next_step="upgrade windrow to the version that wrote it",
        )
    return forest


def _trees(forest: Forest) -> Any:
    import treelite

    try:
        trees = treelite.Model.deserialize_bytes(forest.trees)
    except treelite.TreeliteError as error:
        raise ModelError(
            f"treelite cannot load the model: {str(error)[:200]}", next_step="train again in this environment"
        ) from None
    if trees.num_feature != len(forest.columns):
        raise ModelError(
            f"the trees take {trees.num_feature} inputs, the file prepares {len(forest.columns)}",
            next_step="train again",
        )
    return trees
