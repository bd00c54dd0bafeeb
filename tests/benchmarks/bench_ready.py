"""A worker's start and its memory: seconds until it answers, and what stays in RAM before and under a steady load."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks import rig, steady
from tests.benchmarks.harness import Row
from tests.processes import processes_of
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings

STARTS, PER_SECOND, SECONDS = 3, 2_000, 15
ROOT = Path(__file__).resolve().parents[2]


def rows() -> list[Row]:
    """Start the service some times, and load it the last time."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder, "WINDROW_PROJECT": str(ROOT)})
        rig.build(settings)
        key, waited = local_key(settings), []
        for again in range(STARTS):
            begin = time.perf_counter()
            with start(settings) as running:
                waited.append(time.perf_counter() - begin)
                if again == STARTS - 1:
                    worker = worker_of(settings.home)
                    fresh = resident(worker)
                    load = steady.begin(f"{running.url}/v1/fraud/predict", rig.BODY, per_second=PER_SECOND, seconds=SECONDS, key=key)  # fmt: skip
                    found, held = steady.result(load), resident(worker)
    ready = median(waited)
    told = f"{found.answered:,} requests, {found.failed} failed; p50 {found.p50_ms:.2g}, p99 {found.p99_ms:.3g} ms from when each was due; the loader's own clock was {found.stalled_ms:.3g} ms late at worst"
    return [
        Row(name="ready after start", value=ready, unit="s", bar="<= 5 s", holds=ready <= 5, note=f"median of {STARTS} starts: /readyz answers 200"),
        Row(name="RSS of a worker, ready", value=fresh, unit="MiB", note="one service, 100 trees in ONNX; committer and supervisor not counted"),
        Row(name=f"RSS of a worker after {SECONDS} s at {PER_SECOND:,} requests/s", value=held, unit="MiB", against="ready", ratio=held / fresh),
        Row(name=f"slowest answer at {PER_SECOND:,} requests/s", value=found.worst_ms, unit="ms", bar="<= 50 ms", holds=found.worst_ms <= 50, note=told),
    ]  # fmt: skip


def worker_of(home: Path) -> int:
    """Return the process that answers for a home."""
    (worker,) = [id for id, command in processes_of(home).items() if "_bentoml_impl.worker" in command]
    return worker


def resident(process: int) -> float:
    """Return the MiB of a process that are in RAM."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    for row in rows():
        print(row.name, round(row.value, 1), row.unit, row.bar, row.holds, row.note)  # noqa: T201
