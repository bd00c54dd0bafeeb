"""An on-demand function of a clock's tick."""

import numpy as np


def hour(at):
    """Hour of the day, UTC."""
    return at.astype("datetime64[h]").astype(np.int64) % 24
