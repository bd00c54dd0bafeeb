"""Long requests to the real process: bounded memory, others served meanwhile, clients that hang up or stop reading."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from tests.serving.conftest import Served, eventually
from tests.serving.world import GOOD
from windrow.serving.bulk import STREAMS
from windrow.serving.local_key import local_key
from windrow.stores.log import records

pytestmark = pytest.mark.xdist_group("bento")

ROWS = 100_000
NDJSON, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"


class Stream:
    """One request of the kind, sent from a thread of its own while the answer is read."""

    def __init__(self, served: Served, kind: str) -> None:
        address = urlsplit(served.running.url)
        self.socket = socket.create_connection((address.hostname or "", address.port or 0), timeout=60)
        lines = (
            "POST /v1/fraud/batch HTTP/1.1",
            "host: here",
            f"authorization: Bearer {local_key(served.settings)}",
            f"content-type: {kind}",
            "transfer-encoding: chunked",
        )
        self.socket.sendall("\r\n".join((*lines, "", "")).encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(b"%x\r\n" % len(data) + data + b"\r\n")

    def send_all(self, body: bytes) -> None:
        def run() -> None:
            try:
                for start in range(0, len(body), 50_000):
                    self.send(body[start : start + 50_000])
                self.socket.sendall(b"0\r\n\r\n")
            except OSError:
                pass  # hung up, by us or by the server: the reader says which

        threading.Thread(target=run, daemon=True).start()

    def read(self) -> Iterator[bytes]:
        """Yield the chunks of the answer."""
        with self.socket.makefile("rb") as file:
            assert file.readline().split()[1] == b"200"
            while file.readline() != b"\r\n":
                pass
            while size := int(file.readline(), 16):
                yield file.read(size)
                file.readline()


def worker_of(served: Served) -> int:
    """The process that answers: the one child of the supervisor that listens."""
    found = [served.running.process.pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return next(pid for pid in found if b"_bentoml_impl" in Path(f"/proc/{pid}/cmdline").read_bytes())


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def body_of(rows: int, kind: str) -> bytes:
    if kind == NDJSON:
        return b"".join(json.dumps({**GOOD, "amount": i % 1000}).encode() + b"\n" for i in range(rows))
    sink, table = io.BytesIO(), pa.Table.from_pylist([{**GOOD, "amount": float(i % 1000)} for i in range(rows)])
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    return sink.getvalue()


def count(kind: str, answer: bytes) -> int:
    """How many rows an answer has, all of them predictions and in order."""
    if kind == ARROW:
        table = pa.ipc.open_stream(answer).read_all()
        assert table["value"].null_count == 0
        found = table["line"].to_pylist()
    else:
        found = [line["line"] for line in map(json.loads, answer.splitlines()) if "value" in line]
    assert found == list(range(len(found)))
    return len(found)


@pytest.mark.parametrize("kind", [NDJSON, ARROW])
def test_a_hundred_thousand_rows_take_no_more_memory_than_a_few_and_others_are_served_meanwhile(
    served: Served, kind: str
) -> None:
    worker = worker_of(served)
    for rows in (20_000, ROWS):
        stream = Stream(served, kind)
        stream.send_all(body_of(rows, kind))
        answer, seen, status = bytearray(), [memory(worker)], set[int]()
        with closing(stream.socket), closing(served.connect()) as connection:
            for i, chunk in enumerate(stream.read()):
                answer += chunk
                if i % 100 == 0:
                    seen.append(memory(worker))
                    status.add(served("POST", "/v1/fraud/predict", GOOD, connection)[0])
        assert count(kind, bytes(answer)) == rows
        assert status == {200}
    # The first round has loaded what a stream needs; the answers alone are 20 MB.
    assert max(seen) - seen[0] < 12 << 20


def test_rows_are_answered_while_the_request_goes_on(served: Served) -> None:
    stream = Stream(served, NDJSON)
    with closing(stream.socket):
        stream.send(body_of(1, NDJSON))
        answers = stream.read()
        assert json.loads(next(answers))["line"] == 0
        stream.send(body_of(1, NDJSON))
        assert json.loads(next(answers))["line"] == 1
        stream.socket.sendall(b"0\r\n\r\n")
        assert list(answers) == []


def _open_streams(served: Served) -> int:
    """How many more streams can be opened, found by opening them."""
    opened = []
    try:
        while len(opened) < STREAMS:
            stream = Stream(served, NDJSON)
            opened.append(stream)
            stream.send(b"\n")
            if stream.socket.recv(12) != b"HTTP/1.1 200":
                return len(opened) - 1
        return STREAMS
    finally:
        for stream in opened:
            stream.socket.close()


def _hung_up(served: Served, seen: list[dict[str, Any]]) -> bool:
    """Begin a stream, take its first answers and hang up; False while the ones before still hold all places."""
    stream = Stream(served, NDJSON)
    stream.send_all(body_of(5000, NDJSON))
    try:
        seen.append(json.loads(next(stream.read()).splitlines()[-1]))
    except AssertionError:
        return False
    finally:
        stream.socket.close()
    return True


def test_a_client_that_hangs_up_leaves_its_rows_in_the_log_and_nothing_else(served: Served) -> None:
    seen = list[dict[str, Any]]()
    for _ in range(2 * STREAMS):
        eventually(lambda: _hung_up(served, seen))
    eventually(lambda: _open_streams(served) == STREAMS)
    kept, last = {(r.request_id, r.row) for _, r in records(served.settings.home / "log")}, seen[-1]
    assert (last["request_id"], last["row"]) in kept or (served.settings.home / "lake" / "log").exists()


def test_one_stream_too_many_is_told_to_come_later(served: Served) -> None:
    eventually(lambda: _open_streams(served) == STREAMS)
    opened = [Stream(served, NDJSON) for _ in range(STREAMS)]
    for stream in opened:
        stream.send(b"\n")
        assert stream.socket.recv(12) == b"HTTP/1.1 200"
    refused = Stream(served, NDJSON)
    assert refused.socket.recv(12) == b"HTTP/1.1 429"
    for stream in (*opened, refused):
        stream.socket.close()


def test_a_client_that_does_not_read_is_not_read_from_and_others_are_served(served: Served) -> None:
    worker, stream = worker_of(served), Stream(served, NDJSON)
    stream.socket.settimeout(2)
    before, body, sent = memory(worker), body_of(5000, NDJSON), 0
    with closing(stream.socket):
        while sent < 200 << 20 and _sent(stream, body):
            sent += len(body)
        assert sent < 50 << 20  # then it could not be sent: nobody takes the answers
    assert memory(worker) - before < 12 << 20
    assert served("POST", "/v1/fraud/predict", GOOD)[0] == 200
    eventually(lambda: _open_streams(served) == STREAMS)


def _sent(stream: Stream, body: bytes) -> bool:
    try:
        stream.send(body)
    except TimeoutError:
        return False
    return True


@pytest.mark.slow
def test_a_client_that_never_reads_is_closed(served: Served) -> None:
    stream = Stream(served, NDJSON)
    stream.send_all(body_of(ROWS, NDJSON) * 3)
    eventually(lambda: _open_streams(served) < STREAMS)
    begin = time.monotonic()
    eventually(lambda: _open_streams(served) == STREAMS, seconds=60)
    assert time.monotonic() - begin < 60
    stream.socket.close()
