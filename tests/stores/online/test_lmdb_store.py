"""Promises of the embedded online store; the ones of every online store are inherited."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from windrow.errors import SettingsError, StoreError
from windrow.stores.online import lmdb_compact, lmdb_environment
from windrow.stores.online.generations import LEFT_ALONE, retire_dead
from windrow.stores.online.lmdb_store import LmdbStore
from windrow.stores.online.load import attempt
from windrow.stores.online.rows import Packed, pack_key, pack_row
from windrow.stores.online.store import Row, open_online

SPAWN = multiprocessing.get_context("spawn")
SMALL_MAP = 1 << 16


def row(*values: object, at: int = 100) -> Row:
    return Row(at, at, 1, values)


def test_the_url_names_the_folder(tmp_path: Path) -> None:
    with open_online(f"lmdb://{tmp_path}/x/online", write=True) as store:
        store.write("g_v1", ["a"], [])
    assert (tmp_path / "x" / "online" / "data.mdb").is_file()


@pytest.mark.parametrize("url", ["mongo://:secret@host/0", "/folder", "lmdb://relative"])
def test_a_url_of_no_backend_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="WINDROW_ONLINE names no online store.*lmdb:///absolute/folder") as told:
        open_online(url)
    assert "secret" not in str(told.value)


def _write_in_steps(path: Path, pipe: Connection) -> None:
    with LmdbStore(path, write=True, map_size=SMALL_MAP) as store:
        while (count := pipe.recv()) is not None:
            pipe.send(store.write("g_v1", ["a", "b"], [((i,), row(float(i), "x" * 100)) for i in range(count)]))


def test_a_reader_in_another_process_follows_a_growing_map(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_write_in_steps, args=(tmp_path, theirs))
    child.start()
    ours.send(1)
    assert ours.recv() == 1
    with LmdbStore(tmp_path, map_size=SMALL_MAP) as reader:
        assert reader.read([("g_v1", (0,))]) == [row(0.0, "x" * 100)]
        ours.send(20_000)  # about 3 MB into a map of 64 KiB
        assert ours.recv() == 19_999
        assert reader.read([("g_v1", (19_999,))]) == [row(19999.0, "x" * 100)]
        assert reader.count("g_v1") == 20_000
    ours.send(None)
    child.join()
    assert child.exitcode == 0


def test_the_map_of_the_writer_itself_grows(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True, map_size=SMALL_MAP) as store:
        store.write("g_v1", ["a"], [((i,), row("x" * 100)) for i in range(5000)])
        assert store.count("g_v1") == 5000


def test_two_processes_write_by_turns(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_write_in_steps, args=(tmp_path, theirs))
    child.start()
    ours.send(1)
    assert ours.recv() == 1
    with LmdbStore(tmp_path, write=True) as store:
        assert store.write("g_v1", ["a", "b"], [((1,), row(1.0, "ours"))]) == 1
        ours.send(3)
        assert ours.recv() == 1
        assert store.count("g_v1") == 3
    ours.send(None)
    child.join()


def _write_until_killed(path: Path, pipe: Connection) -> None:
    with LmdbStore(path, write=True) as store:
        for at in range(1, 10_000):
            store.write("g_v1", ["a", "b"], [((i,), row(at, str(at), at=at)) for i in range(500)])
            pipe.send(at)


def test_a_writer_killed_in_the_middle_leaves_old_or_new_rows_and_no_lock(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_write_until_killed, args=(tmp_path, theirs))
    child.start()
    while ours.recv() < 3:
        pass
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with LmdbStore(tmp_path, write=True) as store:
        rows = [found for found in store.read([("g_v1", (i,)) for i in range(500)]) if found]
        assert len(rows) == 500
        assert len({r.event_time for r in rows}) == 1
        assert all(r == Row(r.event_time, r.event_time, 1, (r.event_time, str(r.event_time))) for r in rows)
        assert store.write("g_v1", ["a", "b"], [((1,), row(1, "1", at=10**6))]) == 1


def _hold_a_read(path: Path, pipe: Connection) -> None:
    store = LmdbStore(path)
    held = store._shared.env.begin()
    pipe.send(held.id())
    time.sleep(60)


def test_a_reader_killed_while_reading_is_forgotten_when_the_next_writer_starts(tmp_path: Path) -> None:
    LmdbStore(tmp_path, write=True).close()
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_hold_a_read, args=(tmp_path, theirs))
    child.start()
    ours.recv()
    with LmdbStore(tmp_path) as reader:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert str(child.pid) in reader._shared.env.readers()
        with LmdbStore(tmp_path, write=True) as store:
            assert str(child.pid) not in store._shared.env.readers()


def test_readers_of_one_process_go_on_while_a_writer_opens_and_closes(tmp_path: Path) -> None:
    LmdbStore(tmp_path, write=True).close()
    with LmdbStore(tmp_path) as reader:
        for at in (1, 2):
            with LmdbStore(tmp_path, write=True) as writer:
                writer.write("g_v1", ["a"], [((1,), row(float(at), at=at))])
            assert reader.read([("g_v1", (1,))]) == [row(float(at), at=at)]


def test_writing_inside_an_open_transaction_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True) as store:
        store.write("g_v1", ["a"], [])
        with store.transaction() as txn:
            txn.put("g_v1", (1,), row(1.0))
            with pytest.raises(StoreError, match="is written inside a transaction of the same thread"):
                store.write("g_v1", ["a"], [((2,), row(2.0))])
            with pytest.raises(StoreError, match="use the transaction's own put"), store.transaction():
                pass
        assert (store.count("g_v1"), store.write("g_v1", ["a"], [((2,), row(2.0))])) == (1, 1)


def test_threads_read_while_a_writer_grows_the_map(tmp_path: Path) -> None:
    wrong: list[object] = []
    stop = threading.Event()
    with LmdbStore(tmp_path, write=True, map_size=SMALL_MAP) as writer:
        writer.write("g_v1", ["a"], [((0,), row("x" * 100))])

        def read() -> None:
            with LmdbStore(tmp_path) as reader:
                while not stop.is_set():
                    wrong.extend(r for r in reader.read([("g_v1", (0,))] * 20) if r != row("x" * 100))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(0, 10_000, 500):
            writer.write("g_v1", ["a"], [((start + i,), row("x" * 100)) for i in range(500)])
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_full_disk_is_a_store_error_and_leaves_the_old_rows(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from windrow.errors import StoreError
from windrow.stores.online.store import Row
from windrow.stores.online.lmdb_store import LmdbStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with LmdbStore(Path({str(tmp_path)!r}), write=True) as store:
    store.write("g_v1", ["a"], [((1,), Row(1, 1, 1, ("old",)))])
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        store.write("g_v1", ["a"], [((i,), Row(2, 2, 2, ("x" * 100,))) for i in range(5000)])
    except StoreError as error:
        print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "cannot be used: " in told
    with LmdbStore(tmp_path) as store:
        assert store.read([("g_v1", (1,))]) == [Row(1, 1, 1, ("old",))]
        assert store.count("g_v1") == 1


def test_files_that_are_no_store_are_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 20_000)
    with pytest.raises(StoreError, match="cannot be used"):
        LmdbStore(tmp_path)


def _load_until_killed(path: Path, pipe: Connection) -> None:
    with LmdbStore(path, write=True) as store:
        for number in range(1, 10_000):
            with store.bulk("g_v1", ["a"]) as load:
                for start in range(0, 3000, 1000):
                    load.write([((i,), row(number)) for i in range(start, start + 1000)])
                    pipe.send((number, start))
                load.switch()


def test_a_loader_killed_anywhere_leaves_the_old_generation_or_the_new_one_whole(tmp_path: Path) -> None:
    keys = [("g_v1", (i,)) for i in range(3000)]
    with LmdbStore(tmp_path, write=True) as store:
        store.write("g_v1", ["a"], [((i,), row(0)) for i in range(3000)])
    for kill_at in range(5):
        ours, theirs = SPAWN.Pipe()
        child = SPAWN.Process(target=_load_until_killed, args=(tmp_path, theirs))
        child.start()
        while ours.recv() < (1, 1000 * (kill_at % 3)):
            pass
        time.sleep(random.random() / 50)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with LmdbStore(tmp_path) as reader:
            found = {r.values if r else None for r in reader.read(keys)}
            assert (len(found), reader.count("g_v1")) == (1, 3000)
            assert found != {None}


def test_what_a_killed_loader_left_is_erased_after_an_hour_and_what_it_retired_at_once(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True) as store:
        store.write("g_v1", ["a"], [((i,), row(0)) for i in range(100)])
        store.bulk("g_v1", ["a"]).write([((i,), row(1)) for i in range(100)])  # never switched nor closed
    entries = []
    for late in (0, 2 * LEFT_ALONE):
        with LmdbStore(tmp_path, write=True) as store:
            attempt(store, lambda txn, late=late: retire_dead(txn, now=time.time_ns() // 1000 + late))  # type: ignore[misc]
            store.erase_retired()
            entries.append(store._shared.env.stat()["entries"])
    assert entries[0] - entries[1] == 100


def _read_until_killed(path: Path, reading: Event) -> None:
    with LmdbStore(path) as store:
        while True:
            store.read([("g_v1", (i,)) for i in range(500)])
            reading.set()


def _used_pages(path: Path) -> int:
    with LmdbStore(path) as reader:
        return int(reader._shared.env.info()["last_pgno"])


def test_readers_killed_at_random_do_not_make_the_store_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_environment, "CHECK_SECONDS", 0.2)
    rows = [((i,), row("x" * 100)) for i in range(2000)]
    pages: list[int] = []
    at = itertools.count(1)
    with LmdbStore(tmp_path, write=True) as store:

        def rewrite(times: int) -> None:
            for _ in range(times):
                event_time = next(at)
                store.write("g_v1", ["a"], [(key, r._replace(event_time=event_time)) for key, r in rows])
                time.sleep(0.02)

        rewrite(1)
        once = _used_pages(tmp_path)
        for _ in range(4):
            begun = [SPAWN.Event() for _ in range(2)]
            readers = [SPAWN.Process(target=_read_until_killed, args=(tmp_path, reading)) for reading in begun]
            for reader, reading in zip(readers, begun, strict=True):
                reader.start()
                assert reading.wait(60)
            rewrite(15)
            for reader in readers:
                time.sleep(random.random() / 50)
                reader.kill()
                reader.join()
            pages.append(_used_pages(tmp_path))
    # A reader that was killed while it read pins what is written until it is looked for, a few rewrites long.
    # One that stayed pinned would add every rewrite from its death on: `once` and more, 45 times.
    assert pages[-1] <= 12 * once


def _hold_for_good(path: Path, pipe: Connection) -> None:
    store = LmdbStore(path)
    held = store._shared.env.begin()
    pipe.send(held.id())
    time.sleep(60)


def test_the_pages_of_a_dead_reader_are_used_again_and_those_of_a_living_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_environment, "CHECK_SECONDS", 0.0)
    rows = [((i,), row("x" * 100)) for i in range(2000)]

    def rewrite(store: LmdbStore, first: int) -> int:
        for at in range(first, first + 10):
            store.write("g_v1", ["a"], [(key, r._replace(event_time=at)) for key, r in rows])
        return _used_pages(tmp_path)

    with LmdbStore(tmp_path, write=True) as store:
        quiet = rewrite(store, 1)
        ours, theirs = SPAWN.Pipe()
        child = SPAWN.Process(target=_hold_for_good, args=(tmp_path, theirs))
        child.start()
        ours.recv()
        held = rewrite(store, 20)
        child.kill()
        child.join()
        after = [rewrite(store, first) for first in (40, 60, 80)]
    assert held > 2 * quiet
    assert after[-1] <= held + 50


def test_the_bytes_of_a_deleted_entity_leave_every_file(tmp_path: Path) -> None:
    secret = "forget-me-" + "s" * 40
    with LmdbStore(tmp_path, write=True) as store:
        for at in (1, 2, 3):
            rows = [
                ((f"{i:05d}{secret if i == 500 else ''}",), row(f"v{i}{secret if i == 500 else ''}", at=at))
                for i in range(3000)
            ]
            store.write("g_v1", ["a"], rows)
        assert _holding(tmp_path, secret) == ["data.mdb"]
        assert store.delete("g_v1", [(f"00500{secret}",)]) == 1
        store.compact()
        assert _holding(tmp_path, secret) == []
        assert store.count("g_v1") == 2999
    assert [file.name for file in tmp_path.glob("data*.mdb")] == ["data-1.mdb"]


def _holding(folder: Path, secret: str) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes())


def test_compaction_gives_space_back(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True) as store:
        store.write("g_v1", ["a"], [((i,), row("x" * 200)) for i in range(10_000)])
        store.delete("g_v1", [(i,) for i in range(9_900)])
        before = _used_pages(tmp_path)
        store.compact()
        assert _used_pages(tmp_path) < before / 20


def _compact_until_killed(path: Path, pipe: Connection) -> None:
    with LmdbStore(path, write=True) as store:
        while True:
            pipe.send(None)
            store.compact()


def test_a_compaction_killed_anywhere_loses_nothing_and_the_next_one_ends_it(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True) as store, LmdbStore(tmp_path) as reader:
        store.write("g_v1", ["a"], [((i,), row(float(i))) for i in range(5000)])
        for at in range(1, 6):
            ours, theirs = SPAWN.Pipe()
            child = SPAWN.Process(target=_compact_until_killed, args=(tmp_path, theirs))
            child.start()
            for _ in range(2):
                ours.recv()
            time.sleep(random.random() / 20)
            child.kill()
            child.join()
            assert store.write("g_v1", ["a"], [((at,), row("after", at=100 + at))]) == 1
            assert [r and r.values for r in reader.read([("g_v1", (at,)), ("g_v1", (4999,))])] == [
                ("after",),
                (4999.0,),
            ]
            with LmdbStore(tmp_path, write=True) as other:
                assert other.count("g_v1") == 5000
                other.compact()
            assert len(list(tmp_path.glob("data*.mdb"))) == 1


def test_a_moved_store_is_followed_where_the_mover_died_before_it_said_so(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True) as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        old = (tmp_path / "data.mdb").read_bytes()
        with store._shared.writer() as txn:  # the old file, as it is when the move is committed and no more
            lmdb_compact._copy(txn, tmp_path / "data-1.mdb", 1 << 24)
            txn.put(lmdb_environment.MOVED_KEY, b"data-1.mdb")
    assert old != (tmp_path / "data.mdb").read_bytes()
    with LmdbStore(tmp_path) as reader:
        assert reader.read([("g_v1", (1,))]) == [row(1.0)]
        assert reader._shared.file.name == "data-1.mdb"
    with LmdbStore(tmp_path, write=True) as store:
        assert store.write("g_v1", ["a"], [((2,), row(2.0))]) == 1
        assert store.count("g_v1") == 2


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used: Not a directory. Next: check the folder"):
        LmdbStore(tmp_path / "file" / "online", write=True)


def test_importing_the_store_loads_no_engine(tmp_path: Path) -> None:
    heavy = "{'pyarrow', 'ibis', 'duckdb', 'pandas', 'deltalake'}"
    code = f"import sys, windrow.stores.online.lmdb_store; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_load_out_of_order_stores_and_counts_every_entity(tmp_path: Path) -> None:
    packed = [(pack_key((n,)), pack_row(Row(1, 1, 1, (n,)))) for n in (5, 1, 3, 2, 300, 4, 70_000, 6)]
    with LmdbStore(tmp_path / "online", write=True) as store, store.bulk("g_v1", ["x"]) as load:
        load.write_packed([Packed(("int",), *map(list, zip(*part, strict=True))) for part in (packed[:4], packed[4:])])
        assert load.switch() == (8, 8)
        assert [row and row.values for row in store.read([("g_v1", (n,)) for n in (1, 2, 3, 4, 5, 6, 300, 70_000)])] == [
            (1,), (2,), (3,), (4,), (5,), (6,), (300,), (70_000,),
        ]  # fmt: skip
