"""A hundred customers; who visits often returns."""

import numpy as np

COUNT = 120


def customers():
    """Rows of the source ``customers``."""
    number = np.arange(COUNT)
    return {"customer_id": number, "plan": np.where(number % 3 == 0, "gold", "plain"), "visits": number % 11}


def returned():
    """Rows of the source ``returned``."""
    back = customers()["customer_id"][(customers()["visits"] > 5)]
    days = np.timedelta64(1, "D") * (1 + back % 20)
    # Somebody else comes on the last day, so that every label is mature.
    ids = np.append(back, 1_000_000)
    times = np.append(np.datetime64("2024-01-31T00:00:00", "us") + days, np.datetime64("2024-03-31T00:00:00", "us"))
    return {"customer_id": ids, "ts": times}
