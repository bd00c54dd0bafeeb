"""A real Redis server of one test module: on a free port of the loopback and on a socket, in a folder of its own."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.needs import need


class RedisServer:
    """A running server; `url` is by TCP, `socket_url` by its socket, both with the password."""

    PASSWORD = "s3cret/word"  # noqa: S105 - of a server that lives for seconds

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options = folder, options
        self.port, self.path = _free_port(), folder / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:s3cret%2Fword@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://:s3cret%2Fword@{self.path}?db=0"

    def start(self) -> None:
        command = [
            str(need("redis-server")), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.path),
            "--dir", str(self.folder), "--requirepass", self.PASSWORD, "--save", "", "--daemonize", "no", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """Run a server until the end of the block; skips (or fails, in CI) where none is installed."""
    # A socket's path may have 107 characters: not in pytest's own deep folders.
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
