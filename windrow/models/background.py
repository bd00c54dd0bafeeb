"""What a release carries so that its answers can be explained: training rows to compare with, and where features come from.

The rows are model inputs without labels, keys or times, as golden pairs are. They are derived data: forgetting an
entity leaves them, as it leaves the model that learned from the entity; the next training draws others.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from windrow.errors import ModelError
from windrow.features.contract import Frame

FILE = "background.json"
ROWS = 200
FORMAT = 1

Values = dict[str, list[float | str | None]]


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """What explanations need besides the model.

    Attributes
    ----------
    rows
        Up to 200 rows of the training split, evenly spread: feature -> values, None where missing.
    origins
        Feature -> the source columns that its value is computed from, such as ``payments.amount``.
    immutable
        Features that nobody can act on: those that are keys, and those declared so.
    """

    rows: Values
    origins: dict[str, list[str]] = {}
    immutable: list[str] = []
    format: int = FORMAT


def sampled(frame: Frame) -> Values:
    """Return up to 200 rows of canonical arrays, evenly spread, as plain values.

    Examples
    --------
    >>> sampled({"x": np.array([1.0, np.nan], dtype=np.float32)})
    {'x': [1.0, None]}
    """
    rows = len(next(iter(frame.values())))
    picked = np.unique(np.linspace(0, rows - 1, min(ROWS, rows)).astype(int))
    return {name: _plain(values[picked]) for name, values in frame.items()}


def read_background(data: bytes, *, where: str) -> Background:
    """Read the file of a release; raise `ModelError` if it is none, or of a newer windrow.

    Examples
    --------
    >>> read_background(b'{"rows": {"x": [1.0, null]}}', where="background.json").rows
    {'x': [1.0, None]}
    """
    try:
        found = msgspec.json.decode(data, type=Background)
    except msgspec.MsgspecError as error:
        raise ModelError(f"{where} cannot be read: {error}", next_step="train again") from None
    if found.format > FORMAT:
        raise ModelError(
            f"{where} is of format {found.format}, and this windrow reads {FORMAT}",
            next_step="upgrade windrow to the version that wrote it",
        )
    return found


def _plain(values: Any) -> list[float | str | None]:
    if values.dtype == object:
        return list(values)
    return [float(value) if np.isfinite(value) else None for value in values]
