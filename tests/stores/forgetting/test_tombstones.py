from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from windrow.stores.forgetting.tombstones import bury, hash_key, tombstones, without_forgotten
from windrow.stores.metadata import Metadata

TABLE = "sources/payments"


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return Metadata(f"sqlite:///{tmp_path}/m.db")


def rows(*cards: int | None, known: int = 0) -> pa.Table:
    times = pa.array([known] * len(cards), pa.timestamp("us", "UTC"))
    return pa.table({"card": pa.array(cards, pa.int64()), "hall": ["a"] * len(cards), "known_at": times})


def kept(metadata: Metadata, given: pa.Table, table: str = TABLE) -> list[int | None]:
    found: list[int | None] = without_forgotten(given, table, metadata)["card"].to_pylist()
    return found


def test_counts_of_several_forgettings_are_added_up(metadata: Metadata) -> None:
    for count in (2, 3):
        bury(metadata, "card", [7], rows={TABLE: count}, columns={TABLE: [["card"]]})
    assert [stone.rows for stone in tombstones(metadata)] == [{TABLE: 5}]


def test_rows_of_the_forgotten_are_left_out_wherever_their_key_stands(metadata: Metadata) -> None:
    bury(metadata, "card", [7], rows={}, columns={TABLE: [["card_id"], ["card"]]})
    assert kept(metadata, rows(7, 8, None)) == [8, None]


def test_rows_of_other_tables_and_entities_are_kept(metadata: Metadata) -> None:
    bury(metadata, "card", [7], rows={}, columns={TABLE: [["card"]]})
    bury(metadata, "merchant", [8], rows={}, columns={TABLE: [["merchant"]]})
    assert (kept(metadata, rows(7, 8)), kept(metadata, rows(7), "sources/other")) == ([8], [7])


def test_rows_known_after_the_forgetting_are_kept(metadata: Metadata) -> None:
    stone = bury(metadata, "card", [7], rows={}, columns={TABLE: [["card"]]})
    assert (kept(metadata, rows(7, known=stone.at)), kept(metadata, rows(7, known=stone.at + 1))) == ([], [7])


def test_a_key_of_several_parts_is_forgotten_as_a_whole(metadata: Metadata) -> None:
    bury(metadata, "seat", [7, "a"], rows={}, columns={TABLE: [["card", "hall"]]})
    assert kept(metadata, rows(7, 8)) == [8]
    bury(metadata, "seat", [8, "b"], rows={}, columns={TABLE: [["card", "hall"]]})
    assert kept(metadata, rows(7, 8)) == [8]


def test_nothing_in_the_store_tells_the_key(metadata: Metadata, tmp_path: Path) -> None:
    bury(metadata, "card", ["K-zq83Xv7"], rows={TABLE: 1}, columns={TABLE: [["card"]]})
    assert not [path for path in tmp_path.iterdir() if b"K-zq83Xv7" in path.read_bytes()]


def test_keys_hash_as_their_text_with_entity_and_salt() -> None:
    known = hash_key("card", [7], "s")
    assert known == hash_key("card", ["7"], "s")
    assert len({known, hash_key("card", [7], "t"), hash_key("cards", [7], "s"), hash_key("card", [7, ""], "s")}) == 4
