"""A worker that is asked to end while clients are sending: each gets an answer for every request it sent."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pyarrow.compute as pc
import pytest

from tests.serving import world
from tests.serving.conftest import Served, eventually
from tests.serving.test_bento import settings_for
from tests.serving.test_bulk_server import NDJSON, Stream, body_of
from windrow.serving.local_key import local_key
from windrow.serving.run import Running, start
from windrow.settings import Settings
from windrow.stores.lake import Lake
from windrow.stores.log import PredictionLog

pytestmark = pytest.mark.xdist_group("bento")


class Client(threading.Thread):
    """Sends requests until the service says that it ends, or refuses connections; keeps what became of each."""

    def __init__(self, url: str, key: str, *, keep: bool) -> None:
        super().__init__()
        self.headers = {"authorization": f"Bearer {key}"}
        self.address, self.keep = urlsplit(url), keep
        self.seen: Counter[object] = Counter()
        self.ids: list[str] = []
        self.closing: list[str] = []

    def run(self) -> None:
        connection = self._connect()
        while True:
            try:
                connection.connect() if connection.sock is None else None
            except ConnectionRefusedError:
                return
            try:
                connection.request("POST", "/v1/fraud/predict", json.dumps(world.GOOD), self.headers)
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.seen[type(error).__name__] += 1
                return
            self.seen[answer.status] += 1
            if answer.status == 200:
                self.ids.append(told["request_id"])
            if answer.status == 503:
                self.closing.append(f"{answer.headers['connection']} {answer.headers['retry-after']}")
                return
            if not self.keep:
                connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address.hostname or "", self.address.port or 0, timeout=20)


def _stopped_under_load(settings: Settings, stop: Callable[[Running], None]) -> list[Client]:
    key = local_key(settings)  # before: a service that runs learns of a key with its next look
    with start(settings) as running:
        clients = [Client(running.url, key, keep=keep) for keep in (True, True, True, True, False, False)]
        for client in clients:
            client.start()
        eventually(lambda: all(client.seen[200] > 20 for client in clients))
        stop(running)
        for client in clients:
            client.join(30)
        running.process.wait(20)
    return clients


def test_a_service_that_is_stopped_under_load_answers_every_request_and_logs_what_it_predicted(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings_for(tmp_path), insecure=True)
    world.publish(settings)
    world.release_fraud(settings)
    clients = _stopped_under_load(settings, lambda running: os.killpg(running.process.pid, signal.SIGTERM))
    assert set().union(*(client.seen for client in clients)) <= {200, 503}
    assert {told for client in clients for told in client.closing} == {"close 1"}
    logged = PredictionLog(settings.home / "log", Lake(settings.lake)).table("fraud").column("request_id").to_pylist()
    answered = [id for client in clients for id in client.ids]
    assert (len(logged), set(logged)) == (len(answered), set(answered))


def test_streams_that_go_on_are_ended_with_a_line_that_says_from_where_and_every_line_before_is_logged(
    tmp_path: Path,
) -> None:
    settings = settings_for(tmp_path)
    world.publish(settings)
    world.release_fraud(settings)
    local_key(settings)
    with start(settings) as running:
        served = Served(settings, running)
        busy, idle = Stream(served, NDJSON), Stream(served, NDJSON)
        with closing(busy.socket), closing(idle.socket):
            idle.send(body_of(1, NDJSON))
            waiting, going = idle.read(), busy.read()
            told = [*next(waiting).splitlines()]
            busy.send_all(body_of(200_000, NDJSON))
            lines = [*next(going).splitlines()]
            os.killpg(running.process.pid, signal.SIGTERM)
            lines += [line for chunk in going for line in chunk.splitlines()]
            told += [line for chunk in waiting for line in chunk.splitlines()]
        running.process.wait(20)
    for seen in (lines, told):
        *answers, last = map(json.loads, seen)
        assert (last["ended"], last["status"], last["line"]) == (True, 503, len(answers))
    table = PredictionLog(settings.home / "log", Lake(settings.lake)).table("fraud")
    assert pc.sum(pc.equal(table["kind"], "prediction")).as_py() == len(lines) + len(told) - 2
