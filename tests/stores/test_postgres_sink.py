"""Promises of the PostgreSQL sink beyond those of every sink, on a real server."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from tests.postgres import postgres, run
from windrow.clock import duration, parse_time
from windrow.errors import DataError, SchemaError, SettingsError, StoreError
from windrow.settings import Settings
from windrow.stores.forgetting.postgres_erasure import rows_in_postgres
from windrow.stores.lake import Lake
from windrow.stores.postgres_sink import write_postgres
from windrow.stores.sinks import write_sink

MONDAY, DAY = parse_time("2026-03-02"), duration("1d")
UTC_TIME = pa.timestamp("us", "UTC")


def rows(*outputs: float | None, at: int = MONDAY, text: str | None = "a") -> pa.Table:
    n = len(outputs)
    return pa.table(
        {
            "team": pa.array([text] * n, pa.string()),
            "event_time": pa.array([at + i for i in range(n)], UTC_TIME),
            "prediction": pa.array(outputs, pa.float64()),
            "status": pa.array([0] * n, pa.int8()),
        }
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with postgres(port) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    run(server, "DROP TABLE IF EXISTS predictions_nba CASCADE")
    return server


def stored(url: str, columns: str = "prediction", table: str = "predictions_nba") -> list[tuple[object, ...]]:
    with psycopg.connect(url) as con:
        con.execute("SET TIME ZONE 'UTC'")
        return con.execute(f"SELECT {columns} FROM {table} ORDER BY event_time").fetchall()  # type: ignore[arg-type]


def test_the_table_is_made_from_the_columns_and_indexed_by_time(url: str) -> None:
    write_postgres(url, "nba", rows(0.5), (MONDAY, MONDAY + DAY))
    with psycopg.connect(url) as con:
        made = con.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'predictions_nba' ORDER BY ordinal_position"
        ).fetchall()
        (index,) = con.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'predictions_nba'").fetchall()
    assert made == [
        ("team", "text"),
        ("event_time", "timestamp with time zone"),
        ("prediction", "double precision"),
        ("status", "smallint"),
    ]
    assert "(event_time)" in index[0]


def test_each_environment_has_a_table_of_its_own_in_one_database(url: str) -> None:
    for name, output in (("dev", 0.1), ("prod", 0.9)):
        place = Settings.read({"WINDROW_SINK_POSTGRES": url, "WINDROW_ENV": name}).sink_postgres
        write_postgres(place, "nba", rows(output), None)
    found = [stored(url, table=f"windrow_{name}.predictions_nba") for name in ("dev", "prod")]
    assert found == [[(0.1,)], [(0.9,)]]


def test_values_come_back_as_they_were_given(url: str) -> None:
    write_postgres(url, "nba", rows(0.1 + 0.2, None, float("inf"), text='say "a, b"\n;'), None)
    moments = [datetime(2026, 3, 2, microsecond=i, tzinfo=UTC) for i in range(3)]
    assert stored(url, "team, prediction, event_time") == [
        ('say "a, b"\n;', value, moment) for value, moment in zip((0.1 + 0.2, None, float("inf")), moments, strict=True)
    ]


@pytest.mark.parametrize("text", ["", None, "NULL", "\\N"])
def test_an_empty_text_and_no_text_are_told_apart(url: str, text: str | None) -> None:
    write_postgres(url, "nba", rows(0.5, text=text), None)
    assert stored(url, "team") == [(text,)]


def test_a_reader_sees_the_old_day_or_the_new_one_and_never_half(url: str) -> None:
    """While days of a thousand equal rows are written again and again, every look finds a thousand equal ones."""
    day, n = (MONDAY, MONDAY + DAY), 1000
    write_postgres(url, "nba", rows(*[0.0] * n), day)
    seen, stop = set[tuple[int, int]](), threading.Event()

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as con:
            while not stop.is_set():
                found = con.execute("SELECT count(*), count(DISTINCT prediction) FROM predictions_nba").fetchone()
                seen.add(found or (0, 0))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(1, 15):
        write_postgres(url, "nba", rows(*[float(number)] * n), day if number % 2 else None)
    stop.set()
    reader.join()
    assert seen == {(1000, 1)}


def test_a_write_that_fails_half_way_leaves_the_day_as_it_was(url: str) -> None:
    write_postgres(url, "nba", rows(0.5), (MONDAY, MONDAY + DAY))
    run(url, "ALTER TABLE predictions_nba ADD CHECK (prediction < 0.8)")
    bad = rows(0.7, 0.9)
    with pytest.raises(StoreError, match="service 'nba' cannot be written, and holds what it held before"):
        write_postgres(url, "nba", bad, (MONDAY, MONDAY + DAY))
    assert stored(url) == [(0.5,)]


def test_a_writer_that_dies_in_its_transaction_leaves_the_day_as_it_was(url: str) -> None:
    write_postgres(url, "nba", rows(0.5), None)
    dying = psycopg.connect(url)
    dying.execute("SELECT pg_advisory_xact_lock(hashtextextended('predictions_nba', 0))")
    dying.execute("DELETE FROM predictions_nba")
    run(url, f"SELECT pg_terminate_backend({dying.info.backend_pid})")
    write_postgres(url, "nba", rows(0.7, at=MONDAY + DAY), (MONDAY + DAY, MONDAY + 2 * DAY))
    assert stored(url) == [(0.5,), (0.7,)]
    dying.close()


def test_days_written_side_by_side_are_all_there_also_when_there_is_no_table_yet(url: str) -> None:
    def write(i: int) -> None:
        at = MONDAY + i * DAY
        write_postgres(url, "nba", rows(float(i), at=at), (at, at + DAY))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(url) == [(0.0,), (1.0,), (2.0,), (3.0,), (4.0,), (5.0,)]


def test_everything_written_again_with_other_columns_makes_the_table_anew(url: str) -> None:
    write_postgres(url, "nba", rows(0.5), None)
    other = rows(0.7).append_column("release", pa.array(["nba-1"]))
    with pytest.raises(SchemaError, match="other columns than the earlier days: 'release'"):
        write_postgres(url, "nba", other, (MONDAY, MONDAY + DAY))
    write_postgres(url, "nba", other, None)
    assert stored(url, "prediction, release") == [(0.7, "nba-1")]


def test_a_view_on_the_table_keeps_it_from_being_made_anew_and_loses_nothing(url: str) -> None:
    write_postgres(url, "nba", rows(0.5), None)
    run(url, "CREATE VIEW newest AS SELECT * FROM predictions_nba")
    with pytest.raises(StoreError, match="cannot drop table predictions_nba because other objects depend on it"):
        write_postgres(url, "nba", rows(0.7).append_column("release", pa.array(["nba-1"])), None)
    assert stored(url) == [(0.5,)]
    write_postgres(url, "nba", rows(0.9), None)
    assert stored(url) == [(0.9,)]


def test_a_type_that_the_server_has_not_is_refused(url: str) -> None:
    odd = rows(0.5).append_column("list", pa.array([[1]]))
    with pytest.raises(SchemaError, match="cannot be stored in PostgreSQL: 'list \\(list<.*Next: rename or cast it"):
        write_postgres(url, "nba", odd, None)


def test_a_text_that_the_server_cannot_keep_is_refused_by_its_column_and_the_day_stays(url: str) -> None:
    write_postgres(url, "nba", rows(0.5), None)
    with pytest.raises(DataError, match="a text of 'team' has a NUL character. Next: take it out"):
        write_postgres(url, "nba", rows(0.7, text="a\0b"), None)
    assert stored(url) == [(0.5,)]
    assert rows_in_postgres(url, "nba", ("a\0b",), [["team"]], erase=True) == 0


def test_without_an_address_the_variable_is_named(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path)})
    with pytest.raises(SettingsError, match=r"WINDROW_SINK_POSTGRES is not set. Next: export .*or declare it optional"):
        write_sink("postgres", "nba", rows(0.5), lake=Lake(settings.lake), settings=settings, day=None)


def test_no_message_holds_any_part_of_the_address(url: str) -> None:
    elsewhere = "postgresql://someone:hunter2@127.0.0.1:1/secretbase"
    wrong = url.replace("s3cret", "hunter2")
    for address, reason in ((elsewhere, "nothing listens there"), (wrong, "it refuses the password")):
        with pytest.raises(StoreError, match=f"{reason}. Next: check WINDROW_SINK_POSTGRES") as caught:
            write_postgres(address, "nba", rows(0.5), None)
        told = "".join(traceback.format_exception(caught.value))
        assert not [part for part in ("hunter2", "secretbase", "someone") if part in told]


def test_settings_show_no_password_of_the_sink_and_hand_it_to_child_processes() -> None:
    given = {"WINDROW_SINK_POSTGRES": "postgresql://me:hunter2@db/p"}
    settings = Settings.read(given)
    assert "hunter2" not in repr(settings)
    assert Settings.read(settings.environ()).sink_postgres == given["WINDROW_SINK_POSTGRES"]


def test_a_forgotten_entity_leaves_the_table_for_good(url: str) -> None:
    both = pa.concat_tables([rows(0.5, text="zq83Xv7"), rows(0.7, at=MONDAY + 1, text="b")])
    write_postgres(url, "nba", both, None)
    places = [("player",), ("team",)]
    assert rows_in_postgres(url, "nba", ("zq83Xv7",), places, erase=False) == 1
    assert rows_in_postgres(url, "nba", ("zq83Xv7",), places, erase=True) == 1
    assert rows_in_postgres(url, "nba", ("zq83Xv7",), places, erase=False) == 0
    assert stored(url) == [(0.7,)]
    run(url, "CHECKPOINT")
    with psycopg.connect(url) as con:
        found = con.execute("SELECT pg_read_binary_file(pg_relation_filepath('predictions_nba'))").fetchone()
    assert found is not None
    assert b"zq83Xv7" not in found[0]


def test_a_service_without_a_table_has_nothing_to_forget(url: str) -> None:
    assert rows_in_postgres(url, "nba", (7,), [("card_id",)], erase=True) == 0
