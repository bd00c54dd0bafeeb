"""Forty days of one room: a daily wave."""

import numpy as np

START = np.datetime64("2024-03-01T03:00:00", "us")
COUNT = 40 * 8


def readings():
    """Rows of the source ``readings``."""
    hours = np.arange(COUNT) * 3
    noise = np.random.default_rng(7).normal(0, 0.3, COUNT)
    degrees = 20 + 5 * np.sin(hours / 24 * 2 * np.pi) + noise
    return {"ts": START + hours.astype("timedelta64[h]"), "room": np.full(COUNT, "attic"), "degrees": degrees}
