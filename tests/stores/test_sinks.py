"""Promises of the sinks of batch predictions."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pytest

from tests.postgres import postgres, run
from windrow.clock import parse_time
from windrow.errors import DataError, SchemaError, StoreError, UnknownNameError
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.sinks import SinkWrite, write_sink

ADDRESS, TABLE = "SINK_OF_THIS_TEST", "predictions_churn"
MONDAY = (parse_time("2026-03-02"), parse_time("2026-03-03"))
TUESDAY = (parse_time("2026-03-03"), parse_time("2026-03-04"))
Write = Callable[[pa.Table, tuple[int, int] | None], SinkWrite]


def rows(day: tuple[int, int], *outputs: float, step: int = 1) -> pa.Table:
    times = [day[0] + i * step for i in range(len(outputs))]
    return pa.table(
        {"event_time": pa.array(times, pa.timestamp("us", "UTC")), "output": pa.array(outputs, pa.float64())}
    )


def _outputs_of_file(path: Path) -> list[float]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return [
            value for (value,) in connection.execute("SELECT output FROM predictions ORDER BY event_time").fetchall()
        ]


def _outputs_of_server() -> list[float]:
    with psycopg.connect(os.environ[ADDRESS]) as con:
        return [value for (value,) in con.execute(f"SELECT output FROM {TABLE} ORDER BY event_time").fetchall()]


def _outputs(kind: str, home: Path) -> list[float]:
    if kind == "postgres":
        return _outputs_of_server()
    if kind == "duckdb":
        return _outputs_of_file(home / "sinks" / "churn.duckdb")
    table = Lake(str(home / "lake")).table("predictions/churn").scan(engine())
    found: list[float] = table.order_by("event_time").output.to_pyarrow().to_pylist()
    return found


def _settings(home: Path) -> Settings:
    return Settings.read({"WINDROW_HOME": str(home), "WINDROW_SINK_POSTGRES": os.environ.get(ADDRESS, "")})


def _write(kind: str, home: Path, given: pa.Table, day: tuple[int, int] | None) -> SinkWrite:
    settings = _settings(home)
    return write_sink(kind, "churn", given, lake=Lake(settings.lake), settings=settings, day=day)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with postgres(port) as url:
        yield url


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "postgres":
        url = request.getfixturevalue("server")
        run(url, "DROP TABLE IF EXISTS predictions_churn")
        monkeypatch.setenv(ADDRESS, url)
    return name


@pytest.mark.parametrize("kind", ["delta", "duckdb", "postgres"], indirect=True)
class TestEverySink:
    def test_a_write_says_where_the_rows_are(self, kind: str, tmp_path: Path) -> None:
        places = {"delta": "predictions/churn", "duckdb": f"{tmp_path}/sinks/churn.duckdb", "postgres": TABLE}
        where = places[kind]
        assert _write(kind, tmp_path, rows(MONDAY, 1.0, 2.0), MONDAY) == SinkWrite(kind, 2, where)
        assert _outputs(kind, tmp_path) == [1.0, 2.0]

    def test_writing_a_day_again_replaces_it_and_only_it(self, kind: str, tmp_path: Path) -> None:
        _write(kind, tmp_path, rows(MONDAY, 1.0, 2.0), MONDAY)
        _write(kind, tmp_path, rows(TUESDAY, 3.0), TUESDAY)
        _write(kind, tmp_path, rows(MONDAY, 9.0), MONDAY)
        assert _outputs(kind, tmp_path) == [9.0, 3.0]

    def test_writing_the_same_day_again_changes_nothing(self, kind: str, tmp_path: Path) -> None:
        for _ in range(3):
            _write(kind, tmp_path, rows(MONDAY, 1.0, 2.0), MONDAY)
        assert _outputs(kind, tmp_path) == [1.0, 2.0]

    def test_the_last_microsecond_belongs_to_the_day_and_the_next_does_not(self, kind: str, tmp_path: Path) -> None:
        last = MONDAY[1] - 1 - MONDAY[0]
        _write(kind, tmp_path, rows(MONDAY, 1.0, 2.0, step=last), MONDAY)
        _write(kind, tmp_path, rows(TUESDAY, 3.0), TUESDAY)
        _write(kind, tmp_path, rows(MONDAY, 9.0), MONDAY)
        assert _outputs(kind, tmp_path) == [9.0, 3.0]

    def test_without_a_day_everything_is_replaced(self, kind: str, tmp_path: Path) -> None:
        _write(kind, tmp_path, rows(MONDAY, 1.0), MONDAY)
        _write(kind, tmp_path, rows(TUESDAY, 3.0), None)
        assert _outputs(kind, tmp_path) == [3.0]

    def test_a_day_without_rows_is_emptied(self, kind: str, tmp_path: Path) -> None:
        _write(kind, tmp_path, rows(MONDAY, 1.0), MONDAY)
        _write(kind, tmp_path, rows(TUESDAY, 3.0), TUESDAY)
        assert _write(kind, tmp_path, rows(MONDAY), MONDAY).rows == 0
        assert _outputs(kind, tmp_path) == [3.0]

    def test_a_row_of_another_day_is_refused_and_nothing_changed(self, kind: str, tmp_path: Path) -> None:
        _write(kind, tmp_path, rows(MONDAY, 1.0), MONDAY)
        with pytest.raises(DataError, match="1 of 1 predictions of 'churn' are not of the day 2026-03-02"):
            _write(kind, tmp_path, rows(TUESDAY, 2.0), MONDAY)
        assert _outputs(kind, tmp_path) == [1.0]

    def test_other_columns_than_before_are_refused_and_nothing_changed(self, kind: str, tmp_path: Path) -> None:
        _write(kind, tmp_path, rows(MONDAY, 1.0), MONDAY)
        other = rows(TUESDAY, 2.0).append_column("extra", pa.array([1]))
        with pytest.raises(SchemaError, match="extra"):
            _write(kind, tmp_path, other, TUESDAY)
        assert _outputs(kind, tmp_path) == [1.0]

    def test_rows_without_their_time_are_refused(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(SchemaError, match="column 'event_time' is missing.*The columns are 'output'"):
            _write(kind, tmp_path, pa.table({"output": [1.0]}), None)

    def test_naive_times_are_refused(self, kind: str, tmp_path: Path) -> None:
        naive = pa.table({"event_time": pa.array([1], pa.timestamp("us"))})
        with pytest.raises(SchemaError, match=r"column 'event_time' is timestamp\[us\]"):
            _write(kind, tmp_path, naive, None)


def test_an_unknown_sink_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'duckdb'"):
        _write("duckdbs", tmp_path, rows(MONDAY, 1.0), None)


def test_times_in_the_file_are_instants(tmp_path: Path) -> None:
    _write("duckdb", tmp_path, rows(MONDAY, 1.0), MONDAY)
    with duckdb.connect(str(tmp_path / "sinks" / "churn.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT epoch_us(event_time), typeof(event_time) FROM predictions").fetchall() == [
            (MONDAY[0], "TIMESTAMP WITH TIME ZONE")
        ]


_HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
print("open", flush=True)
sys.stdin.readline()
print(connection.execute("SELECT sum(output) FROM predictions").fetchone()[0])
"""


def test_a_reader_that_holds_the_file_blocks_no_write_and_reads_on(tmp_path: Path) -> None:
    _write("duckdb", tmp_path, rows(MONDAY, 1.0), MONDAY)
    path = tmp_path / "sinks" / "churn.duckdb"
    command, pipe = [sys.executable, "-c", _HOLD, str(path)], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        _write("duckdb", tmp_path, rows(TUESDAY, 3.0), TUESDAY)
        told, _ = reader.communicate("go\n")
    assert told == "1.0\n"
    assert _outputs_of_file(path) == [1.0, 3.0]


_MANY = """
import sys
import numpy as np
import pyarrow as pa
from windrow.settings import Settings
from windrow.stores.lake import Lake
from windrow.stores.sinks import write_sink
settings, start = Settings.read({"WINDROW_HOME": sys.argv[1]}), int(sys.argv[2])
n = 2_000_000
times = pa.array(np.arange(start, start + n)).cast(pa.timestamp("us", "UTC"))
rows = pa.table({"event_time": times, "output": pa.array(np.random.default_rng(0).random(n))})
print("ready", flush=True)
write_sink("duckdb", "churn", rows, lake=Lake(settings.lake), settings=settings, day=None)
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    _write("duckdb", tmp_path, rows(MONDAY, 1.0), MONDAY)
    following = tmp_path / "sinks" / "churn.next"
    command = [sys.executable, "-c", _MANY, str(tmp_path), str(TUESDAY[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None and not (following.exists() and following.stat().st_size > 100_000):
            pass
        os.kill(writer.pid, signal.SIGKILL)
    assert following.exists(), "the writer was too quick to be killed in the middle"
    assert _outputs("duckdb", tmp_path) == [1.0]
    _write("duckdb", tmp_path, rows(TUESDAY, 3.0), TUESDAY)
    assert _outputs("duckdb", tmp_path) == [1.0, 3.0]
    assert sorted(p.name for p in following.parent.iterdir()) == ["churn.duckdb", "churn.lock"]


def test_days_written_side_by_side_are_all_there(tmp_path: Path) -> None:
    days = [(MONDAY[0] + i * 86_400_000_000, MONDAY[1] + i * 86_400_000_000) for i in range(6)]
    threads = [
        threading.Thread(target=_write, args=("duckdb", tmp_path, rows(day, float(i)), day))
        for i, day in enumerate(days)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _outputs("duckdb", tmp_path) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_file_that_is_no_database_is_a_store_error_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "sinks" / "churn.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(StoreError, match="cannot be written: .*It holds what it held before"):
        _write("duckdb", tmp_path, rows(MONDAY, 1.0), MONDAY)
    assert path.read_bytes() == b"x" * 20_000
