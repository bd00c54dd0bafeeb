"""Promises of a load of states beside a stream: it loses nothing that came meanwhile, and counts nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.stores.ingest.world import World, asked, card_spend, now, page_views, payments, settings_in
from windrow.clock import from_micros, to_micros
from windrow.features.aggregate import AggregateGroup
from windrow.features.tiles import Tiles
from windrow.features.traces import Event
from windrow.stores.engine import engine
from windrow.stores.ingest.replay import Replay
from windrow.stores.online.store import Key, Row, open_online
from windrow.stores.publish import publish_online, publish_states

BEGIN = now() - 3_600_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(settings_in(tmp_path))
    yield made
    made.writer.close()


def _pay(world: World, *numbers: int) -> None:
    world.send("payments", *([number, 7, 1.0, BEGIN + number] for number in numbers))


def _step(world: World) -> None:
    applier = world.applier()
    while applier.step().read:
        pass
    applier.close()


def _replay(world: World, group: AggregateGroup) -> Replay:
    return Replay(world.streams[group.source.name], group.table_name, world.lake, world.folder)


def _states(world: World, group: AggregateGroup, seq: int) -> list[tuple[Key, Row]]:
    """What a load makes of the rows in the lake; the simplest way."""
    table = world.lake.table(group.source.key)
    rows: list[dict[str, Any]] = table.scan(engine(), as_of=seq).to_pyarrow().to_pylist() if table.exists else []
    events: dict[Key, list[Event]] = {}
    for row in rows:
        key = tuple(row[name] for name in group.entity.key_names)
        id_ = row[group.source.id] if group.source.id else None
        values = tuple(row[name] for name in group.spec.columns)
        events.setdefault(key, []).append(Event(to_micros(row["event_time"]), to_micros(row["known_at"]), id_, values))
    tiles = Tiles(group.spec)
    return [(key, Row(own[-1][0], own[-1][1], 0, (tiles.append(None, own),))) for key, own in events.items()]


def _publish(world: World, group: AggregateGroup, states: list[tuple[Key, Row]], replay: Replay) -> None:
    with open_online(world.settings.online, write=True) as online:
        publish_states(group, online, states, before=replay)


def test_a_load_keeps_what_came_while_it_was_made(world: World) -> None:
    _pay(world, *range(50))
    world.settle()
    replay = _replay(world, card_spend)
    states = _states(world, card_spend, replay.seq)
    _pay(world, *range(50, 60))
    world.settle()  # in the lake by now, and its segment gone
    _pay(world, *range(60, 70))
    _step(world)  # online, and waiting for the lake
    _pay(world, 70, 71)  # accepted only
    _publish(world, card_spend, states, replay)
    assert asked(world.settings, card_spend, (7,)) == (70.0, 70)
    _step(world)
    world.settle()
    assert asked(world.settings, card_spend, (7,)) == (72.0, 72)


def test_a_load_of_events_without_ids_counts_each_once(world: World) -> None:
    for number in range(3):
        world.send("clicks", [number, "home", BEGIN], [number, "home", BEGIN])
        world.settle()
    replay = _replay(world, page_views)
    states = _states(world, page_views, replay.seq)
    world.send("clicks", [1, "home", BEGIN])
    world.settle()
    world.send("clicks", [1, "home", BEGIN])
    _step(world)
    _publish(world, page_views, states, replay)
    assert asked(world.settings, page_views, ("home",)) == (8,)


def test_a_load_does_not_bring_back_what_could_not_be_applied(world: World) -> None:
    replay = _replay(world, page_views)
    states = _states(world, page_views, replay.seq)
    world.send("clicks", [1, "home", BEGIN], ["1", "home", BEGIN])
    _step(world)
    _publish(world, page_views, states, replay)
    assert asked(world.settings, page_views, ("home",)) == (1,)


def test_an_event_that_a_file_brought_is_not_counted_again_when_it_is_pushed(world: World) -> None:
    schema = {**payments.fields, "event_time": "timestamp", "known_at": "timestamp"}
    at = from_micros(BEGIN)
    table = pa.table(
        {
            name: pa.array([{"payment_id": 1, "card_id": 7, "amount": 1.0}.get(name, at)], kind)
            for name, kind in zip(schema, _types(schema), strict=True)
        }
    )
    world.lake.table(payments.key).append(table)
    replay = _replay(world, card_spend)
    with open_online(world.settings.online, write=True) as online:
        assert replay.remember(online, now=now()) == 1
    _publish(world, card_spend, _states(world, card_spend, replay.seq), replay)
    _pay(world, 1, 2)
    _step(world)
    assert asked(world.settings, card_spend, (7,)) == (2.0, 2)
    world.settle()
    assert world.column(payments.key, "payment_id") == [1, 1, 2]  # the pushed one has another time: a correction


def test_what_is_held_back_is_counted_at_its_time_and_once(tmp_path: Path) -> None:
    world = World(settings_in(tmp_path, WINDROW_CLOCK=f"fixed:{from_micros(BEGIN).isoformat()}"))
    world.send("clicks", [1, "home", BEGIN - 10], [2, "home", BEGIN + 10])
    world.settle()
    replay = _replay(world, page_views)
    assert replay.until(BEGIN) == BEGIN
    states = [s for s in _states(world, page_views, replay.seq)]
    early = Tiles(page_views.spec).append(None, [Event(BEGIN - 10, BEGIN - 10, None, ())])
    assert len(states) == 1
    _publish(world, page_views, [(("home",), Row(BEGIN - 10, BEGIN - 10, 0, (early,)))], replay)
    assert asked(world.settings, page_views, ("home",), at=BEGIN + 1) == (1,)
    world.settings = settings_in(tmp_path, WINDROW_CLOCK=f"fixed:{from_micros(BEGIN + 20).isoformat()}")
    _step(world)
    assert asked(world.settings, page_views, ("home",), at=BEGIN + 20) == (2,)
    again = _replay(world, page_views)
    again.until(BEGIN)
    _publish(world, page_views, [(("home",), Row(BEGIN - 10, BEGIN - 10, 0, (early,)))], again)
    assert asked(world.settings, page_views, ("home",), at=BEGIN + 20) == (2,)
    world.writer.close()


def _types(schema: dict[str, str]) -> list[pa.DataType]:
    from windrow.features.arrow import arrow_type

    return [arrow_type(dtype) for dtype in schema.values()]


def _send_all(world: World, total: int, ended: threading.Event) -> None:
    for number in range(total):
        _pay(world, number)
        world.send("clicks", [number, "home", BEGIN])
        if number % 25 == 0:
            world.writer.rotate()
        time.sleep(0.004)
    world.writer.rotate()
    ended.set()


def _apply_all(world: World, ended: threading.Event) -> None:
    applier = world.applier()
    while not ended.is_set() or applier.step().read:
        applier.step()
        applier.commit()
    applier.commit()
    applier.close()


def _load(world: World, group: AggregateGroup) -> int:
    if not world.lake.table(group.source.key).exists:
        return 0
    with open_online(world.settings.online, write=True) as online:
        return publish_online(group, world.lake, online, now(), folder=world.folder).rows_read


def test_loads_beside_a_running_stream_lose_and_double_nothing(world: World) -> None:
    ended, total, loads = threading.Event(), 600, list[int]()
    threads = [
        threading.Thread(target=_send_all, args=(world, total, ended)),
        threading.Thread(target=_apply_all, args=(world, ended)),
    ]
    for thread in threads:
        thread.start()
    while not ended.is_set():
        loads += [_load(world, card_spend), _load(world, page_views)]
    for thread in threads:
        thread.join()
    assert sum(rows > 0 for rows in loads) > 2
    assert asked(world.settings, card_spend, (7,)) == (float(total), total)
    assert asked(world.settings, page_views, ("home",)) == (total,)
