from __future__ import annotations

from typing import Any

import numpy as np


def age(at: Any, last_ts: Any) -> Any:
    return (at - last_ts) / np.timedelta64(1, "s")
