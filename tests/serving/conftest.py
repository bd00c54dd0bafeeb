"""Workers over tiny projects, and a caller of ASGI apps that needs no server."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT
from tests.serving import world
from windrow.serving.asgi import WindrowMiddleware
from windrow.serving.keys import make_key
from windrow.serving.local_key import local_key
from windrow.serving.run import Running, connection, start
from windrow.serving.worker import Worker
from windrow.settings import Settings
from windrow.stores.metadata import Metadata


class Answered(NamedTuple):
    """What an ASGI app sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Calls a middleware as a server would, with a key that may do everything."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.app = WindrowMiddleware(_nothing_inside, worker=worker)
        self.signed = signed(make_key_for(worker, "admin"))

    def __call__(self, method: str, path: str, body: Any = b"", **given: Any) -> Answered:
        """Send one request in an event loop of its own; see `ask`."""
        return asyncio.run(self.ask(method, path, body, **given))

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        chunks: Sequence[bytes] | None = None,
        length: str | None = None,
        kind: str | None = None,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
        **scope: Any,
    ) -> Answered:
        """Send one request; `headers` replace the key's, and `scope` is added to what the server says."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = [data] if chunks is None else list(chunks)
        sent = [(b"content-length", (length or str(len(data))).encode())] if chunks is None else []
        sent += [(b"content-type", kind.encode())] if kind is not None else []
        sent += self.signed if headers is None else headers
        address, _, query = path.partition("?")
        facts = {
            "type": "http",
            "method": method,
            "path": address,
            "query_string": query.encode(),
            "headers": sent,
            "client": ("127.0.0.1", 50000),
        }
        return await self._call({**facts, **scope}, parts)

    def predict(self, body: Any, service: str = "fraud") -> Answered:
        return self("POST", f"/v1/{service}/predict", body)

    async def _call(self, scope: dict[str, Any], parts: list[bytes]) -> Answered:
        waiting = [{"type": "http.request", "body": p, "more_body": i + 1 < len(parts)} for i, p in enumerate(parts)]
        sent: list[Any] = []

        async def receive() -> Any:
            if not waiting:
                await asyncio.sleep(30)
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answered(sent[0]["status"], found, b"".join(message["body"] for message in sent[1:]))


async def _nothing_inside(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the middleware must answer every HTTP request itself")


def signed(key: str) -> list[tuple[bytes, bytes]]:
    """The header that shows a key."""
    return [(b"authorization", f"Bearer {key}".encode())]


def make_key_for(worker: Worker, *scopes: str, **options: Any) -> str:
    """Make a key with these scopes that `worker` knows at once."""
    metadata = Metadata(worker.settings.metadata)
    _, key = make_key(metadata, "test", scopes=scopes, **options)
    metadata.close()
    worker.guard.keyring.refresh()
    return key


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def settings_in(folder: Path) -> Settings:
    """Settings whose every writable place is under `folder`."""
    return Settings.read({"WINDROW_HOME": str(folder / "home"), "WINDROW_DATA": str(folder / "no-data")})


@pytest.fixture(scope="session")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """One running worker with the service fraud (ONNX), shared: for tests that change nothing but the log."""
    settings = settings_in(tmp_path_factory.mktemp("fraud"))
    world.publish(settings)
    world.release_fraud(settings)
    yield from _running(settings)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Caller]:
    """A running worker of this test's own, with nothing released."""
    settings = settings_in(tmp_path)
    world.publish(settings)
    yield from _running(settings, ready=False)


@dataclass
class Served:
    """A running service, asked with the key of this machine; and a connection to it that stays open."""

    settings: Settings
    running: Running

    def connect(self) -> http.client.HTTPConnection:
        return connection(self.running.url, cert=self.settings.tls_cert, timeout=10)

    def __call__(
        self, method: str, path: str, body: Any = None, connection: Any = None, *, key: str | None = None
    ) -> tuple[int, Any]:
        used = connection or self.connect()
        shown = local_key(self.settings) if key is None else key
        headers = {"authorization": f"Bearer {shown}"} if shown else {}
        used.request(method, path, None if body is None else json.dumps(body), headers)
        answer = used.getresponse()
        data = answer.read()
        if connection is None:
            used.close()
        is_json = "json" in (answer.headers["content-type"] or "")
        return answer.status, json.loads(data) if is_json else data.decode()


def settings_for(folder: Path) -> Settings:
    return Settings.read(
        {"WINDROW_HOME": str(folder / "home"), "WINDROW_DATA": str(folder), "WINDROW_PROJECT": str(ROOT)}
    )


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = settings_for(tmp_path_factory.mktemp("served"))
    world.publish(settings)
    world.release_fraud(settings)
    local_key(settings)  # before: a service that runs learns of a key with its next look
    with start(settings) as running:
        yield Served(settings, running)


def _running(settings: Settings, *, ready: bool = True) -> Iterator[Caller]:
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready if ready else worker.live.loaded)
    yield Caller(worker)
    worker.close()
