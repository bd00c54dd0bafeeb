"""Loads an HTTP server over keep-alive connections: wrk where it is installed, else a small loader in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit


class Load(NamedTuple):
    """Answers per second, median and 99th percentile of their milliseconds; `failed` counts all but 200."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def load(url: str, body: bytes, *, connections: int, seconds: float, key: str) -> Load:
    """POST `body` to `url`, with an access key, as fast as `connections` connections can."""
    if shutil.which("wrk"):
        return _wrk(url, body, connections, seconds, key=key)
    command = [sys.executable, __file__, url, body.decode(), str(connections), str(seconds), key]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Load(*json.loads(done.stdout))


def _wrk(url: str, body: bytes, connections: int, seconds: float, *, key: str) -> Load:
    with TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        lua = f"wrk.method = 'POST'\nwrk.body = [==[{body.decode()}]==]\nwrk.headers['Content-Type'] = 'application/json'\n"
        lua += f"wrk.headers['Authorization'] = 'Bearer {key}'\n"
        script.write_text(lua)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{int(seconds)}s", "--latency", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    p50, p99 = (re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", said) for share in (50, 99))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    if rate is None or p50 is None or p99 is None:
        raise RuntimeError(f"wrk said: {said[-500:]}")
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    half, most = (float(found[1]) * unit[found[2]] for found in (p50, p99))
    return Load(float(rate[1]), half, most, int(failed[1]) if failed else 0)


async def _own(url: str, body: bytes, connections: int, seconds: float, *, key: str) -> Load:
    address = urlsplit(url)
    head = f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    spent: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        until = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < until:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            spent.append(time.perf_counter() - begin)
            failed += not answer.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    half, most = (sorted(spent)[int(q * len(spent))] * 1000 for q in (0.5, 0.99))
    return Load(len(spent) / seconds, half, most, failed)


if __name__ == "__main__":
    found = asyncio.run(_own(sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), float(sys.argv[4]), key=sys.argv[5]))
    print(json.dumps(found))  # noqa: T201
