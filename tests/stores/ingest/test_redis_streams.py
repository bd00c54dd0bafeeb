"""Promises of Redis Streams: delivered at least once, in the stores exactly once, and poison stops nobody."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import ROOT
from tests.redis_server import RedisServer, redis_server
from tests.stores.ingest.world import World, asked, card_spend, now, page_views, settings_in
from windrow.errors import SettingsError
from windrow.stores.ingest.applier import Applier
from windrow.stores.ingest.events import EventWriter
from windrow.stores.ingest.marks import Marks
from windrow.stores.ingest.redis_streams import WORKER, RedisSource
from windrow.stores.segments import backlog

PREFIX = "windrow-ingest:"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(server.url) as made:
        made.flushall()
        yield made


@pytest.fixture
def world(tmp_path: Path, server: RedisServer, client: Any) -> Iterator[World]:
    made = World(settings_in(tmp_path, WINDROW_STREAMS=server.url, WINDROW_INGEST_EVERY="0.5"))
    yield made
    made.writer.close()


def _add(client: Any, name: str, **row: Any) -> None:
    client.xadd(PREFIX + name, {"row": json.dumps(row)})


def _payment(client: Any, number: Any, card: Any = 7, amount: Any = 2.5) -> None:
    _add(client, "payments", payment_id=number, card_id=card, amount=amount, ts=datetime.now(UTC).isoformat())


def _click(client: Any, number: int) -> None:
    _add(client, "clicks", number=number, page="home", at=datetime.now(UTC).isoformat())


def _taken(world: World, *, steps: int = 2) -> int:
    """Read from Redis as a new process would, then bring everything online and to the lake."""
    applier = Applier(world.settings)
    source = RedisSource(world.settings, applier.streams, applier.folder, applied=applier.last_entry)
    with EventWriter(applier.folder, WORKER) as writer:
        taken = sum(source.step(writer) for _ in range(steps))
    applier.step()
    applier.commit()
    applier.close()
    return taken


def test_entries_are_online_and_in_the_lake(world: World, client: Any) -> None:
    _payment(client, 1)
    _payment(client, 2, amount=4)
    _click(client, 1)
    assert _taken(world) == 3
    assert asked(world.settings, card_spend, (7,)) == (6.5, 2)
    assert world.column("sources/payments", "payment_id") == [1, 2]
    assert world.column("sources/clicks", "number") == [1]
    assert client.xpending(PREFIX + "payments", "windrow")["pending"] == 0


def test_an_entry_that_is_delivered_again_is_not_taken_in_again(world: World, client: Any) -> None:
    _click(client, 1)
    assert _taken(world) == 1
    client.xgroup_setid(PREFIX + "clicks", "windrow", "0")
    _click(client, 2)
    assert _taken(world) == 1
    assert world.column("sources/clicks", "number") == [1, 2]
    assert asked(world.settings, page_views, ("home",)) == (2,)


def test_what_was_delivered_to_a_process_that_died_is_taken_over(world: World, client: Any) -> None:
    _click(client, 1)
    client.xgroup_create(PREFIX + "clicks", "windrow", id="0")
    client.xreadgroup("windrow", Marks(world.folder).home, {PREFIX + "clicks": ">"})
    _click(client, 2)
    _taken(world)
    assert world.column("sources/clicks", "number") == [1, 2]


def test_the_same_event_twice_in_a_stream_counts_once(world: World, client: Any) -> None:
    _payment(client, 1)
    _payment(client, 1)
    _taken(world)
    assert asked(world.settings, card_spend, (7,)) == (2.5, 1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"row": "{no json"}, "its field 'row' is not JSON"),
        ({"row": b"\xff\xfe"}, "its field 'row' is not JSON"),
        ({"row": "[1]"}, "its field 'row' is not a JSON object"),
        ({"other": "1"}, "the entry has no field 'row'"),
        ({"row": '{"number": 1, "page": "home"}'}, "at is missing"),
        ({"row": '{"number": 1, "page": "home", "at": "2026-01-01T00:00:00"}'}, "at is no time with zone"),
        ({"row": '{"number": "1", "page": "home", "at": "2026-01-01T00:00:00Z"}'}, "number is no int64"),
        (
            {"row": '{"number": 1, "page": "home", "at": "2190-01-01T00:00:00Z"}'},
            "its event_time lies more than 5m in the future",
        ),
        (
            {"row": '{"numbr": 1, "page": "home", "at": "2026-01-01T00:00:00Z"}'},
            "it has a field that is not declared; did you mean 'number'?",
        ),
    ],
)
def test_an_entry_that_is_no_row_is_parked_with_its_reason(
    world: World, client: Any, fields: dict[Any, Any], reason: str
) -> None:
    client.xadd(PREFIX + "clicks", fields)
    _click(client, 2)
    assert _taken(world) == 2
    assert [row["reasons"] for row in world.rows("quarantine/clicks")] == [reason]
    assert world.column("sources/clicks", "number") == [2]


def test_nothing_is_read_while_too_much_waits_for_the_lake(tmp_path: Path, server: RedisServer, client: Any) -> None:
    world = World(settings_in(tmp_path, WINDROW_STREAMS=server.url, WINDROW_INGEST_BACKLOG="10"))
    world.send("clicks", [1, "home", 5])
    _click(client, 2)
    assert _taken(world, steps=1) == 0
    world.settle()
    assert _taken(world) == 1
    world.writer.close()


def test_a_url_that_is_none_is_refused(tmp_path: Path) -> None:
    world = World(settings_in(tmp_path, WINDROW_STREAMS="nowhere"))
    applier = world.applier()
    with pytest.raises(SettingsError, match="WINDROW_STREAMS is no URL of a Redis server"):
        RedisSource(world.settings, applier.streams, applier.folder, applied=applier.last_entry)
    applier.close()
    world.writer.close()


def test_an_applier_that_is_killed_again_and_again_takes_each_entry_once(world: World, client: Any) -> None:
    chance, number = random.Random(3), 0
    command = [sys.executable, "-m", "windrow.stores.ingest.applier"]
    environ = {**os.environ, **world.settings.environ()}
    for kill in (True, True, False):
        applier = subprocess.Popen(command, cwd=ROOT, env=environ)
        end = time.monotonic() + chance.uniform(1.5, 2.5)
        while time.monotonic() < end:
            for _ in range(5):
                number += 1
                _click(client, number)
                _payment(client, number, amount=1.0)
            time.sleep(0.005)
        if kill:
            applier.kill()
            applier.wait()
    _until(lambda: _all_in(world, number))
    applier.terminate()
    applier.wait(timeout=20)
    assert Counter(world.column("sources/clicks", "number")) == Counter(range(1, number + 1))
    assert Counter(world.column("sources/payments", "payment_id")) == Counter(range(1, number + 1))
    assert asked(world.settings, page_views, ("home",)) == (number,)
    assert asked(world.settings, card_spend, (7,)) == (number, number)


def test_an_online_store_on_redis_counts_each_event_once_too(tmp_path: Path, server: RedisServer, client: Any) -> None:
    world = World(settings_in(tmp_path, WINDROW_ONLINE=server.url))
    at = now() - 1000
    world.send("payments", [1, 7, 2.5, at], [2, 7, 1.5, at])
    world.send("card_limit", [7, 500.0, at])
    world.settle()
    world.send("payments", [1, 7, 2.5, at], [3, 7, 1.0, at])
    world.settle()
    assert asked(world.settings, card_spend, (7,)) == (5.0, 3)
    assert world.column("sources/payments", "payment_id") == [1, 2, 3]
    world.writer.close()


def _all_in(world: World, number: int) -> bool:
    return backlog(world.folder) == 0 and len(world.column("sources/clicks", "number")) >= number


def _until(condition: Any, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
