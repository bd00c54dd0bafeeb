"""What clients do wrong, on purpose or not, to the real server: nobody waits for them, and nothing answers 500."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.serving.conftest import Served
from tests.serving.world import GOOD
from windrow.serving.local_key import local_key

pytestmark = pytest.mark.xdist_group("bento")

SOON = 10.0  # seconds in which a client that dribbles is closed
MANY = 20  # clients of each kind
BODY = json.dumps(GOOD).encode()


def dial(served: Served) -> socket.socket:
    address = urlsplit(served.running.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=2 * SOON)


def head(served: Served, *lines: str, path: str = "/v1/fraud/predict", method: str = "POST") -> bytes:
    key = local_key(served.settings)
    fixed = (
        f"{method} {path} HTTP/1.1",
        "host: here",
        f"authorization: Bearer {key}",
        "content-type: application/json",
    )
    return "\r\n".join((*fixed, *lines, "", "")).encode("latin-1")


def talk(served: Served, data: bytes, *, half_close: bool = False) -> bytes:
    """Send some bytes and return all that comes back until the server closes."""
    with closing(dial(served)) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    said = b""
    try:
        while part := connection.recv(1 << 16):
            said += part
    except ConnectionResetError:
        pass
    return said


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def problem_of(answer: bytes) -> str:
    said = answer.partition(b"\r\n\r\n")[2]
    kind: str = json.loads(said)["type"]
    return kind.rpartition(":")[2]


@contextmanager
def others_are_served(served: Served) -> Iterator[None]:
    """Predict all the while on a connection of its own; every answer is a 200, none takes seconds."""
    stop, seen = threading.Event(), list[tuple[int, float]]()

    def ask() -> None:
        with closing(served.connect()) as connection:
            while not stop.is_set():
                begin = time.monotonic()
                status, _ = served("POST", "/v1/fraud/predict", GOOD, connection)
                seen.append((status, time.monotonic() - begin))

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        yield
    finally:
        stop.set()
        caller.join()
    assert {status for status, _ in seen} == {200}
    assert max(seconds for _, seconds in seen) < 3


def dribble(connections: dict[socket.socket, bytes]) -> list[float]:
    """Send its piece on each connection four times a second until it is closed; return how many seconds each one lived."""
    begin, lived = time.monotonic(), dict[socket.socket, float]()
    while len(lived) < len(connections) and time.monotonic() - begin < 2 * SOON:
        for connection, piece in connections.items():
            if connection not in lived and _ended(connection, piece):
                lived[connection] = time.monotonic() - begin
        time.sleep(0.25)
    return [lived.get(connection, 2 * SOON) for connection in connections]


def _ended(connection: socket.socket, piece: bytes) -> bool:
    connection.setblocking(False)
    try:
        connection.send(piece)
        return _closed(connection)
    except (BrokenPipeError, ConnectionResetError):
        return True


def _closed(connection: socket.socket) -> bool:
    try:
        while part := connection.recv(1 << 16):
            del part
    except BlockingIOError:
        return False
    return True


def test_clients_that_never_come_to_an_end_are_closed_within_ten_seconds_while_others_are_served(
    served: Served,
) -> None:
    announced = head(served, "content-length: 100000")
    begun = {
        "says nothing": (b"", b""),
        "address without end": (b"GET /", b"a"),
        "headers without end": (b"POST /v1/fraud/predict HTTP/1.1\r\nhost: here\r\n", b"x-a: b\r\n"),
        "body without end": (announced, b" "),
        "body without end, silent": (announced, b""),
        "chunks without end": (head(served, "transfer-encoding: chunked"), b"1\r\n \r\n"),
        "body without end, refused at once": (announced.replace(b"authorization", b"x-other"), b" "),
    }
    connections = dict[socket.socket, bytes]()
    for first, piece in begun.values():
        for _ in range(MANY):
            connections[connection := dial(served)] = piece
            connection.sendall(first)
    with others_are_served(served):
        lived = dribble(connections)
    for connection in connections:
        connection.close()
    longest = {name: max(lived[i * MANY : (i + 1) * MANY]) for i, name in enumerate(begun)}
    assert {name: seconds for name, seconds in longest.items() if seconds >= SOON} == {}


def test_a_connection_between_two_requests_stays_open_a_while(served: Served) -> None:
    with closing(served.connect()) as connection:
        assert served("POST", "/v1/fraud/predict", GOOD, connection)[0] == 200
        time.sleep(2.5)  # longer than two looks at the connection
        kept = connection.sock
        assert served("POST", "/v1/fraud/predict", GOOD, connection)[0] == 200
        assert connection.sock is kept


def test_a_body_that_is_half_closed_is_given_up_at_once(served: Served) -> None:
    begin = time.monotonic()
    said = [talk(served, head(served, "content-length: 500") + b'{"card', half_close=True) for _ in range(20)]
    assert set(map(status_of, said)) <= {0, 400}
    assert time.monotonic() - begin < SOON


def test_a_whole_request_of_a_client_that_sends_no_more_does_no_harm(served: Served) -> None:
    said = talk(served, head(served, f"content-length: {len(BODY)}") + BODY, half_close=True)
    assert status_of(said) in (0, 200)
    assert served("POST", "/v1/fraud/predict", GOOD)[0] == 200


def test_ten_megabytes_are_refused_whether_they_were_announced_or_not(served: Served) -> None:
    announced = talk(served, head(served, "content-length: 10000000", "connection: close") + b" " * 10_000_000)
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    chunked = talk(served, head(served, "transfer-encoding: chunked", "connection: close") + chunk * 160 + b"0\r\n\r\n")
    # The end of the connection may overtake the answer while the rest is still being sent.
    assert {status_of(announced), status_of(chunked)} <= {413, 0}
    first = talk(served, head(served, "content-length: 10000000", "connection: close"))
    assert (status_of(first), problem_of(first)) == (413, "body-too-large")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"[" * 10_000 + b"]" * 10_000, 400, "too-deep"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "too-deep"),
        (b'{"card_id": 1, "amount": NaN, "x": 1}', 400, "broken-json"),
        (b'{"card_id": 1, "amount": -Infinity, "x": 1}', 400, "broken-json"),
        (b'{"card_id": 1, "amount": 1e999, "x": 1}', 400, "broken-json"),
        ('{"card_id": 1, "amount": 1, "x": 1, "ключ\U0001f511": 1}'.encode(), 422, "unknown-field"),
        (b'{"card_id": 1, "amount": 1, "x": 1, "\xff": 1}', 400, "broken-json"),
        (b'{"card_id": 1, "amount": 1, "x": 1, "\\ud800": 1}', 400, "broken-json"),
        (b'{"card_id": "\\u0000", "amount": 1, "x": 1}', 422, "wrong-type"),
        (b"", 400, "broken-json"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_told_so(served: Served, body: bytes, status: int, kind: str) -> None:
    said = talk(served, head(served, f"content-length: {len(body)}", "connection: close") + body)
    assert (status_of(said), problem_of(said)) == (status, kind)


CHUNKED = "transfer-encoding: chunked"


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ([CHUNKED], b"zz\r\nxx"),
        ([CHUNKED], b"5\r\nabcdefgh\r\n"),
        ([CHUNKED], b"-5\r\nabcdefgh\r\n"),
        ([CHUNKED], b"ffffffffffffffffff\r\na"),
        ([CHUNKED, "content-length: 5"], b"hello"),
        (["content-length: 5", "content-length: 6"], b"hello!"),
        (["content-length: -5"], b"hello"),
        (["content-length: 99999999999999999999999"], b"hello"),
        (["x bad: 1", "content-length: 0"], b""),
        (["x-nul: a\0b", "content-length: 0"], b""),
        (None, b"GET / HTTP/9.9\r\n\r\n"),
        (None, b"NONSENSE\r\n\r\n"),
        (None, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (None, b"GET /\xff\xfe HTTP/1.1\r\nhost: here\r\n\r\n"),
        (None, b"GET http://:99999999/ HTTP/1.1\r\nhost: here\r\n\r\n"),
    ],
)
def test_what_is_not_http_is_told_so_and_closed(served: Served, headers: list[str] | None, rest: bytes) -> None:
    said = talk(served, rest if headers is None else head(served, *headers) + rest)
    assert (status_of(said), problem_of(said)) == (400, "not-http")
    assert b"content-type: application/problem+json\r\n" in said
    assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("size", [70_000, 300_000])
@pytest.mark.parametrize("where", ["address", "header"])
def test_a_head_that_is_too_large_is_refused_whether_it_comes_at_once_or_not(
    served: Served, where: str, size: int
) -> None:
    long = "a" * size
    data = head(served, "content-length: 0", path=f"/{long}") if where == "address" else head(served, f"x-long: {long}")
    for pieces in (1, 50):
        with closing(dial(served)) as connection:
            try:
                for i in range(pieces):
                    connection.sendall(data[i * len(data) // pieces : (i + 1) * len(data) // pieces])
            except (BrokenPipeError, ConnectionResetError):
                pass
            said = read_all(connection)
        # Where it was still sending, the end of the connection may overtake the answer.
        assert said == b"" or (status_of(said), problem_of(said)) == (431, "head-too-large")
    assert served("POST", "/v1/fraud/predict", GOOD)[0] == 200


def test_a_long_address_that_is_not_too_long_is_answered(served: Served) -> None:
    said = talk(
        served, head(served, "content-length: 0", "connection: close", path="/v1/" + "a" * 50_000, method="GET")
    )
    assert status_of(said) == 404


def test_requests_in_a_pipeline_are_answered_in_their_order(served: Served) -> None:
    rows = [json.dumps({**GOOD, "amount": amount}).encode() for amount in range(20)]
    ends = ["connection: keep-alive"] * 19 + ["connection: close"]
    sent = [head(served, f"content-length: {len(row)}", end) + row for row, end in zip(rows, ends, strict=True)]
    said = talk(served, b"".join(sent))
    values = [json.loads(part.partition(b"\r\n\r\n")[2])["predictions"][0]["value"] for part in said.split(b"HTTP/1.1 200 OK")[1:]]  # fmt: skip
    assert len(values) == 20
    assert values == sorted(set(values))


def test_head_says_what_get_says_without_a_body_and_options_what_is_allowed(served: Served) -> None:
    get, only_head = (
        talk(served, head(served, "connection: close", path="/healthz", method=m)) for m in ("GET", "HEAD")
    )
    assert (status_of(get), status_of(only_head)) == (200, 200)
    assert only_head.endswith(b"\r\n\r\n")
    assert get.startswith(only_head[:-2])
    for path in ("/v1/fraud/predict", "/v1/fraud/batch"):
        said = talk(served, head(served, "connection: close", path=path, method="OPTIONS"))
        assert status_of(said) == 405
        assert b"allow: POST" in said
    assert status_of(talk(served, head(served, "connection: close", path="*", method="OPTIONS"))) == 404
