"""Promises of the applier's way online: at once, once, in any order, and poison stops nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stores.ingest.world import World, asked, card_spend, clicks, declared, now, prepare, settings_in
from windrow.clock import duration
from windrow.features import agg
from windrow.features.aggregate import aggregate
from windrow.schema import Entity
from windrow.settings import Settings
from windrow.stores.ingest.applier import elected
from windrow.stores.ingest.catalogue import record
from windrow.stores.ingest.events import Batch
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(settings_in(tmp_path))
    yield made
    made.writer.close()


def _limit(settings: Settings, card: int) -> Any:
    with open_online(settings.online) as store:
        row = store.read([("card_limit_v1", (card,))])[0]
    return None if row is None else row.values[0]


def _step(world: World) -> Any:
    applier = world.applier()
    try:
        return applier.step()
    finally:
        applier.close()


def test_a_row_is_online_after_one_step(world: World) -> None:
    world.send("card_limit", [7, 500.0, now()])
    assert _step(world)[:2] == (1, 1)
    assert _limit(world.settings, 7) == 500.0


def test_an_older_row_does_not_replace_a_newer_one(world: World) -> None:
    at = now()
    world.send("card_limit", [7, 500.0, at], [7, 100.0, at - 10])
    _step(world)
    world.send("card_limit", [7, 200.0, at - 5])
    _step(world)
    assert _limit(world.settings, 7) == 500.0


def test_an_applier_that_starts_again_reads_nothing_twice(world: World) -> None:
    world.send("card_limit", [7, 500.0, now()])
    assert _step(world).read == 1
    assert _step(world).read == 0


def test_a_row_that_fails_its_groups_checks_is_parked_and_the_others_go_on(world: World) -> None:
    at = now()
    world.send("card_limit", [7, 500.0, at], [8, -1.0, at], [9, 300.0, at])
    assert _step(world)[:4] == (3, 2, 0, 1)
    assert [_limit(world.settings, card) for card in (7, 8, 9)] == [500.0, None, 300.0]
    world.settle()
    assert world.column("features/card_limit_v1", "card_id") == [7, 9]
    parked = world.rows("quarantine/card_limit")
    assert [row["reasons"] for row in parked] == ["limit: greater_than_or_equal_to(0)"]
    assert '"card_id":8' in parked[0]["row"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["7", 500.0, 5], "card_id is no int64"),
        ([True, 500.0, 5], "card_id is no int64"),
        ([2**63, 500.0, 5], "card_id is no int64"),
        ([None, 500.0, 5], "card_id is missing"),
        ([7, float("inf"), 5], "limit is no float64"),
        ([7, "much", 5], "limit is no float64"),
        ([7, 500.0, None], "event_time is missing"),
        ([7, 500.0, 2**62], "its times lie before 1700 or after 2199"),
        ([7, 500.0], "it has 2 values for 3 fields"),
    ],
)
def test_a_row_that_no_store_can_keep_is_parked_with_its_reason(world: World, row: list[Any], reason: str) -> None:
    stream = world.streams["card_limit"]
    world.writer.append(Batch(stream.name, stream.names, [[*row, row[-1]], [1, 1.0, 6, 6]]))
    assert _step(world)[:4] == (2, 1, 0, 1)
    world.settle()
    assert [row["reasons"] for row in world.rows("quarantine/card_limit")] == [reason]
    assert world.column("features/card_limit_v1", "card_id") == [1]


def test_a_row_known_before_it_was_true_is_parked(world: World) -> None:
    world.send("clicks", [1, "home", now()], known=now() - 10**9)
    assert _step(world).parked == 1


def test_a_frame_that_is_no_batch_does_not_stop_the_next_one(world: World) -> None:
    world.writer.append_payload(b"\xc1 no message")
    world.send("clicks", [1, "home", now()])
    _step(world)
    world.settle()
    assert world.column("sources/clicks", "number") == [1]
    assert [Path(name).suffix for name in world.segments()] == [".damaged"]


def test_what_nothing_declares_is_parked(world: World) -> None:
    world.writer.append(Batch("gone", ("x",), [[1, 5]], received_at=5))
    world.send("clicks", [1, "home", now()])
    assert _step(world).parked == 1
    world.settle()
    assert [row["reasons"] for row in world.rows("quarantine/gone")] == ["nothing of this name is declared any more"]
    assert world.column("sources/clicks", "number") == [1]


def test_a_name_declared_while_the_applier_runs_is_known_to_it(world: World) -> None:
    streams = world.streams
    metadata = Metadata(world.settings.metadata)
    record({"clicks": streams["clicks"]}, metadata)
    applier = world.applier()
    assert applier.streams.find("card_limit") is None
    record(streams, metadata)
    assert applier.streams.find("card_limit") == streams["card_limit"]
    metadata.close()
    applier.close()


def test_a_row_of_a_later_time_appears_at_its_time_and_not_before(tmp_path: Path) -> None:
    today, tomorrow = 1_000_000_000_000_000, 1_000_000_000_000_000 + duration("1d")
    world = World(settings_in(tmp_path, WINDROW_CLOCK="fixed:2001-09-09T01:46:40Z"))
    world.send("card_limit", [7, 500.0, today], [7, 900.0, tomorrow])
    assert _step(world)[:3] == (2, 1, 1)
    world.settle()
    assert _limit(world.settings, 7) == 500.0
    assert world.column("features/card_limit_v1", "limit") == [500.0, 900.0]
    world.settings = settings_in(tmp_path, WINDROW_CLOCK="fixed:2001-09-10T01:46:40Z")
    assert _step(world)[:2] == (0, 1)
    assert _limit(world.settings, 7) == 900.0
    assert _step(world)[:2] == (0, 0)
    world.writer.close()


def test_with_the_clock_data_an_event_moves_now_on_before_it_is_seen(tmp_path: Path) -> None:
    world = World(settings_in(tmp_path, WINDROW_CLOCK="data"))
    world.send("card_limit", [7, 500.0, 10**15])
    _step(world)
    metadata = Metadata(world.settings.metadata)
    assert metadata.spans()["payments"].known == 10**15
    metadata.close()
    world.writer.close()


def test_one_applier_of_a_home_works_at_a_time(world: World) -> None:
    with elected(world.folder) as first, elected(world.folder) as second:
        assert (first, second) == (True, False)
    with elected(world.folder) as again:
        assert again


def test_events_are_in_the_states_of_their_entities_after_one_step(world: World) -> None:
    at = now() - 1000
    world.send("payments", [1, 7, 2.5, at], [2, 7, 1.5, at], [3, 8, 4.0, at])
    _step(world)
    assert asked(world.settings, card_spend, (7,)) == (4.0, 2)
    assert asked(world.settings, card_spend, (8,)) == (4.0, 1)
    assert asked(world.settings, card_spend, (9,)) == (0.0, 0)


def test_the_same_event_counts_once_however_often_and_late_it_is_sent(world: World) -> None:
    at = now() - 3_600_000_000
    world.send("payments", [1, 7, 2.5, at], [1, 7, 2.5, at])
    _step(world)
    # Newer events fold the first one: its id is not in the state any more.
    world.send("payments", *([number, 7, 1.0, at + number * 1_000_000] for number in range(2, 202)))
    world.send("payments", [1, 7, 2.5, at], known=now())
    _step(world)
    assert asked(world.settings, card_spend, (7,)) == (202.5, 201)


def test_an_event_that_belongs_to_no_entity_is_kept_in_the_lake_alone(world: World) -> None:
    world.send("payments", [1, None, 2.5, now()])
    assert _step(world).parked == 0
    world.settle()
    assert world.column("sources/payments", "payment_id") == [1]


def test_an_event_that_a_state_cannot_take_is_parked_and_the_others_count(world: World) -> None:
    exact = aggregate("exact", clicks, by=Entity("page", page="string"), features={"n": agg.count("1h", hop=None)})
    prepare(world.settings, exact)
    at = now() - 60_000_000_000
    world.streams = declared(exact)
    for start in range(0, 11_000, 1000):
        world.send("clicks", *([n, "home", at + n] for n in range(start, start + 1000)))
    world.send("clicks", [10_002, "shop", at])
    done = [_step(world) for _ in range(4)]
    assert sum(one.read for one in done) == 11_001
    assert sum(one.parked for one in done) > 0
    assert asked(world.settings, exact, ("shop",), at=at + 1) == (1,)


def test_homes_that_share_their_stores_do_not_take_each_others_positions(tmp_path: Path) -> None:
    shared = {"WINDROW_ONLINE": f"lmdb://{tmp_path}/online", "WINDROW_LAKE": str(tmp_path / "lake")}
    for number, name in enumerate(("first", "second", "first", "second"), start=1):
        world = World(settings_in(tmp_path / name, **shared))
        world.send("payments", [number, 7, 1.0, now() - 1000])
        world.send("clicks", [number, "home", now() - 1000])
        world.settle()
        world.writer.close()
    assert asked(world.settings, card_spend, (7,)) == (4.0, 4)
    assert world.column("sources/clicks", "number") == [1, 2, 3, 4]


def test_rows_of_a_group_that_is_online_with_other_columns_are_parked_and_the_others_go_on(world: World) -> None:
    with open_online(world.settings.online, write=True) as store:
        store.write("card_limit_v1", ["other"], [])
    world.send("card_limit", [7, 500.0, now()])
    world.send("payments", [1, 7, 1.0, now() - 1000])
    assert _step(world).parked == 1
    assert asked(world.settings, card_spend, (7,)) == (1.0, 1)
    world.settle()
    reasons = [row["reasons"] for row in world.rows("quarantine/card_limit")]
    assert reasons == ["group card_limit_v1 is online with other columns: raise its version"]


def test_keys_of_other_types_than_those_online_are_parked(world: World) -> None:
    with open_online(world.settings.online, write=True) as store:
        store.write("card_limit_v1", ["limit"], [(("seven",), Row(1, 1, 1, (5.0,)))])
    world.send("card_limit", [7, 500.0, now()])
    assert _step(world).parked == 1


def test_checks_that_cannot_run_park_their_rows_and_stop_nobody(world: World) -> None:
    streams = declared()
    broken = msgspec.structs.replace(streams["card_limit"], checks="tests.stores.ingest.world:nothing_here")
    metadata = Metadata(world.settings.metadata)
    record({**streams, "card_limit_v1": broken}, metadata)
    metadata.close()
    world.send("card_limit", [7, 500.0, now()])
    world.send("clicks", [1, "home", now() - 1000])
    assert _step(world)[:4] == (2, 1, 0, 1)
    world.settle()
    (parked,) = world.rows("quarantine/card_limit")
    assert parked["reasons"].startswith("the group's checks cannot run: ")
