"""The stores that the contract suites run on: LMDB, Redis by TCP, Redis by its socket; all real, empty, of one test.

`NOT_YET` names what a backend cannot do yet: those tests are expected to fail, and fail the run when they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.contract.rows import Open
from tests.redis_server import RedisServer, redis_server
from windrow.stores.online.store import open_online

BACKENDS = ("lmdb", "redis", "redis-socket")
NOT_YET: dict[tuple[str, str], str] = {}  # (backend, test) -> why


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of this test alone."""
    backend = request.param
    if why := NOT_YET.get((backend, request.node.originalname)):
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
    if backend == "lmdb":
        return f"lmdb://{tmp_path}/online"
    server: RedisServer = request.getfixturevalue("server")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url if backend == "redis" else server.socket_url


@pytest.fixture
def open_writer(url: str) -> Open:
    return lambda: open_online(url, write=True)


@pytest.fixture
def open_reader(url: str) -> Open:
    return lambda: open_online(url)
