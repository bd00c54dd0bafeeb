"""The first request that a user sends to a worker just started, beside those that follow it."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks import rig
from tests.benchmarks.harness import Row
from windrow.serving.local_key import local_key
from windrow.serving.run import connection, start
from windrow.settings import Settings

STARTS, REQUESTS, PAUSES, PAUSE = 20, 400, 20, 0.02
ROOT = Path(__file__).resolve().parents[2]


def rows() -> list[Row]:
    """Start the service again and again, each time with the log of the times before."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder, "WINDROW_PROJECT": str(ROOT)})
        rig.build(settings)
        key, seen = local_key(settings), []
        for _ in range(STARTS + 1):
            with start(settings) as running:
                seen.append(_asked(running.url, key))
    seen = seen[1:]  # the first start found no log
    first, usual, rested = (median(one[part] for one in seen) for part in range(3))
    told = f"median of {STARTS} restarts, the slowest {max(one[0] for one in seen):.2f} ms; a new connection each time, after a readiness probe on another"
    return [
        Row(
            name="first request after a start", value=first, unit="ms", against=f"p50 of the next {REQUESTS}: {usual:.2f} ms",
            ratio=first / usual, bar="<= 2 x", holds=first <= 2 * usual, note=told,
        ),
        Row(
            name="the same, after a pause as long", value=first, unit="ms", against=f"p50 after {1000 * PAUSE:.0f} ms of nothing: {rested:.2f} ms",
            ratio=first / rested, note="a machine that idles takes its time to wake up, however warm the worker is",
        ),
    ]  # fmt: skip


def _asked(url: str, key: str) -> tuple[float, float, float]:
    """Return milliseconds: of the first request, the median of those that follow at once, and of those after pauses."""
    caller, headers = connection(url), {"authorization": f"Bearer {key}", "content-type": "application/json"}
    caller.request("GET", "/readyz")  # as who watches a worker does: this caller's own code is not measured cold
    caller.getresponse().read()
    caller.close()
    first = _spent(caller, headers)
    usual = median(_spent(caller, headers) for _ in range(REQUESTS))
    rested = []
    for _ in range(PAUSES):
        caller.close()
        time.sleep(PAUSE)
        rested.append(_spent(caller, headers))
    caller.close()
    return first, usual, median(rested)


def _spent(caller: HTTPConnection, headers: dict[str, str]) -> float:
    if caller.sock is None:
        caller.connect()
    begin = time.perf_counter()
    caller.request("POST", "/v1/fraud/predict", rig.BODY, headers)
    answer = caller.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    return (time.perf_counter() - begin) * 1000
