"""Forgetting where the online store and the streams are on a Redis server: the real one, searched key by key."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from tests.redis_server import RedisServer, redis_server
from tests.stores.ingest.world import CARD, World, asked, card_limit, card_spend, settings_in
from windrow.models.places import places
from windrow.settings import Settings
from windrow.stores.forgetting.forget import Forgotten, forget, look
from windrow.stores.forgetting.stream_erasure import erase_from_streams
from windrow.stores.ingest.applier import Applier
from windrow.stores.ingest.events import EventWriter
from windrow.stores.ingest.redis_streams import WORKER, RedisSource
from windrow.stores.metadata import Metadata
from windrow.stores.online.rows import pack_keys
from windrow.stores.online.store import Row, open_online

CARD_ID, OTHER = 0x123456789ABCDEF, 5
STREAM = "windrow-ingest:payments"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


class House(NamedTuple):
    world: World
    client: Any

    @property
    def settings(self) -> Settings:
        return self.world.settings

    def pay(self, number: int, card: int) -> None:
        row = {"payment_id": number, "card_id": card, "amount": 2.0, "ts": datetime.now(UTC).isoformat()}
        self.client.xadd(STREAM, {"row": json.dumps(row)})

    def take(self) -> None:
        """Read from the streams, bring everything online and to the lake, as a new process would."""
        applier = Applier(self.settings)
        source = RedisSource(self.settings, applier.streams, applier.folder, applied=applier.last_entry)
        with EventWriter(applier.folder, WORKER) as writer:
            source.step(writer)
        applier.step()
        applier.commit()
        applier.close()

    def forget(self, *, erase: bool = True) -> Forgotten:
        where = places(CARD, [], [card_limit, card_spend])
        metadata = Metadata(self.settings.metadata)
        return forget((CARD_ID,), where, self.settings, metadata) if erase else look((CARD_ID,), where, self.settings)

    def entries(self) -> list[int]:
        return [json.loads(fields[b"row"])["payment_id"] for _, fields in self.client.xrange(STREAM)]


@pytest.fixture
def house(tmp_path: Path, server: RedisServer) -> Iterator[House]:
    """Two cards with a limit, events and states; an event of each that nobody has read yet."""
    world = World(settings_in(tmp_path, WINDROW_ONLINE=server.url, WINDROW_STREAMS=server.url))
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        made = House(world, client)
        for number, card in enumerate((CARD_ID, OTHER, CARD_ID, OTHER)):
            made.pay(number, card)
        made.take()
        with open_online(world.settings.online, write=True) as online:
            online.write("card_limit_v1", ["limit"], [((card,), Row(1, 1, 1, (9.0,))) for card in (CARD_ID, OTHER)])
        made.pay(4, CARD_ID)
        made.pay(5, OTHER)
        yield made
    world.writer.close()


def traces(client: Any, key: int) -> list[bytes]:
    """Return every key of the server that names the card, or whose value does, in any form windrow writes it in."""
    forms = [str(key).encode(), pack_keys([(key,)])[0], key.to_bytes(8, "big"), key.to_bytes(8, "little")]
    found = []
    for name in client.scan_iter():
        held = b" ".join(_parts(client, name))
        if any(form in name + held for form in forms):
            found.append(name)
    return found


def _parts(client: Any, name: bytes) -> list[bytes]:
    kind = client.type(name).decode()
    if kind == "stream":
        return [part for _, fields in client.xrange(name) for pair in fields.items() for part in pair]
    return [client.get(name)] if kind == "string" else list(client.zrange(name, 0, -1))


def test_rows_states_and_stream_entries_of_the_entity_are_gone_from_the_server(house: House) -> None:
    assert len(traces(house.client, CARD_ID)) == 3  # its row, its state, the stream
    told = house.forget().rows
    assert (told["online/card_limit_v1"], told["online/card_spend_v1"]) == (1, 1)
    assert (told["events (in Redis streams)"], told["sources/payments"]) == (3, 2)
    assert traces(house.client, CARD_ID) == []


def test_everything_of_others_is_kept_and_the_directory_counts_them(house: House) -> None:
    house.forget()
    assert house.entries() == [1, 3, 5]
    house.take()
    assert asked(house.settings, card_spend, (OTHER,)) == (6.0, 3)
    with open_online(house.settings.online) as online:
        assert [online.count(name) for name in ("card_limit_v1", "card_spend_v1")] == [1, 1]
        assert online.columns("card_limit_v1") == ("limit",)
        assert [row is not None for row in online.read([("card_limit_v1", (c,)) for c in (CARD_ID, OTHER)])] == [
            False, True,
        ]  # fmt: skip


def test_looking_changes_nothing_and_tells_the_same(house: House) -> None:
    seen = house.forget(erase=False).rows
    assert (seen["events (in Redis streams)"], len(traces(house.client, CARD_ID))) == (3, 3)
    assert seen == house.forget().rows


def test_a_second_forgetting_finds_nothing(house: House) -> None:
    house.forget()
    assert house.forget().rows == {}


def test_an_entry_that_is_no_row_goes_if_it_holds_the_key(house: House) -> None:
    house.client.xadd(STREAM, {"row": f"no json {CARD_ID}"})
    house.client.xadd(STREAM, {"row": "no json"})
    assert house.forget().rows["events (in Redis streams)"] == 4
    assert house.client.xrange(STREAM)[-1][1] == {b"row": b"no json"}


def test_groups_of_other_readers_stand_where_they_stood(house: House) -> None:
    house.client.xgroup_create(STREAM, "audit", id="0")
    house.client.xreadgroup("audit", "auditor", {STREAM: ">"}, count=2)  # one entry of each card, not acknowledged
    before = {group["name"]: group["last-delivered-id"] for group in house.client.xinfo_groups(STREAM)}
    newest = house.client.xinfo_stream(STREAM)["last-generated-id"]
    erase_from_streams(house.settings, lambda name, row: row["card_id"] == CARD_ID, key=(CARD_ID,), erase=True)
    assert {g["name"]: g["last-delivered-id"] for g in house.client.xinfo_groups(STREAM)} == before
    assert [e["consumer"] for e in house.client.xpending_range(STREAM, "audit", "-", "+", 9)] == [b"auditor"]
    assert house.client.xinfo_stream(STREAM)["last-generated-id"] == newest


def test_what_is_written_to_the_stream_meanwhile_is_kept(house: House) -> None:
    done = threading.Event()

    def write() -> None:
        number = 100
        while not done.is_set():
            house.pay(number, OTHER)
            number += 1
            time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    house.forget()
    done.set()
    writer.join()
    kept = house.entries()
    assert kept == [1, 3, 5, *range(100, 100 + len(kept) - 3)]
    assert len(kept) > 3
