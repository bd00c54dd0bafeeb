"""On-demand functions of these tests: a module of their own, because a release keeps its text."""

from __future__ import annotations

import numpy as np


def distance(x, y):
    """How far apart two numbers are."""
    return np.abs(x - y)


def hour_of(at):
    """Hour of the day, UTC."""
    return at.astype("datetime64[h]").astype(np.int64) % 24


def shouted(shop):
    """A name in capitals; a missing one stays missing."""
    return np.array([s if s == "(missing)" else s.upper() for s in shop], dtype=object)
