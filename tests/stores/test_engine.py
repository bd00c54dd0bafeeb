from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from windrow.stores.engine import engine


def _setting(name: str) -> str:
    return str(engine().raw_sql(f"SELECT current_setting('{name}')").fetchone()[0])


def test_each_thread_has_a_connection_of_its_own() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(engine).result() is not engine()


def test_every_thread_tells_time_in_utc() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert (_setting("TimeZone"), pool.submit(_setting, "TimeZone").result()) == ("UTC", "UTC")


def test_nothing_is_downloaded_and_no_progress_is_printed() -> None:
    names = ("autoinstall_known_extensions", "autoload_known_extensions", "enable_progress_bar")
    assert [_setting(name) for name in names] == ["False", "False", "False"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_an_engine_that_answers() -> None:
    engine().con.execute("SELECT 1")
    child = os.fork()
    if not child:
        os._exit(int(engine().con.execute("SELECT 42").fetchone()[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_tables_of_one_thread_are_not_seen_by_another() -> None:
    engine().con.register("mine", pa.table({"x": [1]}))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: engine().con.execute("FROM duckdb_views() WHERE view_name = 'mine'").fetchall())
        assert found.result() == []
