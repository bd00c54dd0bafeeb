from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from windrow.errors import NotFoundError, SchemaError, StoreError
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable

UTC = pa.timestamp("us", "UTC")
TIMES = [1_700_000_000_000_001, 1_700_000_000_999_999]


def rows(cards: list[int], times: list[int] | None = None) -> pa.Table:
    moments = pa.array((times or TIMES)[: len(cards)], UTC)
    limits = pa.array([100.0 * card for card in cards], pa.float64())
    return pa.table(
        {"card_id": pa.array(cards, pa.int64()), "limit": limits, "event_time": moments, "known_at": moments}
    )


def cards_of(table: LakeTable, **options: Any) -> list[int]:
    return sorted(table.scan(engine(), **options).card_id.to_pyarrow().to_pylist())


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow: the operating system's own limit, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def table(lake: Lake) -> LakeTable:
    return lake.table("features/card_v1")


def test_appended_rows_come_back_with_their_write_order(table: LakeTable) -> None:
    seq = table.append(rows([1]))
    assert table.scan(engine()).drop("event_time", "known_at").to_pyarrow().to_pylist() == [
        {"card_id": 1, "limit": 100.0, "_seq": seq}
    ]


def test_columns_may_come_in_another_order(table: LakeTable) -> None:
    table.append(rows([1]))
    table.append(rows([2]).select(["known_at", "limit", "event_time", "card_id"]))
    assert table.scan(engine()).columns == ("card_id", "limit", "event_time", "known_at", "_seq")


def test_as_of_answers_as_the_table_stood(table: LakeTable) -> None:
    first, second = table.append(rows([1])), table.append(rows([2]))
    assert (cards_of(table, as_of=first - 1), cards_of(table, as_of=first), cards_of(table, as_of=second)) == (
        [],
        [1],
        [1, 2],
    )


def test_a_scan_is_not_changed_by_later_writes(table: LakeTable) -> None:
    table.append(rows([1]))
    before = table.scan(engine())
    table.append(rows([2]))
    assert before.count().to_pyarrow().as_py() == 1


def test_an_append_without_rows_makes_an_empty_table(table: LakeTable) -> None:
    table.append(rows([]))
    assert (table.exists, cards_of(table), table.stats().rows) == (True, [], 0)


def test_text_and_times_of_other_arrow_forms_are_stored_as_one(table: LakeTable) -> None:
    table.append(pa.table({"plan": pa.array(["a"], pa.large_string())}))
    table.append(pa.table({"plan": pa.array(["b"], pa.string())}))
    assert sorted(table.scan(engine()).plan.to_pyarrow().to_pylist()) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.set_column(0, "card_id", pa.array([1.7])), "'card_id' is double, stored is int64"),
        (lambda t: t.set_column(0, "card_id", pa.array([1], pa.int32())), "'card_id' is int32, stored is int64"),
        (lambda t: t.drop_columns("limit"), "missing 'limit'"),
        (lambda t: t.append_column("plan", pa.array(["a"])), "unknown 'plan'"),
        (lambda t: t.append_column("_seq", pa.array([1])), "already have _seq"),
        (lambda t: t.append_column("limit", pa.array([1.0])), "a column twice"),
        (
            lambda t: t.set_column(2, "event_time", pa.array([1], pa.timestamp("us"))),
            r"'event_time' is timestamp\[us\], which",
        ),
        (
            lambda t: t.set_column(2, "event_time", pa.array([1], pa.timestamp("ns", "UTC"))),
            r"timestamp\[ns, tz=UTC\], which",
        ),
        (lambda t: t.set_column(0, "card_id", pa.array([1], pa.uint64())), "'card_id' is uint64, which"),
    ],
)
def test_rows_that_delta_would_change_or_refuse_late_are_refused_first(
    table: LakeTable, change: Any, told: str
) -> None:
    table.append(rows([1]))
    with pytest.raises(SchemaError, match=told):
        table.append(change(rows([2])))
    assert cards_of(table) == [1]


def test_a_failed_first_commit_leaves_no_table(lake: Lake, table: LakeTable) -> None:
    with (
        full_disk(),
        pytest.raises(StoreError, match="The commit to table 'features/card_v1' failed.*Nothing of it is visible"),
    ):
        table.append(rows([1]))
    assert (table.exists, lake.keys()) == (False, [])


def test_a_failed_commit_leaves_the_table_as_it_was(table: LakeTable) -> None:
    table.append(rows([1]))
    with full_disk(), pytest.raises(StoreError, match="The commit to table 'features/card_v1' failed"):
        table.append(rows([2]))
    assert cards_of(table) == [1]


def test_a_file_that_no_commit_names_is_not_read(table: LakeTable) -> None:
    table.append(rows([1]))
    pq.write_table(rows([2]).append_column("_seq", pa.array([1])), f"{table.path}/part-of-a-killed-writer.parquet")
    assert (cards_of(table), table.stats().rows) == ([1], 1)


def test_replacing_a_day_twice_leaves_its_rows_once(table: LakeTable) -> None:
    day = "event_time >= '2023-11-14T00:00:00Z' and event_time < '2023-11-15T00:00:00Z'"
    table.append(rows([7], [1_600_000_000_000_000]))
    for _ in range(2):
        table.replace(rows([1, 2]), day)
    assert cards_of(table) == [1, 2, 7]


def test_replacing_with_no_rows_removes_the_old_ones(table: LakeTable) -> None:
    table.append(rows([1, 2]))
    table.replace(rows([]), "card_id = 1")
    assert cards_of(table) == [2]


def test_replacing_without_a_predicate_replaces_every_row(table: LakeTable) -> None:
    table.append(rows([1, 2]))
    table.replace(rows([3]), "")
    assert cards_of(table) == [3]


def test_rows_outside_of_what_they_replace_are_refused(table: LakeTable) -> None:
    table.append(rows([1]))
    with pytest.raises(StoreError, match="The commit to table 'features/card_v1' failed"):
        table.replace(rows([2]), "card_id = 1")
    assert cards_of(table) == [1]


def test_the_version_of_an_application_is_remembered(table: LakeTable) -> None:
    assert table.transaction_version("log") is None
    table.append(rows([1]), transaction=("log", 5))
    table.append(rows([2]))
    assert (table.transaction_version("log"), table.transaction_version("other")) == (5, None)


def test_writers_at_the_same_time_lose_nothing(lake: Lake) -> None:
    def write(writer: int) -> None:
        for number in range(5):
            lake.table("features/card_v1").append(rows([10 * writer + number]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert cards_of(lake.table("features/card_v1")) == [w * 10 + n for w in range(4) for n in range(5)]


def test_two_writers_may_make_the_table_at_the_same_time(lake: Lake) -> None:
    barrier = Barrier(2)

    def write(card: int) -> None:
        barrier.wait()
        lake.table("features/card_v1").append(rows([card]))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [1, 2]))
    assert cards_of(lake.table("features/card_v1")) == [1, 2]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"delta.enableDeletionVectors": "true"}, "deletion vectors"),
        ({"delta.columnMapping.mode": "name"}, "column mapping"),
    ],
)
def test_a_table_whose_files_alone_would_lie_is_refused(table: LakeTable, option: dict[str, str], told: str) -> None:
    write_deltalake(table.path, rows([1]).append_column("_seq", pa.array([1])), configuration=option)
    with pytest.raises(StoreError, match=f"'features/card_v1' uses {told}"):
        table.scan(engine())


def test_rows_from_before_a_column_was_added_have_null_there(table: LakeTable) -> None:
    table.append(rows([1]))
    wider = rows([2]).append_column("_seq", pa.array([1])).append_column("plan", pa.array(["gold"]))
    write_deltalake(table.path, wider, mode="append", schema_mode="merge")
    found = table.scan(engine()).select("card_id", "plan").order_by("card_id").to_pyarrow().to_pylist()
    assert found == [{"card_id": 1, "plan": None}, {"card_id": 2, "plan": "gold"}]


def test_statistics_are_exact_to_the_microsecond(table: LakeTable) -> None:
    seq = table.append(rows([1, 2]))
    stats = table.stats()
    assert (stats.rows, stats.files, stats.first, stats.last, stats.last_known, stats.seq, stats.version) == (
        2, 1, 1_700_000_000_000_001, 1_700_000_000_999_999, 1_700_000_000_999_999, seq, 0,
    )  # fmt: skip


def test_reading_what_is_not_there_names_what_is(lake: Lake, table: LakeTable) -> None:
    lake.table("sources/payments").append(rows([1]))
    with pytest.raises(
        NotFoundError, match="Nothing is stored under 'features/card_v1' yet. The lake has 'sources/payments'"
    ):
        table.scan(engine())


def test_the_lake_lists_its_tables(lake: Lake) -> None:
    lake.table("sources/payments").append(rows([1]))
    lake.table("features/card_v1").append(rows([1]))
    assert lake.keys() == ["features/card_v1", "sources/payments"]


@pytest.mark.parametrize("key", ["", "../other", "/etc", "a//b", "a b"])
def test_a_key_cannot_lead_out_of_the_lake(lake: Lake, key: str) -> None:
    with pytest.raises(StoreError, match="is not a table key"):
        lake.table(key)
