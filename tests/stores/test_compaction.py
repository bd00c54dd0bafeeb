from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import windrow.stores.compaction as compaction
from tests.stores.table_tools import (
    KEY,
    SPAWN,
    append_batches,
    batch,
    cards_of,
    compact_until,
    delete_each,
    together,
)
from tests.stores.test_lake import full_disk
from windrow.errors import NotFoundError, SchemaError, StoreError
from windrow.stores.compaction import compact, small_files
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return Lake(str(tmp_path / "lake")).table(KEY)


def stored(table: LakeTable, **options: Any) -> list[dict[str, Any]]:
    return sorted(table.scan(engine(), **options).to_pyarrow().to_pylist(), key=lambda r: (r["card_id"], r["_seq"]))


def files(table: LakeTable) -> list[Path]:
    return sorted(Path(table.path).glob("*.parquet"))


def test_many_files_become_one_with_the_same_rows(table: LakeTable) -> None:
    for card in (3, 1, 2):
        table.append(batch([card]))
    before = stored(table)
    done = compact(table, keys=["card_id"])
    assert (done.files_before, done.files_after, done.rows, table.stats().files) == (3, 1, 3, 1)
    assert stored(table) == before


def test_rows_are_read_in_the_order_of_key_and_time(table: LakeTable) -> None:
    table.append(batch([2, 1], at=20))
    table.append(batch([1, 2], at=10))
    compact(table, keys=["card_id"])
    rows = table.scan(engine()).to_pyarrow()
    assert list(zip(rows["card_id"].to_pylist(), rows["event_time"].cast("int64").to_pylist(), strict=True)) == [
        (1, 11), (1, 21), (2, 12), (2, 22),
    ]  # fmt: skip


def test_every_as_of_answers_as_before(table: LakeTable) -> None:
    seqs = [table.append(batch([card])) for card in (1, 2)]
    seqs.append(table.delete(pa.table({"card_id": [1]})).seq)
    seqs.append(table.append(batch([3])))
    before = [stored(table, as_of=seq) for seq in seqs]
    compact(table, keys=["card_id"])
    assert [stored(table, as_of=seq) for seq in seqs] == before
    assert [len(rows) for rows in before] == [1, 2, 1, 2]


@pytest.mark.parametrize("keys", [["card_id"], []])
def test_ranges_hold_each_row_once_and_follow_each_other(table: LakeTable, keys: list[str]) -> None:
    for first in (0, 500):
        table.append(batch([(first + i) * 7919 % 1000 for i in range(500)]))
    done = compact(table, keys=keys, range_rows=150)
    assert (done.rows, done.files_after, cards_of(table.lake.root)) == (1000, 7, list(range(1000)))
    assert table.scan(engine()).card_id.to_pyarrow().to_pylist() == list(range(1000))


def test_one_key_with_all_the_rows_is_cut_by_time(table: LakeTable) -> None:
    for start in (0, 400):
        times = pa.array(range(start, start + 400), pa.timestamp("us", "UTC"))
        table.append(pa.table({"card_id": [7] * 400, "event_time": times, "known_at": times}))
    compact(table, keys=["card_id"], range_rows=100)
    rows = [pq.read_metadata(path).num_rows for path in sorted(Path(table.path).glob("sorted-*"))]
    assert (len(rows), sum(rows)) == (8, 800)
    assert max(rows) <= 120


def test_rows_without_a_key_are_kept_and_come_last(table: LakeTable) -> None:
    for part in ([None, 3, "b"], ["a", None, "c"]):
        table.append(pa.table({"name": pa.array([None if p is None else str(p) for p in part], pa.string())}))
    compact(table, keys=["name"], range_rows=2)
    assert table.scan(engine()).name.to_pyarrow().to_pylist() == ["3", "a", "b", "c", None, None]


def test_text_keys_with_quotes_are_sorted_like_any_other(table: LakeTable) -> None:
    names = ["it's", '"x"', "ü", "", "%", "a;b"]
    for name in names:
        table.append(pa.table({"name": pa.array([name], pa.string())}))
    compact(table, keys=["name"], range_rows=2)
    assert table.scan(engine()).name.to_pyarrow().to_pylist() == sorted(names)


def test_readers_in_flight_keep_their_files(table: LakeTable) -> None:
    for card in (1, 2):
        table.append(batch([card]))
    reading = table.scan(engine())
    compact(table)
    assert reading.count().to_pyarrow().as_py() == 2


def test_a_single_file_is_left_alone(table: LakeTable) -> None:
    table.append(batch([1]))
    assert compact(table) == (0, 0, 0, 0, 0)


def test_a_large_table_is_left_alone_for_few_new_rows(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.append(batch(list(range(20_000))))
    monkeypatch.setattr(compaction, "SMALL", files(table)[0].stat().st_size)
    for card in (1, 2):
        table.append(batch([card]))
    done = compact(table, keys=["card_id"])
    assert (done.files_before, done.rows, table.stats().files, table.stats().rows) == (2, 2, 2, 20_002)


def test_a_row_of_an_older_form_has_null_in_the_column_it_lacks(table: LakeTable) -> None:
    table.append(batch([1]))
    table.append(batch([2]))
    table.delete(pa.table({"card_id": [2]}))
    compact(table, keys=["card_id"])
    table.append(batch([3]))
    assert cards_of(table.lake.root) == [1, 3]


def test_a_day_is_replaced_in_a_compacted_table_as_in_any_other(table: LakeTable) -> None:
    day = 86_400_000_000
    for start in (20_000 * day, 20_001 * day, 20_002 * day):
        table.append(batch([0, day - 1 - 1_000_000], at=start))
    compact(table, range_rows=2)
    where = "event_time >= '2024-10-05T00:00:00Z' and event_time < '2024-10-06T00:00:00Z'"
    for _ in range(2):
        table.replace(batch([5], at=20_001 * day), where)
    times = table.scan(engine()).event_time.to_pyarrow().cast("int64").to_pylist()
    assert sorted(t // day for t in times) == [20_000, 20_000, 20_001, 20_002, 20_002]


def test_a_key_that_is_not_stored_is_refused(table: LakeTable) -> None:
    for card in (1, 2):
        table.append(batch([card]))
    with pytest.raises(SchemaError, match="cannot be sorted by 'user'. It has '_seq', 'card_id'"):
        compact(table, keys=["user"])


def test_nothing_stored_is_told(table: LakeTable) -> None:
    with pytest.raises(NotFoundError, match="Nothing is stored under 'features/card_v1' yet"):
        compact(table)


def test_a_full_disk_leaves_the_table_as_it_was_and_no_file_behind(table: LakeTable) -> None:
    for card in (1, 2):
        table.append(batch([card]))
    before = files(table)
    with full_disk(), pytest.raises(StoreError, match="cannot be rewritten.*It holds what it held before"):
        compact(table)
    assert (files(table), cards_of(table.lake.root)) == (before, [1, 2])


def test_small_files_are_counted(table: LakeTable) -> None:
    assert small_files(table) == 0
    for card in (1, 2):
        table.append(batch([card]))
    assert small_files(table) == 2


def test_an_append_that_lands_during_the_rewrite_is_kept(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    for card in (1, 2):
        table.append(batch([card]))
    swap = compaction.swap_files

    def late(*arguments: Any, **options: Any) -> Any:
        table.append(batch([3]))
        return swap(*arguments, **options)

    monkeypatch.setattr(compaction, "swap_files", late)
    compact(table, keys=["card_id"])
    assert (cards_of(table.lake.root), table.stats().files) == ([1, 2, 3], 2)


def test_a_delete_that_lands_during_the_rewrite_is_kept(table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    for card in (1, 2):
        table.append(batch([card]))
    swap, calls = compaction.swap_files, list[int]()

    def late(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            table.delete(pa.table({"card_id": [2]}))
        return swap(*arguments, **options)

    monkeypatch.setattr(compaction, "swap_files", late)
    compact(table, keys=["card_id"])
    assert (cards_of(table.lake.root), len(calls), len(list(Path(table.path).glob("sorted-*")))) == ([1], 2, 1)


def test_two_compactions_at_once_write_each_row_once(table: LakeTable) -> None:
    for card in range(6):
        table.append(batch([card]))
    together(*[(compact_once, (table.lake.root,))] * 3)
    assert (cards_of(table.lake.root), table.stats().files) == (list(range(6)), 1)


def compact_once(root: str) -> None:
    compact(Lake(root).table(KEY), keys=["card_id"])


def test_processes_that_append_delete_and_compact_at_once_lose_nothing(tmp_path: Path) -> None:
    root, done = str(tmp_path / "lake"), SPAWN.Event()
    rewriter = SPAWN.Process(target=compact_until, args=(root, done))
    rewriter.start()
    together(
        (append_batches, (root, 0, 15)), (append_batches, (root, 1, 15)), (delete_each, (root, [0, 5, 10_003]))
    )  # fmt: skip
    done.set()
    rewriter.join(60)
    expected = sorted({*range(15), *range(10_000, 10_015)} - {0, 5, 10_003})
    assert (rewriter.exitcode, cards_of(root)) == (0, expected)


@pytest.mark.slow
def test_eight_processes_with_fifty_appends_each_end_in_four_hundred_batches(tmp_path: Path) -> None:
    root, done = str(tmp_path / "lake"), SPAWN.Event()
    rewriter = SPAWN.Process(target=compact_until, args=(root, done))
    rewriter.start()
    together(*((append_batches, (root, writer, 50)) for writer in range(8)))
    done.set()
    rewriter.join(60)
    rows = Lake(root).table(KEY).scan(engine())
    assert (rewriter.exitcode, len(cards_of(root)), rows._seq.nunique().to_pyarrow().as_py()) == (0, 400, 400)
    assert cards_of(root) == [writer * 10_000 + number for writer in range(8) for number in range(50)]
