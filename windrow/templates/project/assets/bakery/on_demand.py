"""Features computed in the request: NumPy and the standard library only, as releases carry this file."""

import numpy as np


def weekday_tomorrow(at):
    """Weekday (0 is Monday) of the day that is asked about; `at` is datetime64[us], shape (n,)."""
    days = at.astype("datetime64[D]").astype(np.int64)
    return (days + 4) % 7  # day 0 of the epoch was a Thursday, its tomorrow a Friday
