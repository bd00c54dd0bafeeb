"""The law of streams: what was acknowledged is in the lake and online exactly once, whatever is killed when."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.stores.ingest.world import asked, card_spend, clicks, page_views, payments, prepare, settings_in
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.ingest.events import FOLDER
from windrow.stores.lake import Lake
from windrow.stores.segments import backlog

CARDS = 5


class Server:
    """The worker process, started again after each kill."""

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings, self.port = settings, port
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environ = {**os.environ, **self.settings.environ()}
        command = [sys.executable, "-m", "tests.laws.ingest_server", str(self.port)]
        with (self.settings.folder("service") / "server.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)

    def kill(self, what: str) -> None:
        if what in ("applier", "both"):
            self._kill_applier()
        if what in ("worker", "both"):
            self.process.kill()
            self.process.wait()
            self.process = self._start()

    def _kill_applier(self) -> None:
        for pid in _children(self.process.pid):
            if b"windrow.stores.ingest.applier" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()
            self.process.wait()


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Sender(threading.Thread):
    """Sends events one after the other; `acknowledged` were answered 202, `uncertain` were cut off."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.port, self.ended = port, threading.Event()
        self.random = random.Random(seed)
        self.payments: dict[int, tuple[int, float]] = {}
        self.clicks: set[int] = set()
        self.uncertain: set[int] = set()
        self.refused: list[bytes] = []

    def run(self) -> None:
        number = 0
        while not self.ended.is_set():
            number += 1
            self._pay(number)
            self._click(number)

    def _pay(self, number: int) -> None:
        card, amount = number % CARDS, float(self.random.randint(1, 100))
        body = {"payment_id": number, "card_id": card, "amount": amount, "ts": datetime.now(UTC).isoformat()}
        # A sender that was not answered sends again: the id keeps it one event.
        while not self._send("payments", body):
            if self.ended.is_set():
                return
        self.payments[number] = (card, amount)
        if self.random.random() < 0.1:
            self._send("payments", body)

    def _click(self, number: int) -> None:
        sent = self._send("clicks", {"number": number, "page": "home", "at": datetime.now(UTC).isoformat()})
        (self.clicks if sent else self.uncertain).add(number)

    def _send(self, name: str, body: dict[str, Any]) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", f"/v1/ingest/{name}", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
            return False
        finally:
            connection.close()
        if answer.status != 202:
            self.refused.append(text)
        return answer.status == 202


def _lived_through(settings: Settings, port: int, *, kills: int, seed: int) -> Sender:
    chance = random.Random(seed)
    server, sender = Server(settings, port), Sender(port, seed)
    try:
        _until(lambda: _answers(port))
        sender.start()
        for _ in range(kills):
            time.sleep(chance.uniform(0.3, 2.0))
            server.kill(chance.choice(["worker", "applier", "both"]))
        _until(lambda: _answers(port))
        time.sleep(1)
        sender.ended.set()
        sender.join()
        # Nothing is left: what the last worker holds is handed over by time, what dead ones held is taken over.
        _until(lambda: backlog(settings.folder(FOLDER)) == 0)
    finally:
        sender.ended.set()
        server.stop()
    return sender


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def _column(settings: Settings, key: str, name: str) -> list[Any]:
    found: list[Any] = Lake(settings.lake).table(key).scan(engine())[name].to_pyarrow().to_pylist()
    return found


def _holds(settings: Settings, sender: Sender) -> None:
    assert sender.refused == []
    assert len(sender.payments) > 50
    assert Counter(_column(settings, payments.key, "payment_id")) == Counter(sender.payments.keys())
    numbers = Counter(_column(settings, clicks.key, "number"))
    assert set(numbers.values()) == {1}
    assert sender.clicks <= set(numbers) <= sender.clicks | sender.uncertain
    for card in range(CARDS):
        amounts = [amount for owner, amount in sender.payments.values() if owner == card]
        assert asked(settings, card_spend, (card,)) == (sum(amounts), len(amounts))
    assert asked(settings, page_views, ("home",)) == (len(numbers),)


def test_three_kills_lose_nothing_and_double_nothing(tmp_path: Path, free_port: Any) -> None:
    settings = settings_in(tmp_path, WINDROW_INGEST_EVERY="0.5")
    prepare(settings)
    _holds(settings, _lived_through(settings, free_port(), kills=3, seed=1))


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path, free_port: Any) -> None:
    settings = settings_in(tmp_path, WINDROW_INGEST_EVERY="0.5")
    prepare(settings)
    _holds(settings, _lived_through(settings, free_port(), kills=20, seed=2))
