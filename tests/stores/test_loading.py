"""What a run of a source does with what is stored: a part, everything, or what came since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stores.test_materialize import CARD, COLUMNS, DAYS, FILE, House
from windrow.clock import parse_time
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.group import feature_group
from windrow.features.source import Constant, Source
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.metadata import Metadata

full = Source("full", id="payment_id", event_time="ts", columns=COLUMNS, file=FILE, load="full")
anonymous = Source("anonymous", event_time="ts", columns=COLUMNS, file=FILE, load="full")
later = Source("later", id="payment_id", event_time="ts", columns=COLUMNS, file=FILE, delay="1d", load="incremental")
asked: list[int | None] = []
ONE, TWO, THREE = (f"{n},{n},{n}.0,{DAYS[n]}" for n in (1, 2, 3))


def stream(since: int | None = None) -> dict[str, Any]:
    import numpy as np

    asked.append(since)
    times = np.arange(4) * 10 + (0 if since is None else since - 5)
    return {"ts": times.astype("datetime64[us]"), "x": np.arange(4.0)}


pushed = Source(
    "pushed",
    event_time="ts",
    timezone="UTC",
    columns={"x": "float64"},
    simulator=f"{__name__}:stream",
    load="incremental",
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    data = tmp_path / "data"
    data.mkdir()
    return House(Lake(str(tmp_path / "lake")), Metadata(f"sqlite:///{tmp_path}/metadata.db"), data)


def ids(house: House, source: Source, **options: Any) -> list[int]:
    found: list[int] = house.lake.table(source.key).scan(engine(), **options).payment_id.to_pyarrow().to_pylist()
    return sorted(found)


def test_what_vanished_from_a_full_load_is_deleted_and_seen_as_of_before(house: House) -> None:
    before = house.load(ONE, TWO, source=full).seq
    write = house.load(TWO, THREE, source=full)
    assert (write.rows_deleted, write.rows_written, write.rows_unchanged) == (1, 1, 1)
    assert (ids(house, full), ids(house, full, as_of=before)) == ([2, 3], [1, 2])


def test_a_row_that_comes_back_in_a_full_load_is_there_again(house: House) -> None:
    for rows in ((ONE, TWO), (TWO,), (ONE, TWO)):
        write = house.load(*rows, source=full)
    assert (ids(house, full), write.rows_written, write.rows_deleted) == ([1, 2], 1, 0)


def test_a_second_full_load_of_the_same_rows_changes_nothing(house: House) -> None:
    house.load(ONE, TWO, source=full)
    version = house.lake.table(full.key).stats().version
    write = house.load(ONE, TWO, source=full)
    assert (write.rows_deleted, write.rows_written, house.lake.table(full.key).stats().version) == (0, 0, version)


def test_equal_rows_without_an_id_vanish_one_by_one(house: House) -> None:
    house.load(ONE, ONE, ONE, TWO, source=anonymous)
    write = house.load(ONE, TWO, source=anonymous)
    assert (write.rows_deleted, ids(house, anonymous)) == (2, [1, 2])
    assert house.load(ONE, TWO, source=anonymous).rows_deleted == 0


def test_what_vanished_stays_where_the_data_may_be_a_part(house: House) -> None:
    part = Source("part", id="payment_id", event_time="ts", columns=COLUMNS, file=FILE)
    house.load(ONE, TWO, source=part)
    assert (house.load(TWO, source=part).rows_deleted, ids(house, part)) == (0, [1, 2])


def test_an_incremental_load_reads_only_what_became_known_since(house: House) -> None:
    first = house.load(ONE, TWO, source=later)
    second = house.load(ONE, "2,2,99.0," + DAYS[2], THREE, source=later)
    assert (first.rows_read, second.rows_read, second.rows_written, ids(house, later)) == (2, 1, 1, [1, 2, 3])
    assert house.metadata.spans()["later"] == (parse_time(DAYS[1]), parse_time(DAYS[3]), parse_time(DAYS[4]), 3)


def test_an_incremental_load_does_not_look_at_old_cells(house: House) -> None:
    house.load(ONE, TWO, source=later)
    assert house.load(f"broken,x,y,{DAYS[1]}", THREE, source=later).rows_written == 1


def test_an_incremental_load_without_news_writes_nothing(house: House) -> None:
    house.load(ONE, source=later)
    write = house.load(ONE, source=later)
    assert (write.rows_read, write.rows_written, house.metadata.spans()["later"].rows) == (0, 0, 1)


def test_a_simulator_with_since_is_asked_for_what_came_since(house: House) -> None:
    asked.clear()
    writes = [house.load(source=pushed) for _ in range(2)]
    assert (asked, [w.rows_written for w in writes]) == ([None, 30], [4, 3])


def test_features_of_vanished_rows_vanish_and_history_stays(house: House) -> None:
    def spent(full: Any) -> Any:
        return full.select("card_id", "amount")

    def newest(full: Any) -> Any:
        made = full.group_by("card_id")
        return made.aggregate(n=full.count(), event_time=full.event_time.max(), known_at=full.known_at.max())

    spent.__globals__["full"] = full
    groups, deleted = [feature_group(CARD)(function) for function in (spent, newest)], []
    for rows in ((f"1,7,1.0,{DAYS[1]}", TWO), (f"1,7,1.0,{DAYS[1]}", f"3,7,3.0,{DAYS[3]}"), (f"3,7,3.0,{DAYS[3]}",)):
        house.load(*rows, source=full)
        deleted.append([house.group(group).rows_deleted for group in groups])
    assert house.current(groups[0], "card_id", "amount") == [(7, 3.0)]
    # Card 2 is gone with its only row; what was told of card 7 on the first day was told.
    assert house.current(groups[1], "card_id", "n") == [(7, 1), (7, 1)]
    assert deleted == [[0, 0], [1, 1], [1, 0]]


def test_ways_to_load_are_checked_when_declared() -> None:
    with pytest.raises(UnknownNameError, match="has no way to load 'all'"):
        Source("x", event_time="ts", columns={}, load="all")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="has one time for all rows, so none is ever later"):
        Source("x", event_time=Constant("2026-01-01"), columns={}, load="incremental")
