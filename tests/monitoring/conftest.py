"""Samples of a small world whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from windrow.features.contract import Frame, text
from windrow.schema import Field

FIELDS = (
    Field("load", "float64"),
    Field("amount", "float64"),
    Field("gaps", "float64"),
    Field("flag", "bool"),
    Field("count", "int64"),
    Field("plan", "string"),
    Field("city", "string"),
)


def words(values: Sequence[Any]) -> NDArray[np.object_]:
    """Return canonical text of shape (n,)."""
    return text(list(values))


def draw_frame(rows: int, seed: int, *, shift: float = 0.0) -> Frame:
    """Draw `rows` customers; `shift` moves the load and the logarithm of the amount, in standard deviations."""
    rng = np.random.default_rng(seed)
    return {
        "load": rng.normal(shift, 1, rows).astype(np.float32),
        "amount": np.exp(1.5 * rng.normal(shift, 1, rows)).astype(np.float32),
        "gaps": np.where(rng.random(rows) < 0.5, np.nan, rng.normal(size=rows)).astype(np.float32),
        "flag": (rng.random(rows) < 0.1).astype(np.float32),
        "count": rng.poisson(4, rows).astype(np.float32),
        "plan": words(rng.choice(["basic", "plus", "pro"], rows, p=[0.6, 0.3, 0.1]).tolist()),
        "city": words([f"city-{i}" for i in np.minimum(rng.zipf(1.5, rows), 3000)]),
    }


@pytest.fixture
def fields() -> tuple[Field, ...]:
    return FIELDS


@pytest.fixture
def draw() -> Callable[..., Frame]:
    return draw_frame
