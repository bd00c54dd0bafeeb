"""What the cache of outputs adds and what it saves: of a compiled model, and of one in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from tests.benchmarks import rig
from tests.benchmarks.bench_plane import started
from tests.benchmarks.harness import Row
from tests.redis_server import redis_server
from windrow.models.cache import Cache
from windrow.models.policies import Policies
from windrow.models.release import Backend
from windrow.serving.worker import Worker
from windrow.settings import Settings

CALLS, ROUNDS = 3000, 9
_NEW = itertools.count(10)  # a number in float32 too, for the millions that are asked
OFF, ON = Policies(cache=None), Policies(cache=Cache(compiled=True))


def rows() -> list[Row]:
    """Measure requests whose vector was asked before, and those whose vector never was."""
    compiled_off, compiled_hit, added = *_compiled(), _added()
    beside_off, beside_hit = _beside(OFF), _beside(ON)
    with redis_server() as server:
        shared = _beside(ON, cache=server.url)
    note = f"median of {ROUNDS} rounds of {CALLS:,} requests through the plane, log on"
    return [
        Row(name="cache off, compiled model", value=compiled_off, unit="us", note=note),
        Row(name="cache on, compiled model, found", value=compiled_hit, unit="us", against="off", ratio=compiled_hit / compiled_off, note="off by default: there is little to save"),
        Row(name="what the cache adds, not found", value=added, unit="us", against="off", bar="<= 3 us", holds=added <= 3, note="to look, and to keep; each request a vector of its own"),
        Row(name="cache off, model in its own process", value=beside_off, unit="us", note=note),
        Row(name="cache on, model in its own process, found", value=beside_hit, unit="us", against="off", ratio=beside_hit / beside_off),
        Row(name="the same, kept on Redis", value=shared, unit="us", against="off", ratio=shared / beside_off),
    ]  # fmt: skip


def _added() -> float:
    """Return the microseconds that looking and keeping add, where no vector comes twice."""
    with _worker(OFF) as off, _worker(ON) as on:
        pairs = [[_round(worker, again=False, calls=CALLS) for worker in (off, on)] for _ in range(ROUNDS)]
    return median(with_cache - without for without, with_cache in pairs)


def _compiled() -> tuple[float, float]:
    """Return the microseconds of a request without the cache, and where its output is kept."""
    with _worker(OFF) as off, _worker(ON) as on:
        pairs = [[_round(worker, again=True, calls=CALLS) for worker in (off, on)] for _ in range(ROUNDS)]
    return median(without for without, _ in pairs), median(found for _, found in pairs)


def _beside(policies: Policies, *, cache: str = "") -> float:
    with _worker(policies, backend="sklearn", cache=cache) as worker:
        return median(_round(worker, again=True, calls=CALLS // 8) for _ in range(ROUNDS))


@contextmanager
def _worker(policies: Policies, *, backend: Backend = "onnx", cache: str = "") -> Iterator[Worker]:
    with TemporaryDirectory() as folder:
        settings = msgspec.structs.replace(Settings.read({"WINDROW_HOME": folder}), cache=cache)
        rig.build(settings, policies=policies, backend=backend)
        worker = started(settings)
        try:
            yield worker
        finally:
            worker.close()


def _bodies(*, again: bool) -> Iterator[bytes]:
    """Yield requests: the same ten again and again, or each with an amount that nobody had before."""
    numbers = itertools.cycle(range(10)) if again else _NEW
    return (json.dumps({**rig.REQUEST, "amount": number / 64}).encode() for number in numbers)


def _round(worker: Worker, *, again: bool, calls: int) -> float:
    """Return the median microseconds of a request."""
    return asyncio.run(_asked(worker, _bodies(again=again), calls))


async def _asked(worker: Worker, bodies: Iterator[bytes], calls: int) -> float:
    plane, clock, spent = worker.plane, time.perf_counter_ns, []
    for body in itertools.islice(bodies, calls):
        begin = clock()
        await plane.predict("fraud", body, request_id=plane.new_id())
        spent.append((clock() - begin) / 1000)
    return median(spent[calls // 10 :])


if __name__ == "__main__":
    for row in rows():
        print(Path(__file__).stem, row.name, round(row.value, 1), row.unit, row.bar, row.holds)  # noqa: T201
