"""Long requests to one worker: rows/s as NDJSON and as Arrow, what single predictions feel of it, and 25 entities per request."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.benchmarks import rig
from tests.benchmarks.harness import Row
from tests.benchmarks.loader import load
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings

ROWS, ROUNDS, SECONDS, ENTITIES = 100_000, 3, 3, 25
ROOT = Path(__file__).resolve().parents[2]
NDJSON, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"


def rows() -> list[Row]:
    """Send 100k rows in each form, several rounds; then load the worker with single predictions, with and without a stream."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder, "WINDROW_PROJECT": str(ROOT)})
        rig.build(settings)
        key = local_key(settings)
        with start(settings) as running:
            rates = {kind: _rate(running.url, key, kind) for kind in (NDJSON, ARROW)}
            many = _many(running.url, key)
            alone, beside = _beside(running.url, key, Path(folder) / "rows")
    note = "median of 3 rounds of 100k rows from one client on the same machine; every row is looked up, computed and logged"
    ratio = beside / alone
    return [
        Row(name="bulk, NDJSON", value=rates[NDJSON], unit="rows/s", note=note),
        Row(name="bulk, Arrow", value=rates[ARROW], unit="rows/s", note=note),
        Row(name="single predictions' p99 during a bulk stream", value=beside, unit="ms", against="without", ratio=ratio),
        Row(
            name=f"predictions/s, {ENTITIES} entities per request, one worker",
            value=many,
            unit="1/s",
            bar=">= 10,000",
            holds=many >= 10_000,
            note="8 connections",
        ),
    ]  # fmt: skip


def _rate(url: str, key: str, kind: str) -> float:
    body = _body(ROWS, kind)
    _send(url, key, kind, body=body)
    return median(ROWS / _send(url, key, kind, body=body) for _ in range(ROUNDS))


def _body(count: int, kind: str) -> bytes:
    made = [{**rig.REQUEST, "card_id": i % rig.ENTITIES, "hour": float(i % 24)} for i in range(count)]
    if kind == NDJSON:
        return b"".join(json.dumps(row).encode() + b"\n" for row in made)
    import pyarrow as pa

    sink, table = io.BytesIO(), pa.Table.from_pylist(made)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    return sink.getvalue()


def _send(url: str, key: str, kind: str, *, body: bytes) -> float:
    """Send a body while reading its answer; return the seconds."""
    address = urlsplit(url)
    lines = (
        "POST /v1/fraud/batch HTTP/1.1",
        f"host: {address.netloc}",
        f"authorization: Bearer {key}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        "connection: close",
    )
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        begin, answer = time.perf_counter(), 0
        sender = threading.Thread(target=connection.sendall, args=("\r\n".join((*lines, "", "")).encode() + body,))
        sender.start()
        while part := connection.recv(1 << 18):
            answer += len(part)
        sender.join()
    assert answer > len(body), "the stream ended early"
    return time.perf_counter() - begin


def _many(url: str, key: str) -> float:
    body = json.dumps({"rows": [{**rig.REQUEST, "card_id": i} for i in range(ENTITIES)]}).encode()
    found = [load(f"{url}/v1/fraud/predict", body, connections=8, seconds=SECONDS, key=key) for _ in range(ROUNDS)]
    assert not any(one.failed for one in found)
    return ENTITIES * median(one.per_second for one in found)


def _beside(url: str, key: str, file: Path) -> tuple[float, float]:
    """Return the p99 in ms of single predictions on one connection: without a stream, and beside one."""
    file.write_bytes(_body(ROWS, NDJSON))
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(_p99(url, key))
        with _streaming(url, key, file):
            beside.append(_p99(url, key))
    return median(alone), median(beside)


def _p99(url: str, key: str) -> float:
    found = load(f"{url}/v1/fraud/predict", rig.BODY, connections=1, seconds=SECONDS, key=key)
    assert not found.failed
    return found.p99_ms


@contextmanager
def _streaming(url: str, key: str, file: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bench_bulk", url, key, str(file)], cwd=ROOT)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    while True:
        _send(sys.argv[1], sys.argv[2], NDJSON, body=Path(sys.argv[3]).read_bytes())
