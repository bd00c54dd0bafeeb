"""Hours that are played online are the hours that publishing brings online."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.worlds import HOUR, World, load, load_world, meter_now
from windrow import Entity, Every
from windrow.live_hours import Tape, past_ticks
from windrow.stores.online.store import open_online
from windrow.stores.publish import publish_online

KEYS = [(meter_now.table_name, (name,)) for name in ("north", "south")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = load_world(tmp_path, hours=24)
    made.groups(load())
    return made


def test_each_hour_that_is_played_is_online_as_publishing_brings_it(world: World, tmp_path: Path) -> None:
    played, published = (open_online(f"lmdb://{tmp_path}/{name}", write=True) for name in ("played", "published"))
    with played, published:
        for store in (played, published):
            publish_online(meter_now, world.lake, store, 8 * HOUR)
        tape = Tape(meter_now, world.lake, after=8 * HOUR, until=20 * HOUR)
        for hour in (8, 9, 9.5, 15, 20):
            tape.play(played, int(hour * HOUR))
            publish_online(meter_now, world.lake, published, int(hour * HOUR))
            assert played.read(KEYS) == published.read(KEYS)
        assert publish_online(meter_now, world.lake, played, 20 * HOUR).entities_written == 0


def test_ticks_with_an_offset_end_with_the_last_one_that_has_come() -> None:
    late = Every("30s", Entity("a", a="string"), offset="10s")
    assert [t // 1_000_000 for t in past_ticks(late, until=69_999_999, count=3)] == [-20, 10, 40]
    assert [t // 1_000_000 for t in past_ticks(late, until=70_000_000, count=2)] == [40, 70]
