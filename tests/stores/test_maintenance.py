from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.stores.table_tools import KEY, batch, cards_of
from windrow.errors import NotFoundError
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.maintenance import crowded, maintain, maintain_all, unread


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return Lake(str(tmp_path / "lake")).table(KEY)


def fill(table: LakeTable, files: int) -> None:
    for card in range(files):
        table.append(batch([card]))


def parquet(table: LakeTable) -> int:
    return len(list(Path(table.path).glob("*.parquet")))


def test_maintenance_tells_what_it_did(table: LakeTable) -> None:
    fill(table, 5)
    done = maintain(table, keys=["card_id"], small=4)
    assert (done.key, done.rows_rewritten, done.files_before, done.files_after) == (KEY, 5, 5, 1)
    assert (done.log_before, done.log_after, done.files_removed) == (5, 0, 0)
    assert done.bytes_after < done.bytes_before
    assert cards_of(table.lake.root) == [0, 1, 2, 3, 4]


def test_a_table_with_few_files_is_only_checkpointed(table: LakeTable) -> None:
    fill(table, 3)
    done = maintain(table, small=3)
    assert (done.rows_rewritten, done.files_after, done.log_after) == (0, 3, 0)


def test_a_second_maintenance_finds_nothing_to_do(table: LakeTable) -> None:
    fill(table, 3)
    maintain(table, small=2)
    version = table.stats().version
    done = maintain(table, small=2)
    assert (done.rows_rewritten, done.log_before, table.stats().version) == (0, 0, version)


def test_old_files_stay_for_readers_in_flight_and_go_after_their_time(table: LakeTable) -> None:
    fill(table, 3)
    reading = table.scan(engine())
    maintain(table, small=2)
    assert (parquet(table), reading.count().to_pyarrow().as_py()) == (4, 3)
    assert maintain(table, small=2, keep_hours=0).files_removed == 3
    assert (parquet(table), cards_of(table.lake.root)) == (1, [0, 1, 2])


def test_files_of_killed_writers_go_after_their_time(table: LakeTable) -> None:
    fill(table, 1)
    leftover = Path(table.path) / "part-of-a-killed-writer.parquet"
    leftover.write_bytes(b"half")
    maintain(table)
    assert leftover.exists()
    long_ago = time.time() - 8 * 86_400
    os.utime(leftover, (long_ago, long_ago))
    maintain(table)
    assert (leftover.exists(), cards_of(table.lake.root)) == (False, [0])


def test_the_version_of_an_application_survives(table: LakeTable) -> None:
    table.append(batch([1]), transaction=("log", 5))
    fill(table, 3)
    maintain(table, small=2, keep_hours=0)
    assert table.transaction_version("log") == 5


def test_every_table_of_the_lake_has_its_turn(table: LakeTable) -> None:
    lake, told = table.lake, list[str]()
    fill(table, 3)
    fill(lake.table("sources/payments"), 2)
    done = maintain_all(lake, {KEY: ["card_id"]}, small=1, told=told.append)
    assert [(d.key, d.files_after) for d in done] == [(KEY, 1), ("sources/payments", 1)]
    assert told == [KEY, "sources/payments"]


def test_crowded_tables_are_named(table: LakeTable) -> None:
    fill(table, 3)
    fill(table.lake.table("sources/payments"), 2)
    assert (crowded(table.lake, small=2), crowded(table.lake, small=3)) == ([KEY], [])


def test_what_has_to_be_read_is_the_log_after_the_checkpoint(table: LakeTable) -> None:
    fill(table, 3)
    assert unread(table) == 3
    table.open().create_checkpoint()
    fill(table, 2)
    assert unread(table) == 2


def test_nothing_stored_is_told(table: LakeTable) -> None:
    with pytest.raises(NotFoundError, match="Nothing is stored under 'features/card_v1' yet"):
        maintain(table)
