"""Answers on the wire, by the protocol that the service uses: uvicorn's server, real sockets, a small app."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from tests.conftest import ROOT
from windrow.serving.patience import PatientProtocol

BODY = b'{"answer":42}'
_POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"


async def _app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
    if scope["path"] == "/late":
        await asyncio.sleep(0.3)
    if scope["path"] == "/slow":
        await send({"type": "http.response.body", "body": BODY[:5], "more_body": True})
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": BODY[5:]})
    elif scope["path"] == "/broken":
        raise RuntimeError("no body after all")
    else:
        await send({"type": "http.response.body", "body": BODY})


@contextmanager
def serving() -> Iterator[int]:
    """Serve the small app; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(_app, http=PatientProtocol, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as found:
        yield found


@pytest.fixture
def client(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as found:
        yield found


def test_head_and_body_arrive_in_one_piece(client):
    for _ in range(50):
        client.sendall(_POST + b"\r\n{}")
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(BODY)


def test_an_answer_to_head_has_its_head(client):
    client.sendall(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.recv(65536).endswith(b"\r\n\r\n")
    client.sendall(_POST + b"\r\n{}")
    assert client.recv(65536).endswith(BODY)


def test_who_waits_to_be_asked_for_the_body_is_asked_at_once(client):
    client.sendall(_POST + b"expect: 100-continue\r\n\r\n")
    assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"{}")
    assert client.recv(65536).endswith(BODY)


def test_the_first_part_of_a_stream_does_not_wait_for_the_second(client):
    client.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.recv(65536).endswith(BODY[:5])
    assert client.recv(65536) == BODY[5:]


def test_a_head_does_not_wait_for_a_body_that_comes_later(client):
    client.sendall(b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.recv(65536).endswith(b"\r\n\r\n")
    assert client.recv(65536) == BODY


def test_an_answer_that_breaks_off_after_its_head_ends_the_connection(client):
    client.sendall(b"GET /broken HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert client.recv(65536) == b""


def left_by_requests(count: int) -> int:
    """Return how many objects `count` requests leave to the garbage collector."""

    def answered(times):
        for _ in range(times):
            client.sendall(_POST + b"\r\n{}")
            assert client.recv(65536).endswith(BODY)

    with serving() as port, socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        answered(10)
        gc.collect()
        gc.disable()
        answered(count)
        return gc.collect()


def test_requests_leave_nothing_to_the_garbage_collector():
    # In a process of their own: here the threads of other tests leave things too.
    code = f"from {__name__} import left_by_requests; print(left_by_requests(300))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert int(done.stdout) < 300
