"""What a project's definitions add to ``import dagster, ibis``, from the second load on.

The first one compiles Python's modules to bytecode and reads the lineage off; both are kept. A machine that
forbids Python to write bytecode (``PYTHONDONTWRITEBYTECODE``) pays for that part again at every start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.harness import Row
from windrow.discover import groups, services
from windrow.settings import Settings
from windrow.stores.metadata import Metadata

_ROOT = Path(__file__).resolve().parents[2]
_BASE, _OURS = "import dagster, ibis", "import assets.definitions"
_BAR, _ROUNDS = 1.0, 5
_DAY = 86_400_000_000


def rows() -> list[Row]:
    """On an empty machine, and where every source and group was materialised (partitions, version checks)."""
    with TemporaryDirectory() as folder:
        empty, used = Path(folder, "empty"), Path(folder, "used")
        _record(used)
        return [_row("on an empty machine", empty), _row("with data", used)]


def _row(name: str, home: Path) -> Row:
    _seconds("pass", _OURS, home)
    # In turns, so that a busy machine slows both.
    pairs = [(_seconds("pass", _BASE, home), _seconds(_BASE, _OURS, home)) for _ in range(_ROUNDS)]
    base, added = median(a for a, _ in pairs), median(b for _, b in pairs)
    return Row(
        name=f"definitions {name}: added to {_BASE}",
        value=added,
        unit="s",
        against=_BASE,
        ratio=(base + added) / base,
        bar=f"<= {_BAR:g} s",
        holds=added <= _BAR,
        note=f"median of {_ROUNDS} fresh processes each, after a first one",
    )


def _record(home: Path) -> None:
    metadata, found = Metadata(Settings.read({"WINDROW_HOME": str(home)}).metadata), services(project=_ROOT)
    for source in {s.name for service in found.values() for s in service.sources}:
        metadata.record_span(source, first=0, last=1000 * _DAY, known=1000 * _DAY, rows=48_000)
    for group in groups(found.values()):
        metadata.record_definition(group.key, group.fingerprint, group.describe())
    metadata.close()


def _seconds(before: str, timed: str, home: Path) -> float:
    code = f"import time\n{before}\nbegin = time.perf_counter()\n{timed}\nprint(time.perf_counter() - begin)"
    environ = {**os.environ, "WINDROW_HOME": str(home), "PYTHONPYCACHEPREFIX": str(home.parent / "bytecode")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, env=environ, capture_output=True, text=True, check=True
    )
    return float(done.stdout)
