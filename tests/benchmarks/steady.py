"""Sends requests to an HTTP server at a steady rate, from a process of its own; each is timed from when it was due."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from typing import NamedTuple
from urllib.parse import urlsplit

CONNECTIONS, TICK = 16, 0.001
_WARM = 2.0  # seconds that are not counted: connections are opened
_OVER = 0.05  # seconds: more are too many for an answer
_LATE = 1.0  # seconds after which requests that a machine could not send in time are left out


class Steady(NamedTuple):
    """What came back.

    Attributes
    ----------
    answered, failed
        Answers, and those of them that are not 200.
    p50_ms, p99_ms, p999_ms, worst_ms
        From the moment a request was due to its answer.
    stalled_ms
        The longest that the loader's own clock was late: no server can be blamed for that.
    over
        Answers after more than 50 ms.
    seconds_over
        Seconds of the load in which an answer of those was due: a machine that takes a processor away for a moment
        makes hundreds of answers late, all in one second.
    """

    answered: int
    failed: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    worst_ms: float
    stalled_ms: float
    over: int
    seconds_over: int


def begin(url: str, body: bytes, *, per_second: int, seconds: float, key: str) -> subprocess.Popen[str]:
    """Start to load; `result` waits for the end."""
    command = [sys.executable, __file__, url, body.decode(), str(per_second), str(seconds), key]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Steady:
    """Wait for the end and return what came back."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return Steady(*json.loads(said))


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request on its way."""

    def __init__(self, loader: _Loader) -> None:
        self._loader, self._due, self._held = loader, 0.0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # one of uvloop's own
        self._loader.idle.append(self)

    def send(self, due: float) -> None:
        self._due = due
        self._transport.write(self._loader.request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, rest = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(rest) < int(length or 0):
            return
        ok, self._held = self._held.startswith(b"HTTP/1.1 200"), b""
        self._loader.answered(self._due, ok=ok)
        self._loader.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._loader.ended:
            self._loader.lost += 1


class _Loader:
    def __init__(self, url: str, body: bytes, key: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        head = f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.request = head.encode() + body
        self.idle: deque[_Connection] = deque()  # in turn: one that rests for seconds is closed by the server
        self.spent: list[float] = []
        self.over: list[float] = []  # when they were due
        self.failed, self.lost, self.ended = 0, 0, False

    def answered(self, due: float, *, ok: bool) -> None:
        self.failed += not ok
        spent = time.perf_counter() - due
        self.spent.append(spent)
        if spent > _OVER:
            self.over.append(due)

    async def run(self, per_second: int, seconds: float) -> Steady:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        await self._send(per_second, _WARM)
        self.spent.clear()
        self.over.clear()
        stalled = await self._send(per_second, seconds)
        self.ended = True
        ms = sorted(1000 * one for one in self.spent)
        p50, p99, p999, worst = (ms[int(share * (len(ms) - 1))] for share in (0.5, 0.99, 0.999, 1))
        over, seconds_over = len(self.over), len({int(due) for due in self.over})
        return Steady(len(ms), self.failed + self.lost, p50, p99, p999, worst, 1000 * stalled, over, seconds_over)

    async def _send(self, per_second: int, seconds: float) -> float:
        start, sent, stalled = time.perf_counter(), 0, 0.0
        now = start
        while sent < per_second * seconds and not self.lost and now < start + seconds + _LATE:
            now = time.perf_counter()
            # Where all connections wait, the next request is late, and its time counts from when it was due.
            while self.idle and sent < min((now - start) * per_second, per_second * seconds):
                self.idle.popleft().send(start + sent / per_second)
                sent += 1
            await asyncio.sleep(TICK)
            stalled = max(stalled, time.perf_counter() - now - TICK)
        until = time.perf_counter() + 10
        while len(self.idle) < CONNECTIONS and not self.lost and time.perf_counter() < until:
            await asyncio.sleep(TICK)
        return stalled


def _main(url: str, body: str, per_second: str, seconds: str, key: str) -> None:
    import uvloop

    found = uvloop.run(_Loader(url, body.encode(), key).run(int(per_second), float(seconds)))
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
