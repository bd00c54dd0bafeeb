from __future__ import annotations

import subprocess
import sys
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


FORKED = """
import os
from windrow.errors import StoreError
from windrow.stores.engine import engine
if {used}:
    engine()
child = os.fork()
if not child:
    try:
        engine().con.execute("SELECT 1")
    except StoreError as error:
        os._exit(42 if "'spawn'" in str(error) else 1)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("used", "code"), [(True, 42), (False, 0)], ids=["used", "unused"])
def test_a_forked_child_has_an_engine_only_if_its_parent_had_none(used: bool, code: int) -> None:
    command = [sys.executable, "-c", FORKED.format(used=used)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr


def test_tables_of_one_thread_are_not_seen_by_another() -> None:
    engine().con.register("mine", pa.table({"x": [1]}))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: engine().con.execute("FROM duckdb_views() WHERE view_name = 'mine'").fetchall())
        assert found.result() == []
