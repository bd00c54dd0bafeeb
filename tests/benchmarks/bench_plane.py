"""One prediction through the plane, in this process: look-up, on-demand function, ONNX, log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import rig
from tests.benchmarks.harness import Row, quantile
from windrow.serving.worker import Worker
from windrow.settings import Settings

CALLS, RUNS = 10_000, 3


def rows() -> list[Row]:
    """Measure p50 and p99 (the best of three runs: other processes only ever add)."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder})
        rig.build(settings)
        worker = started(settings)
        try:
            runs = [asyncio.run(_measured(worker)) for _ in range(RUNS)]
            many = asyncio.run(_many(worker))
        finally:
            worker.close()
    p50, p99 = (min(quantile(run, q) for run in runs) for q in (0.5, 0.99))
    note = (
        f"best of {RUNS} runs of {CALLS:,} requests; 2 keys, 4 raw values, 20 floats, LMDB, 100 trees in ONNX, log on"
    )
    return [
        Row(name="plane p50", value=p50, unit="us", bar="<= 60 us", holds=p50 <= 60, note=note),
        Row(name="plane p99", value=p99, unit="us", bar="<= 150 us", holds=p99 <= 150, note=note),
        Row(name="plane, 25 entities per request", value=many, unit="1/s", bar=">= 10,000 /s", holds=many >= 10_000, note="predictions per second of one worker"),
    ]  # fmt: skip


def started(settings: Settings) -> Worker:
    """Return a worker that answers."""
    worker = Worker(settings, committer=False)
    worker.start()
    deadline = time.monotonic() + 60
    while not worker.live.ready:
        assert time.monotonic() < deadline, worker.live.failures
        time.sleep(0.02)
    time.sleep(0.2)
    return worker


async def _measured(worker: Worker) -> list[float]:
    plane, clock = worker.plane, time.perf_counter_ns
    spent = []
    for i in range(CALLS + 500):
        begin = clock()
        await plane.predict("fraud", rig.BODY, request_id=plane.new_id())
        if i >= 500:
            spent.append((clock() - begin) / 1000)
    return spent


async def _many(worker: Worker) -> float:
    import json

    body = json.dumps({"rows": [{**rig.REQUEST, "card_id": i} for i in range(25)]}).encode()
    begin = time.perf_counter()
    for _ in range(400):
        await worker.plane.predict("fraud", body, request_id=worker.plane.new_id())
    return 400 * 25 / (time.perf_counter() - begin)


if __name__ == "__main__":
    for row in rows():
        print(Path(__file__).stem, row.name, round(row.value, 1), row.unit, row.bar, row.holds)  # noqa: T201
