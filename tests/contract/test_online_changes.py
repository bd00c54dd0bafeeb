"""What every online store promises of transactions, bulk loads and deletion."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.contract.rows import Open, row
from windrow.errors import StoreError
from windrow.stores.online.load import Load, Loaded, attempt
from windrow.stores.online.store import OnlineStore, Row
from windrow.stores.online.transaction import Conflict, Transaction


def state(text: bytes, at: int = 100) -> Row:
    return Row(at, at, 0, (text,))


# Order of arrival


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_newest_row_stays_whatever_the_order_and_the_way_it_is_written(
    open_writer: Open, order: tuple[int, ...]
) -> None:
    rows = [Row(-5, 9, 9, ("old",)), Row(7, 7, 1, ("newer",)), Row(7, 8, 0, ("newest",))]
    with open_writer() as store:
        store.write("a_v1", ["x"], [])
        store.write("b_v1", ["x"], [])
        for place in order:
            store.write("a_v1", ["x"], [((1,), rows[place])])
            with store.transaction() as txn:
                txn.put("b_v1", (1,), rows[place])
        assert store.read([("a_v1", (1,)), ("b_v1", (1,))]) == [rows[2], rows[2]]


# Transactions


def test_a_transaction_writes_rows_states_and_marks_together(open_writer: Open, open_reader: Open) -> None:
    with open_writer() as store, open_reader() as reader:
        store.write("a_v1", ["x"], [])
        store.write("s_v1", ["state"], [])
        with store.transaction() as txn:
            assert txn.put("a_v1", (1,), row(1.0)) is True
            txn.set("s_v1", ("ü", -1), state(b"\x00\xff"))
            txn.set_mark("stream", b"12")
            assert reader.read([("a_v1", (1,)), ("s_v1", ("ü", -1))]) == [None, None]
            assert reader.mark("stream") is None
        assert reader.read([("a_v1", (1,)), ("s_v1", ("ü", -1))]) == [row(1.0), state(b"\x00\xff")]
        assert (reader.mark("stream"), reader.count("a_v1"), reader.count("s_v1")) == (b"12", 1, 1)


def test_a_transaction_that_fails_writes_nothing(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("a_v1", ["x"], [((1,), row(1.0))])

        def failing() -> None:
            with store.transaction() as txn:
                txn.put("a_v1", (1,), row(2.0, at=200))
                txn.delete("a_v1", (1,))
                txn.set_mark("stream", b"12")
                txn.seen("stream", "e1", until=10)
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            failing()
        assert (store.read([("a_v1", (1,))]), store.mark("stream")) == ([row(1.0)], None)
        with store.transaction() as txn:
            assert txn.seen("stream", "e1", until=10) is False


def test_a_transaction_reads_what_it_wrote(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("a_v1", ["x"], [((1,), row(1.0)), ((2,), row(2.0))])
        with store.transaction() as txn:
            txn.put("a_v1", (3,), row(3.0))
            assert txn.delete("a_v1", (1,)) is True
            assert txn.delete("a_v1", (1,)) is False
            txn.set_mark("m", b"x")
            assert txn.read([("a_v1", (key,)) for key in (1, 2, 3, 4)]) == [None, row(2.0), row(3.0), None]
            assert (txn.get("a_v1", (3,)), txn.mark("m")) == (row(3.0), b"x")
        assert store.count("a_v1") == 2


def test_put_keeps_the_newer_row_and_set_does_not(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("a_v1", ["x"], [((1,), row("new", at=9))])
        with store.transaction() as txn:
            assert txn.put("a_v1", (1,), row("old", at=5)) is False
            txn.set("a_v1", (2,), row("second", at=9))
            txn.set("a_v1", (2,), row("changed", at=5))
        assert store.read([("a_v1", (1,)), ("a_v1", (2,))]) == [row("new", at=9), row("changed", at=5)]
        assert store.count("a_v1") == 2


def test_two_writers_that_add_to_one_state_lose_nothing(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("s_v1", ["state"], [((1,), state(b""))])

    def add(letter: bytes) -> None:
        def work(txn: Transaction) -> None:
            found = txn.get("s_v1", (1,))
            assert found is not None
            txn.set("s_v1", (1,), state(found.values[0] + letter))

        with open_writer() as own:
            for _ in range(30):
                attempt(own, work)

    threads = [threading.Thread(target=add, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_writer() as store:
        (found,) = store.read([("s_v1", (1,))])
        assert found is not None
        assert sorted(found.values[0]) == sorted(b"a" * 30 + b"b" * 30)


def test_a_transaction_on_a_group_that_was_never_declared_is_refused_by_name(open_writer: Open) -> None:
    told = pytest.raises(StoreError, match="group 'no_v1' is not in the online store. Next: ")
    with open_writer() as store, told, store.transaction() as txn:
        txn.put("no_v1", (1,), row(1.0))


def test_a_transaction_checks_keys_and_values_as_a_write_does(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("a_v1", ["x"], [((1,), row(1.0))])
        with (
            pytest.raises(StoreError, match=r"has a key of \(int\), but was given \(str\)"),
            store.transaction() as txn,
        ):
            txn.put("a_v1", ("1",), row(1.0))
        with (
            pytest.raises(StoreError, match=r"has a key of \(int\), but was given \(str\)"),
            store.transaction() as txn,
        ):
            txn.get("a_v1", ("1",))
        with pytest.raises(StoreError, match="has 1 columns, but a row has 2 values"), store.transaction() as txn:
            txn.set("a_v1", (1,), row(1.0, 2.0))
        with pytest.raises(StoreError, match="a value or time is beyond 64 bits"), store.transaction() as txn:
            txn.set("a_v1", (1,), row(2**70))


def test_a_reader_has_no_transactions(open_writer: Open, open_reader: Open) -> None:
    open_writer().close()
    with open_reader() as reader, pytest.raises(StoreError, match="is open for reading"), reader.transaction():
        pass


def test_a_transaction_of_more_than_the_map_holds_is_written_whole(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("s_v1", ["state"], [])
        with store.transaction() as txn:
            for key in range(300):
                txn.set("s_v1", (key,), state(bytes(5000)))
        assert store.count("s_v1") == 300


# Event ids


def test_an_event_is_seen_once_per_stream_and_type_of_id(open_writer: Open) -> None:
    ids = [1, "1", b"1", "ü漢", "x" * 1000, -(2**63)]
    with open_writer() as store:
        with store.transaction() as txn:
            assert [txn.seen("a", id, until=10) for id in ids] == [False] * 6
            assert txn.seen("a", 1, until=10) is True
            assert txn.seen("b", 1, until=10) is False
        with store.transaction() as txn:
            assert [txn.seen("a", id, until=10) for id in ids] == [True] * 6
            assert txn.seen("a", "x" * 999, until=10) is False


def test_event_ids_are_forgotten_when_their_time_is_over_and_not_before(open_writer: Open) -> None:
    with open_writer() as store:
        with store.transaction() as txn:
            for until in (-5, 10, 20):
                txn.seen("a", f"e{until}", until=until)
            txn.seen("b", "e10", until=10)
        with store.transaction() as txn:
            assert txn.prune("a", now=10) == 2
            assert txn.seen("a", "e10", until=30) is False
        with store.transaction() as txn:
            assert txn.prune("a", now=10) == 0
            assert [txn.seen("a", id, until=40) for id in ("e-5", "e10", "e20")] == [False, True, True]
            assert txn.seen("b", "e10", until=10) is True


def test_pruning_goes_in_steps(open_writer: Open) -> None:
    with open_writer() as store:
        with store.transaction() as txn:
            for number in range(10):
                txn.seen("a", number, until=number)
        steps = []
        for _ in range(4):
            with store.transaction() as txn:
                steps.append(txn.prune("a", now=100, limit=4))
        assert steps == [4, 4, 2, 0]


# Bulk loads


def test_readers_see_the_old_rows_whole_until_the_switch_and_the_new_ones_whole_after_it(
    open_writer: Open, open_reader: Open
) -> None:
    keys = [("g_v1", (i,)) for i in range(50)]
    with open_writer() as store, open_reader() as reader:
        store.write("g_v1", ["a"], [((i,), row("old", at=900)) for i in range(40)])
        with store.bulk("g_v1", ["a"]) as load:
            for start in (10, 30):
                assert load.write([((i,), row("new")) for i in range(start, start + 20)]) == 20
                assert reader.read(keys) == [row("old", at=900)] * 40 + [None] * 10
                assert reader.count("g_v1") == 40
            assert load.switch() == Loaded(40, 40)
        assert reader.read(keys) == [None] * 10 + [row("new")] * 40
        assert reader.count("g_v1") == 40


def test_a_reader_never_sees_half_a_load_while_loads_follow_each_other(open_writer: Open, open_reader: Open) -> None:
    keys = [("g_v1", (i,)) for i in range(200)]
    seen: set[frozenset[object]] = set()
    stop = threading.Event()

    def read() -> None:
        with open_reader() as reader:
            while not stop.is_set():
                seen.add(frozenset(found and found.values for found in reader.read(keys)))

    with open_writer() as store:
        store.write("g_v1", ["a"], [((i,), row(0)) for i in range(200)])
        thread = threading.Thread(target=read)
        thread.start()
        for number in range(1, 8):
            with store.bulk("g_v1", ["a"]) as load:
                for start in range(0, 200, 50):
                    load.write([((i,), row(number)) for i in range(start, start + 50)])
                load.switch()
            time.sleep(0.01)
        stop.set()
        thread.join()
    assert all(len(values) == 1 for values in seen)
    assert frozenset([(7,)]) in seen or len(seen) > 1


def test_an_incremental_load_shows_whole_rows_and_whole_transactions(open_writer: Open, open_reader: Open) -> None:
    """Half a load of this kind is some entities new and others old, each right at its own time."""
    keys = [("g_v1", (i,)) for i in range(30_000)]
    with open_writer() as store, open_reader() as reader:
        store.write("g_v1", ["a", "b"], [((i,), row("old", "old", at=1)) for i in range(30_000)])

        def rows() -> Iterator[tuple[tuple[int], Row]]:
            for i in range(30_000):
                if i == 25_000:  # the first transaction is done, the second has not begun
                    found = [r.values for r in reader.read(keys) if r]
                    assert found == [("new", "new")] * 20_000 + [("old", "old")] * 10_000
                yield (i,), row("new", "new", at=2)

        assert store.write("g_v1", ["a", "b"], rows()) == 30_000
        assert {r.values for r in reader.read(keys) if r} == {("new", "new")}


def test_a_load_that_is_left_without_a_switch_leaves_no_trace(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1,), row("old"))])
        with store.bulk("g_v1", ["a"]) as load:
            load.write([((i,), row("new", at=200)) for i in range(10)])
        assert (store.read([("g_v1", (1,)), ("g_v1", (2,))]), store.count("g_v1")) == ([row("old"), None], 1)
        with pytest.raises(StoreError, match="the bulk load of group 'g_v1' was superseded"):
            load.switch()


def test_rows_written_during_a_load_are_in_both_generations_and_the_newest_wins(open_writer: Open) -> None:
    with open_writer() as loader, open_writer() as stream:
        loader.write("g_v1", ["a"], [((0,), row("first", at=1))])
        with loader.bulk("g_v1", ["a"]) as load:
            load.write([((1,), row("loaded", at=5))])
            stream.write("g_v1", ["a"], [((1,), row("streamed", at=9)), ((2,), row("streamed", at=9))])
            with stream.transaction() as txn:
                txn.put("g_v1", (3,), row("streamed", at=3))
            load.write([((2,), row("loaded", at=5)), ((3,), row("loaded", at=5))])
            assert [r and r.values[0] for r in stream.read([("g_v1", (i,)) for i in range(4)])] == [
                "first", "streamed", "streamed", "streamed",
            ]  # fmt: skip
            assert load.switch() == Loaded(3, 3)
        found = stream.read([("g_v1", (i,)) for i in range(4)])
        assert [r and r.values[0] for r in found] == [None, "streamed", "streamed", "loaded"]


def test_what_is_done_before_a_switch_becomes_visible_with_it(open_writer: Open, open_reader: Open) -> None:
    with open_writer() as store, open_reader() as reader:
        store.write("s_v1", ["state"], [((1,), state(b"old"))])

        def replay(txn: Transaction) -> None:
            found = txn.get("s_v1", (1,))
            assert found is not None
            txn.set("s_v1", (1,), state(found.values[0] + b"+meanwhile"))
            txn.set_mark("stream", b"7")
            assert reader.read([("s_v1", (1,))]) == [state(b"old")]

        with store.bulk("s_v1", ["state"]) as load:
            load.write([((1,), state(b"loaded"))])
            load.switch(replay)
        assert (reader.read([("s_v1", (1,))]), reader.mark("stream")) == ([state(b"loaded+meanwhile")], b"7")


def test_a_state_that_is_set_during_a_load_is_the_replays_to_bring(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("s_v1", ["state"], [((1,), state(b"old"))])
        with store.bulk("s_v1", ["state"]) as load:
            with store.transaction() as txn:
                txn.set("s_v1", (1,), state(b"old+event"))
            load.write([((1,), state(b"loaded"))])
            load.switch()
        assert store.read([("s_v1", (1,))]) == [state(b"loaded")]


def test_the_load_that_began_last_wins(open_writer: Open) -> None:
    with open_writer() as store:
        first = store.bulk("g_v1", ["a"])
        first.write([((1,), row("first"))])
        with store.bulk("g_v1", ["a"]) as second:
            with pytest.raises(StoreError, match="was superseded: another one began"):
                first.write([((2,), row("first"))])
            second.write([((1,), row("second"))])
            second.switch()
        first.close()
        assert store.read([("g_v1", (1,)), ("g_v1", (2,))]) == [row("second"), None]


def test_a_stream_waits_for_one_transaction_of_a_load_and_not_for_the_load(open_writer: Open) -> None:
    waits: list[float] = []
    rows = [((i,), row(1.0, "x" * 50)) for i in range(60_000)]
    with open_writer() as loader:
        loader.write("s_v1", ["state"], [])
        loading = threading.Event()

        def load() -> None:
            with loader.bulk("g_v1", ["a", "b"]) as bulk:
                loading.set()
                bulk.write(rows)
                bulk.switch()

        thread = threading.Thread(target=load)
        with open_writer() as stream:
            thread.start()
            loading.wait()
            begin = time.perf_counter()
            while thread.is_alive():
                before = time.perf_counter()
                with stream.transaction() as txn:
                    txn.set("s_v1", (1,), state(b"event"))
                waits.append(time.perf_counter() - before)
            whole = time.perf_counter() - begin
        thread.join()
    assert len(waits) >= 3
    assert max(waits) < max(whole * 0.7, 0.5)


# Deletion


def test_a_deleted_entity_is_gone_and_the_others_stay(open_writer: Open) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((i,), row(float(i))) for i in range(5)])
        assert store.delete("g_v1", [(1,), (3,), (3,), (99,)]) == 2
        assert store.count("g_v1") == 3
        assert [r and r.values for r in store.read([("g_v1", (i,)) for i in range(5)])] == [
            (0.0,), None, (2.0,), None, (4.0,),
        ]  # fmt: skip


@pytest.mark.parametrize("there", [True, False])
def test_a_load_under_way_does_not_bring_a_deleted_entity_back(open_writer: Open, there: bool) -> None:
    with open_writer() as store:
        store.write("g_v1", ["a"], [((1 if there else 2,), row("old"))])
        load = store.bulk("g_v1", ["a"])
        load.write([((1,), row("loaded"))])
        assert store.delete("g_v1", [(1,)]) == int(there)
        with pytest.raises(StoreError, match="was superseded: .* an entity was deleted meanwhile. Next: load it again"):
            load.switch()
        load.close()
        assert store.read([("g_v1", (1,))]) == [None]


def test_compacting_changes_nothing_for_readers_and_writers_that_are_open(open_writer: Open, open_reader: Open) -> None:
    with open_writer() as store, open_writer() as other, open_reader() as reader:
        store.write("g_v1", ["a"], [((i,), row(float(i))) for i in range(100)])
        assert reader.count("g_v1") == 100
        store.delete("g_v1", [(i,) for i in range(50)])
        store.compact()
        assert [r and r.values for r in reader.read([("g_v1", (49,)), ("g_v1", (50,))])] == [None, (50.0,)]
        assert other.write("g_v1", ["a"], [((7,), row(7.0))]) == 1
        assert (store.count("g_v1"), reader.count("g_v1")) == (51, 51)
    with open_reader() as reader:
        assert reader.count("g_v1") == 51


def test_a_conflict_is_an_error_of_the_store() -> None:
    assert issubclass(Conflict, StoreError)


def test_ids_that_were_asked_for_together_are_answered_as_one_by_one(open_writer: Open) -> None:
    with open_writer() as store:
        with store.transaction() as txn:
            txn.seen("a", "e1", until=10)
        with store.transaction() as txn:
            txn.expect("a", ["e1", "e2", "e3"])
            txn.expect("a", [])
            assert [txn.seen("a", id, until=10) for id in ("e1", "e2", "e2", "e4")] == [True, False, True, False]
        with store.transaction() as txn:
            assert [txn.seen("a", id, until=10) for id in ("e1", "e2", "e3", "e4")] == [True, True, False, True]


class Twin:
    """A store, and two dictionaries that are told the same."""

    def __init__(self, store: OnlineStore) -> None:
        self.store = store
        self.seen: dict[int, Row] = {}
        self.loading: dict[int, Row] | None = None
        self.load: Load | None = None
        store.write("g_v1", ["a"], [])

    def write(self, key: int, new: Row) -> None:
        self.store.write("g_v1", ["a"], [((key,), new)])
        self._newest(key, new)

    def put(self, key: int, new: Row) -> None:
        attempt(self.store, lambda txn: txn.put("g_v1", (key,), new))
        self._newest(key, new)

    def set(self, key: int, new: Row) -> None:
        attempt(self.store, lambda txn: txn.set("g_v1", (key,), new))
        self.seen[key] = new

    def delete(self, key: int, _: Row) -> None:
        assert self.store.delete("g_v1", [(key,)]) == int(self.seen.pop(key, None) is not None)
        self.load = self.loading = None  # a deletion ends the load

    def bulk(self, *_: object) -> None:
        self.load, self.loading = self.store.bulk("g_v1", ["a"]), {}

    def fill(self, key: int, new: Row) -> None:
        if self.load is not None and self.loading is not None:
            self.load.write([((key,), new)])
            _keep_newest(self.loading, key, new)

    def switch(self, *_: object) -> None:
        if self.load is not None and self.loading is not None:
            self.load.switch()
            self.load, self.seen, self.loading = None, self.loading, None

    def compact(self, key: int, _: Row) -> None:
        if key == 0:
            self.store.compact()

    def _newest(self, key: int, new: Row) -> None:
        _keep_newest(self.seen, key, new)
        if self.loading is not None:
            _keep_newest(self.loading, key, new)


def _keep_newest(rows: dict[int, Row], key: int, new: Row) -> None:
    if key not in rows or rows[key][:3] < new[:3]:
        rows[key] = new


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_changes_ends_as_a_dictionary_would(open_writer: Open, open_reader: Open, seed: int) -> None:
    chance = random.Random(seed)
    changes = [Twin.write, Twin.put, Twin.set, Twin.delete, Twin.bulk, Twin.fill, Twin.switch, Twin.compact]
    with open_writer() as store, open_reader() as reader:
        twin = Twin(store)
        for step in range(60):
            change, key = chance.choice(changes), chance.randrange(6)
            change(twin, key, row(step, at=chance.randrange(-3, 4), seq=chance.randrange(3)))
            expected = [twin.seen.get(k) for k in range(6)]
            assert reader.read([("g_v1", (k,)) for k in range(6)]) == expected, (step, change.__name__)
            assert reader.count("g_v1") == len(twin.seen)
