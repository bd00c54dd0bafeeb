"""Promises of the online store on Redis that are its own; the ones of every online store are in tests/contract."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import redis

from tests.redis_server import RedisServer, redis_server
from windrow.doctor import examine
from windrow.errors import SettingsError, StoreError
from windrow.settings import Settings
from windrow.stores.online import redis_store as online_redis
from windrow.stores.online.load import attempt
from windrow.stores.online.store import Row, open_online
from windrow.stores.online.transaction import Conflict, Transaction

SPAWN = multiprocessing.get_context("spawn")


def row(*values: object, at: int = 100) -> Row:
    return Row(at, at, 1, values)


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    with redis.Redis.from_url(running.url) as client:
        client.flushall()
    return running


def client_of(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_both_ways_to_a_server_lead_to_the_same_store(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, open_online(server.socket_url) as reader:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        assert reader.read([("g_v1", (1,))]) == [row(1.0)]


def test_databases_of_one_server_are_stores_of_their_own(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, open_online(server.url[:-1] + "1", write=True) as other:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        assert other.read([("g_v1", (1,))]) == [None]


def test_every_key_is_the_stores_own_by_its_beginning(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, client_of(server) as client:
        client.set("other", "theirs")
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        with store.transaction() as txn:
            txn.seen("s", 1, until=5)
            txn.set_mark("m", b"x")
        with store.bulk("g_v1", ["a"]) as load:
            load.switch()
        assert [key for key in client.scan_iter() if not key.startswith(b"windrow:")] == [b"other"]


@pytest.mark.parametrize(
    "url",
    ["redis://:hunter2@127.0.0.1:not-a-port/0", "redis://:hunter2@127.0.0.1:6379/not-a-number", "unix://:hunter2@"],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises((SettingsError, StoreError)) as told:
        open_online(url)
    assert "hunter2" not in str(told.value)


def test_a_wrong_password_is_told_and_not_repeated(server: RedisServer) -> None:
    url = f"redis://:hunter2@127.0.0.1:{server.port}/0"
    with pytest.raises(StoreError, match="redis 127.0.0.1:.*, database 0 cannot be used") as told:
        open_online(url)
    assert "hunter2" not in f"{told.value} {told.value.__cause__!r} {told.value.__cause__}"


def test_a_server_that_is_not_there_is_a_store_error_that_says_where_it_was_looked_for(server: RedisServer) -> None:
    with pytest.raises(
        StoreError, match=r"redis 127.0.0.1:1, database 0 cannot be used: .*Next: check that the server runs"
    ):
        open_online("redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(StoreError, match=r"redis /nowhere.sock, database 0 cannot be used"):
        open_online("unix:///nowhere.sock?db=0")


def test_a_reader_goes_on_after_the_server_was_started_again() -> None:
    kept = redis_server("--appendonly", "yes", "--appendfsync", "always")
    with kept as server, open_online(server.url, write=True) as store, open_online(server.url) as reader:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        assert reader.read([("g_v1", (1,))]) == [row(1.0)]
        server.stop()
        with pytest.raises(StoreError, match="cannot be used"):
            reader.read([("g_v1", (1,))])
        server.start()
        assert reader.read([("g_v1", (1,))]) == [row(1.0)]
        assert store.write("g_v1", ["a"], [((2,), row(2.0))]) == 1


def test_a_server_that_lost_its_data_gives_nothing_rather_than_something_wrong() -> None:
    with redis_server() as server, open_online(server.url, write=True) as store, open_online(server.url) as reader:
        store.write("g_v1", ["a"], [((1,), row(1.0))])
        assert reader.read([("g_v1", (1,))]) == [row(1.0)]
        with client_of(server) as client:
            client.flushall()
        assert reader.read([("g_v1", (1,))]) == [None]
        assert reader.columns("g_v1") is None


def test_bytes_of_a_deleted_entity_leave_the_servers_files() -> None:
    secret = b"forget-me-" + b"s" * 40
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:

        def holding() -> list[str]:
            files = [file for file in server.folder.rglob("*") if file.is_file()]
            return [file.name for file in files if secret in file.read_bytes()]

        with open_online(server.url, write=True) as store:
            store.write("g_v1", ["a"], [((secret.decode(),), row(secret)), (("other",), row(b"stays"))])
            assert holding() != []
            assert store.delete("g_v1", [(secret.decode(),)]) == 1
            store.compact()
            assert holding() == []
            assert store.read([("g_v1", ("other",))]) == [row(b"stays")]


def test_a_switch_erases_the_rows_that_nobody_sees_any_more(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, client_of(server) as client:
        store.write("g_v1", ["a"], [((i,), row("old")) for i in range(1000)])
        store.write("other_v1", ["a"], [((i,), row("other")) for i in range(10)])
        before = client.dbsize()
        with store.bulk("g_v1", ["a"]) as load:
            load.write([((i,), row("new")) for i in range(10)])
            load.switch()
        assert before - client.dbsize() == 988  # 990 rows; two lists, of loads and of what is to be erased, are new
        assert (store.count("g_v1"), store.count("other_v1")) == (10, 10)


def test_a_write_between_reading_and_writing_is_a_conflict_and_the_attempt_is_made_again(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, open_online(server.url, write=True) as other:
        store.write("s_v1", ["state"], [((1,), row(b""))])

        def interfere() -> None:
            other.write("s_v1", ["state"], [((1,), row(b"theirs", at=900))])

        def once() -> None:
            with store.transaction() as txn:
                txn.get("s_v1", (1,))
                interfere()
                txn.set("s_v1", (1,), row(b"ours"))

        with pytest.raises(Conflict, match="was changed by somebody else meanwhile. Next: try again"):
            once()
        assert store.read([("s_v1", (1,))]) == [row(b"theirs", at=900)]
        calls: list[int] = []

        def work(txn: Transaction) -> None:
            found = txn.get("s_v1", (1,))
            assert found is not None
            if not calls:
                other.write("s_v1", ["state"], [((1,), row(b"again", at=950))])
            calls.append(1)
            txn.set("s_v1", (1,), row(found.values[0] + b"+ours"))

        attempt(store, work)
        assert (len(calls), store.read([("s_v1", (1,))])[0]) == (2, row(b"again+ours"))


def test_a_switch_between_reading_and_writing_is_a_conflict_too(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, open_online(server.url, write=True) as loader:
        store.write("g_v1", ["a"], [((1,), row("old"))])

        def late() -> None:
            with store.transaction() as txn:
                txn.set("g_v1", (2,), row("into the old generation"))
                with loader.bulk("g_v1", ["a"]) as load:
                    load.write([((1,), row("new"))])
                    load.switch()

        with pytest.raises(Conflict, match="changed by somebody else"):
            late()
        assert store.read([("g_v1", (1,)), ("g_v1", (2,))]) == [row("new"), None]


def test_threads_may_share_a_reader(server: RedisServer) -> None:
    wrong: list[object] = []
    with open_online(server.url, write=True) as store, open_online(server.url) as reader:
        store.write("g_v1", ["a"], [((i,), row(i)) for i in range(100)])

        def read(key: int) -> None:
            wrong.extend(key for _ in range(200) if reader.read([("g_v1", (key,))]) != [row(key)])

        threads = [threading.Thread(target=read, args=(key,)) for key in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def _load_until_killed(url: str, pipe: Connection) -> None:
    with open_online(url, write=True) as store:
        for number in range(1, 10_000):
            with store.bulk("g_v1", ["a"]) as load:
                for start in range(0, 1500, 500):
                    load.write([((i,), row(number)) for i in range(start, start + 500)])
                    pipe.send((number, start))
                load.switch()


def test_a_loader_killed_anywhere_leaves_the_old_generation_or_the_new_one_whole(server: RedisServer) -> None:
    with open_online(server.url, write=True) as store, open_online(server.url) as reader:
        store.write("g_v1", ["a"], [((i,), row(0)) for i in range(1500)])
        for kill_at in range(3):
            ours, theirs = SPAWN.Pipe()
            child = SPAWN.Process(target=_load_until_killed, args=(server.url, theirs))
            child.start()
            while ours.recv() < (1, 500 * kill_at):
                pass
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            found = {r.values if r else None for r in reader.read([("g_v1", (i,)) for i in range(1500)])}
            assert (len(found), reader.count("g_v1")) == (1, 1500)
            assert found != {None}


def test_the_doctor_proves_the_store_that_the_settings_name_and_shows_no_password(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDROW_ONLINE", server.url)
    monkeypatch.setenv("WINDROW_PROJECT", str(Path(__file__).resolve().parents[3]))
    found = [finding for finding in examine(Settings.read()) if "online" in finding.part]
    assert [(f.holds, f.result) for f in found] == [(True, "redis: a row written, read by a reader, deleted")]
    assert "s3cret" not in str(found)


def test_without_the_client_the_url_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "windrow.stores.online.redis_store")
    with pytest.raises(SettingsError, match=r"its client is not installed. Next: pip install 'windrow\[redis\]'"):
        open_online("redis://127.0.0.1/0")
    assert online_redis.RedisStore


def test_a_worker_on_lmdb_never_loads_the_client_and_one_on_redis_no_engine() -> None:
    heavy = "{'pyarrow', 'ibis', 'duckdb', 'pandas', 'deltalake'}"
    code = (
        "import sys, windrow.stores.online.lmdb_store; assert 'redis' not in sys.modules; import windrow.stores.online.redis_store; "
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
