"""The whole rig over HTTP, log on, against a bare FastAPI handler and a plain `@bentoml.api` with scikit-learn on NumPy."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.benchmarks import rig
from tests.benchmarks.harness import Row
from tests.benchmarks.loader import Load, load
from windrow.serving.child import end_with_parent
from windrow.serving.local_key import local_key
from windrow.serving.run import free_port, start
from windrow.settings import Settings
from windrow.telemetry import switch_off

ROUNDS, SECONDS = 3, 3
CONNECTIONS = (1, 8, 32)
ROOT = Path(__file__).resolve().parents[2]

Loads = dict[tuple[str, int], list[Load]]


def rows() -> list[Row]:
    """Load the three servers in turn, several rounds; ratios are taken within a round, then their median."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        settings = Settings.read({"WINDROW_HOME": folder, "WINDROW_PROJECT": str(ROOT)})
        rig.build(settings)
        key = local_key(settings)
        urls = {
            "windrow": stack.enter_context(start(settings)).url + "/v1/fraud/predict",
            "fastapi": stack.enter_context(serving(lambda port: ["-m", "tests.benchmarks.peers", str(port)])),
            "bentoml": stack.enter_context(serving(_plain_bento)),
        }
        loads = _loaded(urls, key)
    return [*_throughput(loads), *_latency(loads), _against_bentoml(loads)]


def _loaded(urls: dict[str, str], key: str) -> Loads:
    loads: Loads = {}
    for url in urls.values():
        load(url, rig.BODY, connections=8, seconds=1, key=key)
    for _ in range(ROUNDS):
        for connections in CONNECTIONS:
            for name, url in urls.items():
                if name == "bentoml" and connections != 8:
                    continue
                loads.setdefault((name, connections), []).append(
                    load(url, rig.BODY, connections=connections, seconds=SECONDS, key=key)
                )
    failed = {key: sum(one.failed for one in found) for key, found in loads.items()}
    assert not any(failed.values()), failed
    return loads


def _throughput(loads: Loads) -> list[Row]:
    made = []
    for connections, bar in ((1, 2.0), (8, 4.0)):
        ratio = _ratio(loads, "fastapi", connections, "per_second")
        ours = median(one.per_second for one in loads["windrow", connections])
        name = f"http requests/s, {connections} connection{'s' if connections > 1 else ''}"
        made.append(
            Row(
                name=name,
                value=ours,
                unit="1/s",
                against="FastAPI + scikit-learn",
                ratio=ratio,
                bar=f">= {bar:g} x",
                holds=ratio >= bar,
                note=_note(),
            )
        )
    return made


def _latency(loads: Loads) -> list[Row]:
    made = []
    for connections in (8, 32):
        ratio = _ratio(loads, "fastapi", connections, "p99_ms")
        ours = median(one.p99_ms for one in loads["windrow", connections])
        made.append(
            Row(
                name=f"http p99, {connections} connections",
                value=ours,
                unit="ms",
                against="FastAPI + scikit-learn",
                ratio=ratio,
                bar="< 1 x",
                holds=ratio < 1,
                note=_note(),
            )
        )
    return made


def _against_bentoml(loads: Loads) -> Row:
    ratio = _ratio(loads, "bentoml", 8, "per_second")
    theirs = median(one.per_second for one in loads["bentoml", 8])
    return Row(
        name="http requests/s against plain BentoML, 8 connections",
        value=theirs,
        unit="1/s (theirs)",
        against="@bentoml.api + scikit-learn",
        ratio=ratio,
        bar=">= 6 x",
        holds=ratio >= 6,
        note=_note(),
    )


def _ratio(loads: Loads, peer: str, connections: int, what: str) -> float:
    pairs = zip(loads["windrow", connections], loads[peer, connections], strict=True)
    return float(median(getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs))


def _note() -> str:
    return f"median of {ROUNDS} rounds of {SECONDS} s; one worker each; ours checks the access key, reads LMDB, computes, logs and commits the log, theirs look values up in a dictionary"


def _plain_bento(port: int) -> list[str]:
    return ["-m", "bentoml", "serve", "tests.benchmarks.plain_bento:Plain", "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def serving(
    command: Callable[[int], list[str]], *, path: str = "/predict", body: bytes = rig.BODY, python: Path | None = None
) -> Iterator[str]:
    """Run a peer by the Python arguments that `command` makes for a port; give its URL once it answers `body`."""
    port = free_port()
    environ = dict(os.environ)
    switch_off(environ)
    process = subprocess.Popen(
        [str(python or sys.executable), *command(port)], env=environ, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}{path}"
    try:
        _wait(url, body, process)
        yield url
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _wait(url: str, body: bytes, process: subprocess.Popen[bytes]) -> None:
    address, deadline = urlsplit(url), time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "a peer ended while it was started"
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        try:
            connection.request("POST", address.path, body, {"content-type": "application/json"})
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
    raise TimeoutError(url)


if __name__ == "__main__":
    for row in rows():
        print(row.name, round(row.value, 2), row.unit, f"ratio {row.ratio:.2f}", row.bar, row.holds, file=sys.stdout)  # noqa: T201
