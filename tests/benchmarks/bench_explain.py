"""Predictions of a worker while its side process makes explanations without a pause, against the same without."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import rig
from tests.benchmarks.bench_plane import started
from tests.benchmarks.harness import Row, quantile
from windrow.serving.explaining.messages import Question
from windrow.serving.worker import Worker
from windrow.settings import Settings

ROUNDS, CALLS, WAITING = 12, 1_000, 24


def rows() -> list[Row]:
    """Measure by turns, so that what else runs on the machine spoils both alike."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder})
        rig.build(settings)
        worker = started(settings)
        try:
            quiet, busy, seconds = asyncio.run(_by_turns(worker))
        finally:
            worker.close()
    ratios = {q: quantile(busy, q) / quantile(quiet, q) for q in (0.5, 0.99)}
    mean = (sum(busy) / len(busy)) / (sum(quiet) / len(quiet))
    note = f"{ROUNDS} turns of {CALLS:,} predictions through the plane each; anchors without a pause beside them"
    against = "the same without explanations"
    return [
        Row(name="predictions while explaining, mean", value=sum(busy) / len(busy), unit="us", against=against, ratio=mean, bar="<= 1.05 x", holds=mean <= 1.05, note=note),
        Row(name="predictions while explaining, p50", value=quantile(busy, 0.5), unit="us", against=against, ratio=ratios[0.5], bar="<= 1.05 x", holds=ratios[0.5] <= 1.05, note=note),
        Row(name="predictions while explaining, p99", value=quantile(busy, 0.99), unit="us", against=against, ratio=ratios[0.99], note=note),
        Row(name="an anchor, 20 features", value=seconds * 1000, unit="ms", note="in the side process of the lowest priority, on golden rows"),
    ]  # fmt: skip


async def _by_turns(worker: Worker) -> tuple[list[float], list[float], float]:
    quiet, busy = list[float](), list[float]()
    await asyncio.wrap_future(_asked(worker, 0))  # it is started and warm
    await _timed(worker)
    for turn in range(ROUNDS):
        quiet += await _timed(worker)
        asked = [_asked(worker, 1 + turn * WAITING + i) for i in range(WAITING)]
        busy += await _timed(worker)
        assert not asked[-1].done(), "the side process had nothing left to do"
        for answer in asked:
            await asyncio.wrap_future(answer)
    return quiet, busy, await _alone(worker)


async def _alone(worker: Worker) -> float:
    begin = time.perf_counter()
    for i in range(10):
        await asyncio.wrap_future(_asked(worker, 100_000 + i))
    return (time.perf_counter() - begin) / 10


def _asked(worker: Worker, number: int) -> Future[bytes]:
    names = worker.live.service("fraud").release.contract.feature_names
    vector = {name: (number * 37 + place * 11) % 29 / 10 - 1.4 for place, name in enumerate(names)}
    return worker.explainer.side.ask(Question(0, "explain", "fraud-1", "anchor", vector))  # type: ignore[arg-type]


async def _timed(worker: Worker) -> list[float]:
    plane, clock, spent = worker.plane, time.perf_counter_ns, list[float]()
    for _ in range(CALLS):
        begin = clock()
        await plane.predict("fraud", rig.BODY, request_id=plane.new_id())
        spent.append((clock() - begin) / 1000)
    return spent


if __name__ == "__main__":
    for row in rows():
        print(Path(__file__).stem, row.name, round(row.value, 1), row.unit, row.ratio, row.bar, row.holds)
