"""Promises of the embedded online store; the ones of every online store are inherited."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.contract.online_contract import OnlineContract, row
from windrow.errors import SettingsError, StoreError
from windrow.stores.online import OnlineStore, Row, open_online
from windrow.stores.online_lmdb import LmdbStore

SPAWN = multiprocessing.get_context("spawn")
SMALL_MAP = 1 << 16


class TestLmdb(OnlineContract):
    @pytest.fixture
    def open_writer(self, tmp_path: Path) -> Callable[[], OnlineStore]:
        return lambda: LmdbStore(tmp_path / "online", write=True, wait=0)

    @pytest.fixture
    def open_reader(self, tmp_path: Path) -> Callable[[], OnlineStore]:
        return lambda: LmdbStore(tmp_path / "online")


def test_the_url_names_the_folder(tmp_path: Path) -> None:
    with open_online(f"lmdb://{tmp_path}/x/online", write=True) as store:
        store.write("g_v1", ["a"], [])
    assert (tmp_path / "x" / "online" / "data.mdb").is_file()


@pytest.mark.parametrize("url", ["redis://:secret@host/0", "/folder", "lmdb://relative"])
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


def test_a_second_writer_is_told_which_process_writes(tmp_path: Path) -> None:
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_write_in_steps, args=(tmp_path, theirs))
    child.start()
    ours.send(1)
    assert ours.recv() == 1
    with pytest.raises(StoreError, match=rf"is being written by process {child.pid}\. Next: wait"):
        LmdbStore(tmp_path, write=True, wait=0)
    ours.send(None)
    child.join()
    LmdbStore(tmp_path, write=True, wait=0).close()


def test_a_writer_waits_for_the_other_to_finish(tmp_path: Path) -> None:
    first = LmdbStore(tmp_path, write=True)
    threading.Timer(0.2, first.close).start()
    with LmdbStore(tmp_path, write=True, wait=10) as second:
        assert second.write("g_v1", ["a"], [((1,), row(1.0))]) == 1


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
    with LmdbStore(tmp_path, write=True, wait=0) as store:
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


def test_a_reader_killed_while_reading_does_not_pin_pages_for_ever(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, write=True) as store:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_hold_a_read, args=(tmp_path, theirs))
    child.start()
    ours.recv()
    with LmdbStore(tmp_path, write=True) as store:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert str(child.pid) in store._shared.env.readers()
        store.write("g_v1", ["a"], [((1,), row(2.0, at=200))])
        assert str(child.pid) not in store._shared.env.readers()


def test_readers_of_one_process_go_on_while_a_writer_opens_and_closes(tmp_path: Path) -> None:
    LmdbStore(tmp_path, write=True).close()
    with LmdbStore(tmp_path) as reader:
        for at in (1, 2):
            with LmdbStore(tmp_path, write=True) as writer:
                writer.write("g_v1", ["a"], [((1,), row(float(at), at=at))])
            assert reader.read([("g_v1", (1,))]) == [row(float(at), at=at)]


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


def test_a_forgotten_writer_gives_its_lock_back(tmp_path: Path) -> None:
    LmdbStore(tmp_path, write=True)
    LmdbStore(tmp_path, write=True, wait=0).close()


def test_a_full_disk_is_a_store_error_and_leaves_the_old_rows(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from windrow.errors import StoreError
from windrow.stores.online import Row
from windrow.stores.online_lmdb import LmdbStore
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


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used: Not a directory. Next: check the folder"):
        LmdbStore(tmp_path / "file" / "online", write=True)


def test_importing_the_store_loads_no_engine(tmp_path: Path) -> None:
    heavy = "{'pyarrow', 'ibis', 'duckdb', 'pandas', 'deltalake'}"
    code = f"import sys, windrow.stores.online_lmdb; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
