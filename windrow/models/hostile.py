"""Rows that a compiled model is likely to get wrong: missing, infinite and extreme numbers, categories never seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError
from windrow.features.contract import MISSING_TEXT, Frame
from windrow.models.runtime import Model

NUMBERS = {
    "missing": np.nan,
    "infinite": np.inf,
    "negative infinite": -np.inf,
    "large": 1e30,
    "small": -1e30,
    "zero": 0.0,
}
TEXTS = {"missing text": MISSING_TEXT, "unseen": "(never seen before)", "empty text": ""}

Refused = dict[str, list[str]]


def kinds_of(values: NDArray[Any]) -> dict[str, float] | dict[str, str]:
    """Return kind -> hostile value for a canonical column.

    Examples
    --------
    >>> sorted(kinds_of(np.array(["a"], dtype=object)))
    ['empty text', 'missing text', 'unseen']
    """
    return TEXTS if values.dtype == object else NUMBERS


def probe(model: Model, frame: Frame) -> Refused:
    """Return kind -> columns for which the model raises instead of answering.

    Parameters
    ----------
    model
        The original.
    frame
        Ordinary rows; each gets one hostile value in one column at a time.
    """
    refused: Refused = {}
    base = ordinary(frame)
    for kind in (*NUMBERS, *TEXTS):
        takers = [name for name, values in frame.items() if kind in kinds_of(values)]
        if not takers or answers(model, _stacked([planted(base, name, kind) for name in takers])):
            continue
        refused[kind] = [name for name in takers if not answers(model, planted(base, name, kind))]
    return refused


def answers(model: Model, frame: Frame) -> bool:
    """Whether the model answers these rows (rather than raising)."""
    try:
        with np.errstate(all="ignore"):
            model.predict(frame)
    except ModelError:
        return False
    return True


def ordinary(frame: Frame) -> Frame:
    """Return two rows of ordinary values: finite numbers that the data have, text that they have.

    Examples
    --------
    >>> ordinary({"x": np.array([np.nan, 4.0], dtype="float32")})
    {'x': array([4., 4.], dtype=float32)}
    """
    return {name: _two(values) for name, values in frame.items()}


def planted(frame: Frame, column: str, kind: str) -> Frame:
    """Return the first two rows with a hostile value in one column."""
    made = {name: values[:2].copy() for name, values in frame.items()}
    made[column][:] = kinds_of(frame[column])[kind]
    return made


def hostile_rows(frame: Frame, refused: Refused, *, mixed: int = 1_000, seed: int = 0) -> Frame:
    """Return rows with every hostile value that is not refused: alone, in all columns at once, and mixed.

    Parameters
    ----------
    frame
        Ordinary rows to plant into.
    refused
        What the original does not answer, from `probe`.
    mixed
        Rows in which about a third of the values are hostile, each of another kind.
    """
    allowed = {name: _allowed(name, values, refused) for name, values in frame.items()}
    alone = [planted(frame, name, kind) for name, kinds in allowed.items() for kind in kinds]
    everywhere = [_everywhere(frame, allowed, kind) for kind in (*NUMBERS, *TEXTS)]
    return _stacked(
        [*alone, *everywhere, _shouted(frame, allowed), _mixed(frame, allowed, mixed, np.random.default_rng(seed))]
    )


def boundary_rows(model: Model, frame: Frame, *, per_column: int = 16, seed: int = 0) -> Frame:
    """Return pairs of rows that differ by one float32 step in one column, where the model's answer jumps.

    A tree behind a scaler compares float64 in scikit-learn and float32 in ONNX: both agree almost
    everywhere and are far apart exactly at the splits, which random rows seldom hit. The splits are
    found by bisection between two values that the data have.

    Parameters
    ----------
    model
        The original.
    frame
        Ordinary rows.
    per_column
        Bisections for each number column.
    """
    rng = np.random.default_rng(seed)
    columns = [name for name, values in frame.items() if values.dtype != object and np.isfinite(values).any()]
    if not columns:
        return {name: values[:0] for name, values in frame.items()}
    picked = rng.integers(0, len(next(iter(frame.values()))), per_column * len(columns))
    rows = {name: values[picked] for name, values in frame.items()}
    low, high = (np.concatenate([_draw(frame[c], per_column, rng) for c in columns]) for _ in range(2))
    where = {c: slice(i * per_column, (i + 1) * per_column) for i, c in enumerate(columns)}
    low, high = _bisected(model, rows, where, (_ordinal(low), _ordinal(high)))
    return _stacked([_with(rows, where, _float(low)), _with(rows, where, _float(high))])


def resampled(frame: Frame, rows: int, *, seed: int = 0) -> Frame:
    """Return `rows` rows: those of `frame`, then new ones with each column drawn by itself.

    Drawing the columns apart makes rows that the data do not have, from values that they do have. Of a
    frame with more rows, `rows` of them are taken, evenly spread.

    Examples
    --------
    >>> len(resampled({"x": np.arange(3, dtype="float32")}, 10)["x"])
    10
    """
    have, rng = len(next(iter(frame.values()))), np.random.default_rng(seed)
    if have >= rows:
        spread = np.linspace(0, have - 1, rows).astype(int)
        return {name: values[spread] for name, values in frame.items()}
    return {
        name: np.concatenate([values, values[rng.integers(0, have, rows - have)]]) for name, values in frame.items()
    }


def _two(values: NDArray[Any]) -> NDArray[Any]:
    finite = values if values.dtype == object else values[np.isfinite(values)]
    return np.resize(finite, 2) if len(finite) else np.zeros(2, dtype=values.dtype)


def _draw(values: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    finite = values[np.isfinite(values)]
    return finite[rng.integers(0, len(finite), count)]


def _ordinal(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number the float32 values in their order, so that neighbours differ by one."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(2**31) - bits, bits)


def _float(ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
    bits = np.where(ordinals < 0, -(2**31) - ordinals, ordinals)
    return bits.astype(np.int32).view(np.float32)


def _with(rows: Frame, where: dict[str, slice], values: NDArray[np.float32]) -> Frame:
    made = {name: column.copy() for name, column in rows.items()}
    for name, part in where.items():
        made[name][part] = values[part]
    return made


def _bisected(
    model: Model, rows: Frame, where: dict[str, slice], ends: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low, high = np.minimum(*ends), np.maximum(*ends)
    left = model.predict(_with(rows, where, _float(low)))
    while (high - low > 1).any():
        middle = (low + high) // 2
        jumped = _differ(model.predict(_with(rows, where, _float(middle))), left)
        low, high = np.where(jumped, low, middle), np.where(jumped, middle, high)
    return low, high


def _differ(found: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    differ = found != other
    return differ if differ.ndim == 1 else np.asarray(differ.any(axis=1))


def _allowed(name: str, values: NDArray[Any], refused: Refused) -> list[str]:
    return [kind for kind in kinds_of(values) if name not in refused.get(kind, [])]


def _everywhere(frame: Frame, allowed: dict[str, list[str]], kind: str) -> Frame:
    made = {name: values[:2].copy() for name, values in frame.items()}
    for name in frame:
        if kind in allowed[name]:
            made[name][:] = kinds_of(frame[name])[kind]
    return made


def _shouted(frame: Frame, allowed: dict[str, list[str]], rows: int = 100) -> Frame:
    """Write the data's own texts in capitals: what a model makes of case depends on the machine's language."""
    made = resampled(frame, rows, seed=2)
    texts = {n: v for n, v in made.items() if v.dtype == object and "unseen" in allowed[n]}
    return {**made, **{name: np.array([t.upper() for t in v], dtype=object) for name, v in texts.items()}}


def _mixed(frame: Frame, allowed: dict[str, list[str]], rows: int, rng: np.random.Generator) -> Frame:
    made = {name: values.copy() for name, values in resampled(frame, rows, seed=1).items()}
    for name, values in made.items():
        chosen = np.array([kinds_of(values)[k] for k in allowed[name]], dtype=values.dtype)
        if len(chosen):
            hit = rng.random(rows) < 1 / 3
            values[hit] = chosen[rng.integers(0, len(chosen), int(hit.sum()))]
    return made


def _stacked(frames: list[Frame]) -> Frame:
    return {name: np.concatenate([f[name] for f in frames]) for name in frames[0]}
