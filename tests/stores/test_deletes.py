from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.stores.table_tools import KEY, batch, cards_of
from tests.stores.test_lake import full_disk
from windrow.errors import NotFoundError, SchemaError, StoreError
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return Lake(str(tmp_path / "lake")).table(KEY)


def key(*cards: int | None) -> pa.Table:
    return pa.table({"card_id": pa.array(cards, pa.int64())})


def changes(table: LakeTable, seq: int, **options: Any) -> list[tuple[int, bool]]:
    rows = table.changes_since(engine(), seq, **options).select("card_id", "_removed").to_pyarrow()
    return sorted(zip(rows["card_id"].to_pylist(), rows["_removed"].to_pylist(), strict=True))


def test_a_deleted_row_is_gone_and_seen_as_of_before(table: LakeTable) -> None:
    before = table.append(batch([1, 2]))
    done = table.delete(key(1))
    root = table.lake.root
    assert (done.rows, cards_of(root), cards_of(root, as_of=before), cards_of(root, as_of=done.seq)) == (
        1, [2], [1, 2], [2],
    )  # fmt: skip


def test_a_row_written_again_after_a_delete_is_there_again(table: LakeTable) -> None:
    table.append(batch([1]))
    gone = table.delete(key(1))
    table.append(batch([1]))
    root = table.lake.root
    assert (cards_of(root), cards_of(root, as_of=gone.seq)) == ([1], [])


def test_every_version_of_a_row_is_deleted(table: LakeTable) -> None:
    for _ in range(3):
        table.append(batch([1, 2]))
    assert table.delete(key(1)).rows == 3
    assert cards_of(table.lake.root) == [2, 2, 2]


def test_a_second_delete_keeps_the_time_of_the_first(table: LakeTable) -> None:
    table.append(batch([1, 2]))
    first = table.delete(key(1)).seq
    assert (table.delete(key(1)).rows, table.delete(key(2)).rows) == (0, 1)
    assert cards_of(table.lake.root, as_of=first) == [2]


def test_rows_are_compared_in_the_named_columns_and_null_equals_null(table: LakeTable) -> None:
    table.append(pa.table({"card_id": pa.array([1, None, 2], pa.int64()), "plan": pa.array([None, "a", "b"])}))
    assert table.delete(pa.table({"plan": pa.array([None], pa.string())})).rows == 1
    assert table.delete(key(None)).rows == 1
    assert cards_of(table.lake.root) == [2]


def test_only_files_with_such_rows_are_written_again(table: LakeTable) -> None:
    for card in (1, 2, 3):
        table.append(batch([card]))
    before = set(Path(table.path).glob("*.parquet"))
    table.delete(key(2))
    assert len(set(Path(table.path).glob("*.parquet")) - before) == 1


def test_a_delete_keeps_the_order_of_a_files_rows(table: LakeTable) -> None:
    table.append(batch(list(range(5000, 0, -1))))
    table.delete(key(*range(2, 4000, 2)))
    assert table.scan(engine()).card_id.to_pyarrow().to_pylist() == [
        n for n in range(5000, 0, -1) if n % 2 or n >= 4000
    ]


def test_the_newest_change_may_be_a_delete(table: LakeTable) -> None:
    table.append(batch([1, 2]))
    done = table.delete(key(2))
    stats = table.stats()
    assert (stats.seq, stats.rows, stats.last) == (done.seq, 1, 1_700_000_000_000_001)


def test_the_mark_of_a_delete_is_nobodys_column(table: LakeTable) -> None:
    table.append(batch([1]))
    table.delete(key(1))
    assert (table.schema.names, table.scan(engine()).columns) == (
        ["card_id", "event_time", "known_at", "_seq"], ("card_id", "event_time", "known_at", "_seq"),
    )  # fmt: skip
    with pytest.raises(SchemaError, match="already have _deleted"):
        table.append(batch([2]).append_column("_deleted", pa.array([1])))


def test_appends_and_replacements_go_on_after_a_delete(table: LakeTable) -> None:
    table.append(batch([1, 2]))
    table.delete(key(1))
    table.append(batch([3]))
    table.replace(batch([4]), "card_id = 4")
    table.replace(batch([]), "card_id = 3")
    assert cards_of(table.lake.root) == [2, 4]


def test_deleting_what_is_not_there_changes_nothing(table: LakeTable) -> None:
    table.append(batch([1]))
    assert (table.delete(key(7)).rows, table.delete(key()).rows, cards_of(table.lake.root)) == (0, 0, [1])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (pa.table({"user": [1]}), "there is no column 'user' in table"),
        (pa.table({"card_id": ["1"]}), "column 'card_id' is int64, given is string"),
    ],
)
def test_a_comparison_that_cannot_be_right_is_refused(table: LakeTable, rows: pa.Table, told: str) -> None:
    table.append(batch([1]))
    with pytest.raises(SchemaError, match=told):
        table.delete(rows)


def test_deleting_from_nothing_is_told(table: LakeTable) -> None:
    with pytest.raises(NotFoundError, match="Nothing is stored under 'features/card_v1' yet"):
        table.delete(key(1))


def test_a_delete_that_fails_leaves_every_row(table: LakeTable) -> None:
    table.append(batch([1, 2]))
    table.delete(key(2))
    with full_disk(), pytest.raises(StoreError, match="It holds what it held before"):
        table.delete(key(1))
    assert cards_of(table.lake.root) == [1]


def test_changes_are_what_was_written_and_what_was_deleted_since(table: LakeTable) -> None:
    start = table.append(batch([1, 2]))
    middle = table.append(batch([3]))
    table.append(batch([4]))
    gone = table.delete(key(1, 4)).seq
    assert changes(table, 0) == [(2, False), (3, False)]
    assert changes(table, start) == [(1, True), (3, False)]
    assert changes(table, middle) == [(1, True)]
    assert changes(table, gone) == []
    assert changes(table, start, as_of=gone - 1) == [(3, False), (4, False)]


def test_applying_the_changes_step_by_step_gives_the_table(table: LakeTable) -> None:
    held, seen = set[int](), 0
    for step in range(6):
        table.append(batch([10 * step, 10 * step + 1]))
        if step % 2:
            table.delete(key(10 * step, 10 * step - 10))
        for card, removed in changes(table, seen):
            (held.discard if removed else held.add)(card)
        seen = table.stats().seq
        assert sorted(held) == cards_of(table.lake.root)


def test_changes_of_a_table_without_deletes_are_its_new_rows(table: LakeTable) -> None:
    start = table.append(batch([1]))
    table.append(batch([2]))
    assert changes(table, start) == [(2, False)]
