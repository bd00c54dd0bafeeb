"""What experiments cost: dispatcher and log of one row, and requests with a shadow against the same without."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tests.benchmarks import rig
from tests.benchmarks.bench_plane import started
from tests.benchmarks.harness import Row, each, quantile
from windrow.models.experiment import Experiment, weighed
from windrow.models.registry import Registry
from windrow.serving.backbone import Answers
from windrow.serving.batch import Batch, Scored, divided, recorded
from windrow.serving.dispatcher import Dispatcher
from windrow.serving.live import LiveService
from windrow.serving.worker import Worker
from windrow.settings import Settings
from windrow.stores.log import LogWriter
from windrow.stores.metadata import Metadata

CALLS, RUNS, GAP = 2000, 3, 0.001  # seconds between two requests: a shadow works in between, as it does in life


def rows() -> list[Row]:
    """Measure both (the best of three runs: other processes only ever add)."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder})
        rig.build(settings)
        _second(settings)
        worker = started(settings)
        try:
            other = worker._loader.load("fraud-2")
            spent = _dispatched(worker, other, Path(folder))
            alone, beside = asyncio.run(_shadowed(worker, other))
        finally:
            worker.close()
    added = beside - alone
    return [
        Row(name="dispatcher + log, one row", value=spent, unit="us", bar="<= 20 us", holds=spent <= 20, note="p50; two experiments, two arms and a hold-out each, 20 floats"),
        Row(name="a shadow adds at p99", value=added, unit="us", against=f"{alone:.0f} us without", bar="<= 1,000 us", holds=added <= 1000, note=f"best of {RUNS} runs of {CALLS:,} requests, one each {GAP * 1000:g} ms; the same model, heard for each"),
    ]  # fmt: skip


def _second(settings: Settings) -> None:
    """Register the release again under another id: what it says does not matter here, what it costs does."""
    metadata = Metadata(settings.metadata)
    registry = Registry(metadata, settings.folder("releases"))
    first = registry.release("fraud-1")
    files = {name: (registry.path("fraud-1") / name).read_bytes() for name in first.files}
    registry.register(msgspec.structs.replace(first, id="fraud-2", number=2), files)
    metadata.close()


def _experiments() -> list[Experiment]:
    arms = weighed({"new": ("fraud-2", 0.5)})
    return [
        Experiment(service="fraud", name=f"trial_{i}", arms=arms, unit=("card_id",), holdout=0.05, layer=f"layer_{i}")
        for i in range(2)
    ]


def _dispatched(worker: Worker, other: LiveService, folder: Path) -> float:
    golden = worker.live.service("fraud")
    dispatcher: Dispatcher[LiveService] = Dispatcher(golden, _experiments(), {"fraud-2": other})
    read = golden.reader.read(rig.BODY)
    batch = Batch(golden, ["r1"], [0], read.values, [rig.NOW], rig.NOW, [1.0], time.perf_counter_ns())
    vectors = golden.transformer.vectors(batch.values, batch.times)
    with LogWriter(folder / "bench-log", "bench") as log:

        def once() -> None:
            (part,) = divided(batch, dispatcher)
            log.append(recorded(batch, Scored(part, Answers(vectors, [0.5], batch.begun, batch.begun), batch.begun)))

        return min(quantile(each(once, calls=CALLS), 0.5) for _ in range(RUNS))


async def _shadowed(worker: Worker, other: LiveService) -> tuple[float, float]:
    live = worker.live
    golden = live.service("fraud")
    watch = Experiment(service="fraud", name="watch", shadows=("fraud-2",))
    dispatchers = {
        "alone": Dispatcher(golden, [msgspec.structs.replace(_experiments()[0], arms=weighed({"new": ("fraud-2", 0.0)}))], {"fraud-2": other}),
        "beside": Dispatcher(golden, [watch], {"fraud-2": other}),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in dispatchers}
    for _ in range(RUNS):
        for name, dispatcher in dispatchers.items():
            live.dispatcher = lambda service, d=dispatcher: d  # type: ignore[method-assign, misc]
            found[name].append(quantile(await _measured(worker), 0.99))
    counts = worker.plane.shadows.counts
    assert counts["fraud", "fraud-2", "logged"] >= RUNS * CALLS // 2, counts
    return min(found["alone"]), min(found["beside"])


async def _measured(worker: Worker) -> list[float]:
    """Return what each request waited, from when it was due: what stands in its way before it begins counts."""
    plane, clock = worker.plane, time.perf_counter_ns
    spent = []
    due = clock() + int(GAP * 1e9)
    for _ in range(CALLS):
        while (left := (due - clock()) / 1e9) > 0:
            await asyncio.sleep(left if left > GAP / 4 else 0)
        await plane.predict("fraud", rig.BODY, request_id=plane.new_id())
        spent.append((clock() - due) / 1000)
        due += int(GAP * 1e9)
    await plane.shadows.drained()
    return spent


if __name__ == "__main__":
    for row in rows():
        print(Path(__file__).stem, row.name, round(row.value, 1), row.unit, row.against, row.bar, row.holds)  # noqa: T201
