"""From stored rows to the online store, by write order and by time, as one reads it from the store itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores.engine_log import queries
from windrow.errors import NotFoundError, StoreError
from windrow.features.group import FeatureGroup, feature_group
from windrow.features.source import Source
from windrow.schema import Entity
from windrow.stores import lake, publish
from windrow.stores.commits import Point
from windrow.stores.compaction import compact
from windrow.stores.lake import Lake
from windrow.stores.online.store import OnlineStore, Row, open_online
from windrow.stores.publish import publish_online, publish_states
from windrow.stores.reached import Published, Reached, reached_by

CARD, TEAM = Entity("card", card_id="int64"), Entity("team", league="string", number="int64")
payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
matches = Source("matches", event_time="ts", columns={"league": "string", "number": "int64", "goals": "int64"})


@feature_group(CARD)
def spend(payments: Any) -> Any:
    return payments.select("card_id", "amount", seen=payments.event_time, big=payments.amount > 2)


@feature_group(TEAM)
def form(matches: Any) -> Any:
    return matches.select("league", "number", "goals")


class World(NamedTuple):
    lake: Lake
    online: OnlineStore

    def add(self, *rows: tuple[int, float | None, int, int]) -> int:
        """Append (card, amount, event_time, known_at)."""
        return self.lake.table(spend.key).append(spend_rows(*rows))

    def run(self, now: int, **options: Any) -> tuple[int, int, int]:
        return tuple(publish_online(spend, self.lake, self.online, now, **options)[:3])  # type: ignore[return-value]

    def amounts(self, *cards: int) -> list[float | None]:
        found = self.online.read([("spend_v1", (card,)) for card in cards])
        return [row.values[0] if row else None for row in found]


def spend_rows(*rows: tuple[int, float | None, int, int]) -> pa.Table:
    cards, amounts, events, known = zip(*rows, strict=True)
    time = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "card_id": pa.array(cards, pa.int64()), "amount": pa.array(amounts, pa.float64()),
            "seen": pa.array(events, time), "big": pa.array([a is not None and a > 2 for a in amounts]),
            "event_time": pa.array(events, time), "known_at": pa.array(known, time),
        }
    )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
        yield World(Lake(str(tmp_path / "lake")), online)


def test_the_newest_row_of_each_entity_is_published_with_counts_of_what_was_read_and_written(world: World) -> None:
    world.add((7, 1.5, 10, 10), (7, 3.5, 30, 30), (7, 2.5, 20, 20), (8, 4.5, 10, 10))
    assert publish_online(spend, world.lake, world.online, 100) == Published(4, 2, 2, 2)
    assert world.amounts(7, 8, 9) == [3.5, 4.5, None]


def test_a_second_run_reads_nothing_and_writes_nothing(world: World) -> None:
    world.add((7, 1.5, 10, 10), (8, 2.5, 20, 20))
    assert [world.run(100), world.run(100)] == [(2, 2, 2), (0, 0, 2)]


def test_a_run_reads_only_what_was_written_since(world: World) -> None:
    world.add((7, 1.5, 10, 10), (8, 2.5, 20, 20))
    world.run(100)
    world.add((8, 3.5, 30, 30))
    assert (world.run(100), world.amounts(7, 8)) == ((1, 1, 2), [1.5, 3.5])


def test_a_delayed_row_appears_at_its_time_without_any_commit(world: World) -> None:
    world.add((7, 1.5, 10, 10), (7, 2.5, 20, 200), (8, 3.5, 300, 300))
    assert [(world.run(now), world.amounts(7, 8)) for now in (100, 199, 200, 300)] == [
        ((1, 1, 1), [1.5, None]),
        ((0, 0, 1), [1.5, None]),
        ((1, 1, 1), [2.5, None]),
        ((1, 1, 2), [2.5, 3.5]),
    ]


def test_a_row_written_late_is_read_and_does_not_overwrite_a_newer_one(world: World) -> None:
    world.add((7, 3.5, 30, 30))
    world.run(100)
    world.add((7, 2.5, 20, 20))
    assert (world.run(100), world.amounts(7)) == ((1, 0, 1), [3.5])


def test_a_correction_is_published(world: World) -> None:
    for amount in (1.5, 9.0):
        world.add((7, amount, 10, 10))
        made = world.run(100)
    assert (made, world.amounts(7)) == ((1, 1, 1), [9.0])


def test_a_clock_that_goes_back_publishes_nothing_too_early_and_loses_nothing(world: World) -> None:
    world.add((7, 1.5, 10, 10))
    world.run(100)
    world.add((7, 2.5, 90, 90))
    found = []
    for now in (50, 95):
        world.run(now)
        found += world.amounts(7)
    assert found == [1.5, 2.5]


def test_a_commit_that_was_under_way_when_the_last_run_read_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = lake.next_seq()
    world.add((7, 1.5, 10, 10))
    world.run(100)
    # Its number was given before the other row's, and it is committed after the run.
    monkeypatch.setattr(lake, "next_seq", lambda: early)
    world.add((8, 2.5, 20, 20))
    assert (world.run(100), world.amounts(7, 8)) == ((1, 1, 2), [1.5, 2.5])


def test_where_a_row_was_deleted_an_older_one_is_in_force_again_or_none(world: World) -> None:
    world.add((7, 1.5, 10, 10), (7, 2.5, 20, 20), (8, 3.5, 10, 10))
    world.run(100)
    wrong = spend_rows((7, 2.5, 20, 20), (8, 3.5, 10, 10)).select(["card_id", "amount"])
    world.lake.table(spend.key).delete(wrong)
    assert (world.run(100), world.amounts(7, 8)) == ((0, 0, 1), [1.5, None])


def test_a_row_that_a_stream_wrote_before_the_first_load_stays(world: World) -> None:
    world.online.write("spend_v1", list(spend.features), [((7,), Row(90, 90, 0, (9.0, 90, True)))])
    world.add((7, 1.5, 10, 10), (8, 2.5, 20, 20))
    assert (world.run(100), world.amounts(7, 8)) == ((2, 1, 2), [9.0, 2.5])


def test_only_the_keys_in_use_are_published_where_they_are_given(world: World) -> None:
    world.add((7, 1.5, 10, 10), (8, 2.5, 20, 20), (9, 3.5, 30, 30))
    keys = pa.table({"card_id": pa.array([7, 9], pa.int64())})
    assert (world.run(100, keys=keys), world.amounts(7, 8, 9)) == ((2, 2, 2), [1.5, None, 3.5])
    # A key that came into use later has rows that an earlier run has passed.
    more = pa.table({"card_id": pa.array([8], pa.int64())})
    assert (world.run(100, keys=more), world.amounts(8)) == ((1, 1, 3), [2.5])


def test_nulls_times_and_truth_reach_the_store_as_they_are(world: World) -> None:
    world.add((7, None, 10, 20))
    world.run(100)
    assert world.online.read([("spend_v1", (7,))])[0] == Row(
        10, 20, world.lake.table(spend.key).stats().seq, (None, 10, False)
    )


def test_composite_keys_of_text_and_number_are_published(world: World) -> None:
    time = pa.array([10, 20, 30], pa.timestamp("us", "UTC"))
    rows = {"league": ["a", "ü漢", "a"], "number": [-1, 0, 2**63 - 1], "goals": [1, None, 3]}
    world.lake.table(form.key).append(pa.table({**rows, "event_time": time, "known_at": time}))
    assert publish_online(form, world.lake, world.online, 100)[:3] == (3, 3, 3)
    wanted = [("form_v1", key) for key in (("a", -1), ("ü漢", 0), ("a", 2**63 - 1), ("a", 0))]
    assert [row and row.values for row in world.online.read(wanted)] == [(1,), (None,), (3,), None]


def test_one_append_that_holds_a_row_twice_is_one_entity(world: World) -> None:
    world.add((7, 1.5, 10, 10), (7, 1.5, 10, 10))
    assert publish_online(spend, world.lake, world.online, 100) == Published(2, 1, 1, 1)


def test_a_first_load_of_several_transactions_is_counted_whole(world: World) -> None:
    world.add(*[(card, float(card), 10, 10) for card in range(45_000)])
    assert (world.run(100), world.amounts(0, 44_999)) == ((45_000, 45_000, 45_000), [0.0, 44999.0])


def test_a_group_that_was_never_materialised_is_named_and_nothing_is_declared(world: World) -> None:
    with pytest.raises(NotFoundError, match="Nothing is stored under 'features/spend_v1' yet"):
        world.run(100)
    assert world.online.columns("spend_v1") is None


def test_a_load_that_does_not_bring_every_entity_is_refused_and_nothing_of_it_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add((7, 1.5, 10, 10), (8, 2.5, 20, 20), (8, 3.5, 30, 30))
    monkeypatch.setattr(publish, "newest", lambda rows, keys: rows.filter(rows.card_id == 7))
    with pytest.raises(StoreError, match="rows of 2 entities were read, of 1 reached the online store"):
        world.run(100)
    assert (world.amounts(7), reached_by(spend, world.online)) == ([None], None)


def test_up_to_where_a_group_was_published_stands_in_the_online_store(world: World) -> None:
    seq = world.add((7, 1.5, 10, 10))
    world.run(100)
    found = reached_by(spend, world.online)
    assert found is not None
    assert (found.seq, found.now, found.rows) == (seq, 100, 1)


def test_states_of_an_aggregate_replace_the_old_ones_together_with_what_came_meanwhile(world: World) -> None:
    group: FeatureGroup = spend
    world.online.write("spend_v1", ["state"], [((1,), Row(1, 1, 0, (b"gone",)))])
    made = publish_states(
        group,
        world.online,
        [((7,), Row(10, 10, 0, (b"seven",)))],
        before=lambda txn: txn.set("spend_v1", (8,), Row(20, 20, 0, (b"eight",))),
    )
    assert made[2] == 2
    found = world.online.read([("spend_v1", (card,)) for card in (1, 7, 8)])
    assert [row and row.values for row in found] == [None, (b"seven",), (b"eight",)]


def test_what_is_kept_of_a_run_survives_a_change_of_process(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.table(spend.key).append(spend_rows((7, 1.5, 10, 10)))
    found = []
    for _ in range(2):
        with open_online(f"lmdb://{tmp_path}/online", write=True) as online:
            found.append(publish_online(spend, lake, online, 100).rows_read)
    assert found == [1, 0]
    kept = msgspec.msgpack.encode(Reached(1, 2, 3, 4, Point("t", 5), 6))
    assert kept == b"\x96\x01\x02\x03\x04\x92\xa1t\x05\x06"
    # As an older windrow kept it: everything is asked of the engine once more.
    assert msgspec.msgpack.decode(b"\x94\x01\x02\x03\x04", type=Reached) == Reached(1, 2, 3, 4)


def test_a_run_with_nothing_new_asks_the_engine_nothing_after_a_compaction_too(world: World) -> None:
    world.add((7, 1.5, 10, 10))
    world.add((8, 1.5, 10, 10))
    world.run(100)
    compact(world.lake.table(spend.key), everything=True)
    assert queries(lambda: world.run(200)) == 0
    assert world.run(200) == (0, 0, 2)


def test_a_few_new_rows_are_published_without_asking_the_engine(world: World) -> None:
    world.add(*((card, 1.5, 10, 10) for card in range(50)))
    world.run(100)
    world.add((7, 2.5, 20, 20), (7, 3.5, 20, 20), (60, 4.5, 15, 90), (8, None, 300, 300))
    made: list[Any] = []
    assert queries(lambda: made.append(publish_online(spend, world.lake, world.online, 200))) == 0
    assert made == [Published(3, 2, 51, 2)]
    assert world.amounts(7, 8, 60) == [3.5, 1.5, 4.5]
    assert world.run(200) == (0, 0, 51)
    assert world.run(300) == (1, 1, 51)  # a row that was appended before its time


# The proof: after any history of writes, deletions, compactions and times, what is online is what one first run makes

STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(0, 9)] * 2), min_size=1, max_size=4)),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("compact"), st.none()),
)  # fmt: skip


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(steps=st.lists(st.tuples(STEP, st.integers(0, 3)), min_size=2, max_size=6))
def test_however_a_table_came_to_be_the_same_is_online(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    check(tmp_path_factory.mktemp("law"), steps)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, database=None)
@given(steps=st.lists(st.tuples(STEP, st.integers(0, 3)), min_size=2, max_size=10))
def test_however_a_table_came_to_be_the_same_is_online_in_many_cases(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    check(tmp_path_factory.mktemp("law"), steps)


def check(folder: Path, steps: list[Any]) -> None:
    made, now = Lake(str(folder / "lake")), 0
    table = made.table(spend.key)
    table.append(spend_rows((0, 0.0, 0, 0)))
    with open_online(f"lmdb://{folder}/online", write=True) as online:
        world = World(made, online)
        world.run(now)
        for (what, given_), passed in steps:
            if what == "add":
                world.add(*((card, float(amount), at, max(at, known)) for card, amount, at, known in given_))
            elif what == "delete":
                table.delete(pa.table({"card_id": pa.array([given_], pa.int64())}))
            else:
                compact(table, everything=True)
            now += passed
            world.run(now)
        found = online.read([("spend_v1", (card,)) for card in range(4)])
    with open_online(f"lmdb://{folder}/first", write=True) as first:
        publish_online(spend, made, first, now)
        assert [r and r[:2] for r in found] == [r and r[:2] for r in first.read([("spend_v1", (c,)) for c in range(4)])]
