"""Two years of daily sales of 40 shops with a known truth.

Truth: loaves = the shop's size x (1, on Saturdays 1.5, on Sundays 0.5) + noise of a tenth of its size.
"""

import numpy as np

SHOPS, DAYS = 40, 730
START = np.datetime64("2024-01-01T00:00:00", "us")  # a Monday
NOISE = 0.1
BY_WEEKDAY = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 0.5])


def sales():
    """Rows of the source ``sales``."""
    random = np.random.default_rng(20240101)
    size = random.uniform(80, 400, SHOPS)
    shop, day = (grid.ravel() for grid in np.meshgrid(np.arange(SHOPS), np.arange(DAYS), indexing="ij"))
    loaves = size[shop] * (BY_WEEKDAY[day % 7] + random.normal(0, NOISE, shop.size))
    return {
        "shop_id": shop.astype(np.int64),
        "day": START + day * np.timedelta64(1, "D"),
        "loaves": np.round(loaves.clip(0), 1),
    }
