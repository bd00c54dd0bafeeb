"""What a project's definitions add to ``import dagster, ibis``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.harness import Row

_ROOT = Path(__file__).resolve().parents[2]
_BASE = "import dagster, ibis"
_BAR = 1.0
_ROUNDS = 5


def rows() -> list[Row]:
    """Alternate the two, so that a busy machine slows both."""
    pairs = [(_seconds(_BASE, ""), _seconds(_BASE, "import assets.definitions")) for _ in range(_ROUNDS)]
    base, added = median(a for a, _ in pairs), median(b for _, b in pairs)
    row = Row(
        name="definitions: added to import dagster, ibis",
        value=added,
        unit="s",
        against=_BASE,
        ratio=(base + added) / base,
        bar=f"<= {_BAR:g} s",
        holds=added <= _BAR,
        note=f"median of {_ROUNDS} fresh processes each",
    )
    return [row]


def _seconds(before: str, timed: str) -> float:
    """Return the seconds that `timed` takes in a new process after `before`; without `timed`, those of `before`."""
    first, second = (before, timed) if timed else ("pass", before)
    code = f"import time\n{first}\nbegin = time.perf_counter()\n{second}\nprint(time.perf_counter() - begin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)
