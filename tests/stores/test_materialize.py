from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandera.ibis as pandera
import pyarrow as pa
import pytest

from tests.stores.test_lake import full_disk
from windrow.clock import parse_time
from windrow.errors import DataError, NotFoundError, SchemaError, StoreError, ValidationError, VersionError
from windrow.features.group import FeatureGroup, feature_group
from windrow.features.source import CsvFile, Source
from windrow.schema import Entity
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.materialize import (
    check_version,
    materialize_group,
    materialize_source,
    read_current,
)
from windrow.stores.metadata import Metadata

CARD = Entity("card", card_id="int64")
COLUMNS = {"payment_id": "int64", "card_id": "int64", "amount": "float64"}
FILE = CsvFile("payments.csv", {"payment_id": "id", "card_id": "card", "amount": "eur", "ts": "ts"})
payments = Source("payments", id="payment_id", event_time="ts", columns=COLUMNS, file=FILE, delay="1d")
loose = Source("loose", event_time="ts", columns=COLUMNS, file=FILE)

DAYS = [f"2026-01-0{day}T00:00:00Z" for day in range(1, 10)]


class House(NamedTuple):
    lake: Lake
    metadata: Metadata
    data: Path

    def write(self, *rows: str) -> None:
        (self.data / "payments.csv").write_text("\n".join(["id,card,eur,ts", *rows, ""]))

    def load(self, *rows: str, source: Source = payments) -> Any:
        self.write(*rows)
        return materialize_source(source, self.lake, self.metadata, self.data)

    def group(self, group: FeatureGroup) -> Any:
        return materialize_group(group, self.lake, self.metadata)

    def current(self, table: Source | FeatureGroup, *columns: str) -> list[tuple[Any, ...]]:
        rows = read_current(table, self.lake, engine()).select(*columns).to_pyarrow()
        return sorted(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))


@pytest.fixture
def house(tmp_path: Path) -> House:
    data = tmp_path / "data"
    data.mkdir()
    return House(Lake(str(tmp_path / "lake")), Metadata(f"sqlite:///{tmp_path}/metadata.db"), data)


def spend(payments: Any) -> Any:
    return payments.select("card_id", "amount")


def spend_group(**options: Any) -> FeatureGroup:
    return feature_group(CARD, **options)(spend)


class Positive(pandera.DataFrameModel):
    amount: float = pandera.Field(gt=0, nullable=True)


FIRST, SECOND = f"1,7,1.5,{DAYS[0]}", f"2,8,2.5,{DAYS[1]}"


# Sources


def test_a_source_is_stored_with_both_times_and_its_span(house: House) -> None:
    write = house.load(FIRST, SECOND)
    assert (write.key, write.rows_read, write.rows_written) == ("sources/payments", 2, 2)
    span = house.metadata.spans()["payments"]
    assert span == (parse_time(DAYS[0]), parse_time(DAYS[1]), parse_time(DAYS[2]), 2)


def test_a_second_run_writes_nothing(house: House) -> None:
    first = house.load(FIRST, SECOND)
    second = house.load(FIRST, SECOND)
    assert (second.rows_read, second.rows_written, second.rows_unchanged, second.seq) == (2, 0, 2, first.seq)
    assert house.lake.table("sources/payments").stats().version == 0


def test_only_new_rows_are_appended(house: House) -> None:
    house.load(FIRST)
    write = house.load(FIRST, SECOND)
    assert (write.rows_written, write.rows_unchanged, house.lake.table("sources/payments").stats().rows) == (1, 1, 2)


def test_a_changed_row_with_the_same_id_is_a_correction(house: House) -> None:
    house.load(FIRST, SECOND)
    write = house.load(f"1,7,9.0,{DAYS[0]}", SECOND)
    assert (write.rows_written, house.current(payments, "payment_id", "amount")) == (1, [(1, 9.0), (2, 2.5)])


def test_a_correction_taken_back_is_in_force_again(house: House) -> None:
    for amount in ("1.5", "9.0", "1.5"):
        house.load(f"1,7,{amount},{DAYS[0]}")
    assert house.current(payments, "amount") == [(1.5,)]
    assert house.load(FIRST).rows_written == 0


def test_equal_rows_without_an_id_are_different_events(house: House) -> None:
    first = house.load(FIRST, FIRST, source=loose)
    again = house.load(FIRST, FIRST, source=loose)
    third = house.load(FIRST, FIRST, FIRST, source=loose)
    assert (first.rows_written, again.rows_written, third.rows_written) == (2, 0, 1)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("2,8,x,2026-01-02T00:00:00Z", "row 2: 'x'"),
        ("2,8,1,soon", "row 2: 'soon'"),
        (FIRST, "rows 1 and 2 have the same"),
    ],
)
def test_a_bad_row_leaves_the_source_as_it_was(house: House, row: str, told: str) -> None:
    house.load(FIRST)
    with pytest.raises(DataError, match=told):
        house.load(f"1,7,9.0,{DAYS[0]}", row)
    assert (house.current(payments, "amount"), house.metadata.spans()["payments"].rows) == ([(1.5,)], 1)


def test_a_failed_commit_leaves_no_rows_and_no_span(house: House) -> None:
    house.write(FIRST)
    with full_disk(), pytest.raises(StoreError, match="Nothing of it is visible"):
        materialize_source(payments, house.lake, house.metadata, house.data)
    assert (house.lake.keys(), house.metadata.spans()) == ([], {})


def test_simulated_rows_are_never_mixed_with_rows_of_a_file(house: House) -> None:
    both = Source("both", event_time="ts", columns=COLUMNS, file=FILE, simulator="json:dumps")
    given = {"payment_id": [1], "card_id": [7], "amount": [1.0], "ts": np.array([0], "datetime64[us]")}
    object.__setattr__(both, "simulator", type(both.simulator).to(lambda: given))
    materialize_source(both, house.lake, house.metadata, house.data)
    with pytest.raises(
        DataError, match="'both' holds rows from its simulator, and would now be read from its file"
    ) as told:
        house.load(FIRST, source=both)
    assert f"Files are looked for in {house.data} (WINDROW_DATA)" in str(told.value)


def test_other_columns_under_the_same_name_are_refused(house: House) -> None:
    house.load(FIRST)
    columns = {"payment_id": "int64", "card_id": "string", "amount": "float64"}
    other = Source("payments", id="payment_id", event_time="ts", columns=columns, file=FILE)
    with pytest.raises(SchemaError, match="Source 'payments' declares other columns than are stored"):
        materialize_source(other, house.lake, house.metadata, house.data)


# Groups


def test_a_group_stores_keys_features_and_both_times(house: House) -> None:
    house.load(FIRST)
    group = spend_group()
    write = house.group(group)
    assert (write.key, write.rows_read, write.rows_written) == ("features/spend_v1", 1, 1)
    assert house.lake.table(group.key).scan(engine()).columns == ("card_id", "amount", "event_time", "known_at", "_seq")


def test_a_second_run_of_a_group_writes_nothing(house: House) -> None:
    house.load(FIRST, SECOND)
    house.group(spend_group())
    write = house.group(spend_group())
    assert (write.rows_read, write.rows_written, write.rows_unchanged) == (0, 0, 0)
    again = materialize_group(spend_group(), house.lake, house.metadata, full=True)
    assert (again.rows_read, again.rows_written, again.rows_unchanged) == (2, 0, 2)


def test_sums_that_differ_in_the_last_digit_are_not_written_again(house: House) -> None:
    rows = [f"{n},{n % 3},{(n * 7919) % 1000 / 7:.17g},{DAYS[n % 9]}" for n in range(3000)]
    house.load(*rows)

    def total(payments: Any) -> Any:
        times = {"event_time": payments.event_time.max(), "known_at": payments.known_at.max()}
        return payments.group_by("card_id").aggregate(total=payments.amount.sum(), mean=payments.amount.mean(), **times)

    group = feature_group(CARD)(total)
    runs = [materialize_group(group, house.lake, house.metadata, full=True) for _ in range(3)]
    assert [write.rows_written for write in runs] == [3, 0, 0]


def test_a_corrected_source_row_corrects_the_group(house: House) -> None:
    house.load(FIRST, SECOND)
    house.group(spend_group())
    house.load(f"1,7,9.0,{DAYS[0]}", SECOND)
    write = house.group(spend_group())
    assert (write.rows_written, house.current(spend_group(), "card_id", "amount")) == (1, [(7, 9.0), (8, 2.5)])


def test_a_value_that_is_not_a_number_is_stored_as_null(house: House) -> None:
    house.load(f"1,7,0,{DAYS[0]}")

    def ratio(payments: Any) -> Any:
        return payments.select("card_id", ratio=payments.amount / payments.amount, amount=payments.amount)

    group = feature_group(CARD)(ratio)
    assert [house.group(group).rows_written for _ in range(2)] == [1, 0]
    assert house.current(group, "ratio", "amount") == [(None, 0.0)]


def test_a_group_may_read_another_group(house: House) -> None:
    house.load(FIRST)
    base = spend_group()

    def doubled(base: Any) -> Any:
        return base.select("card_id", double=base.amount * 2)

    doubled.__globals__["base"] = base
    house.group(base)
    group = feature_group(CARD)(doubled)
    house.group(group)
    assert house.current(group, "card_id", "double") == [(7, 3.0)]


def test_rows_that_fail_the_checks_stop_the_whole_write(house: House) -> None:
    house.load(FIRST, f"2,8,-2.5,{DAYS[1]}")
    with pytest.raises(
        ValidationError, match=r"1 of 2 rows fail its checks, nothing was written.*amount: greater_than\(0\): 1 rows"
    ):
        house.group(spend_group(checks=Positive))
    assert house.lake.keys() == ["sources/payments"]


def test_failing_checks_leave_stored_rows_and_the_recorded_definition_as_they_were(house: House) -> None:
    group = spend_group(checks=Positive)
    house.load(FIRST)
    house.group(group)
    before = house.lake.table(group.key).stats()
    house.load(f"1,7,9.0,{DAYS[0]}", f"2,8,-2.5,{DAYS[1]}")
    with pytest.raises(ValidationError, match="1 of 2 rows fail its checks"):
        house.group(group)
    assert house.lake.table(group.key).stats() == before


def test_bad_rows_are_put_aside_once_with_their_reasons(house: House) -> None:
    house.load(FIRST, f"2,8,-2.5,{DAYS[1]}")
    group = spend_group(checks=Positive, on_bad="quarantine")
    writes = [materialize_group(group, house.lake, house.metadata, full=True) for _ in range(2)]
    assert [(w.rows_read, w.rows_written, w.rows_unchanged, w.rows_quarantined) for w in writes] == [
        (2, 1, 0, 1),
        (2, 0, 1, 1),
    ]
    assert writes[0].reasons == {"amount: greater_than(0)": 1}
    aside = house.lake.table("quarantine/spend_v1").scan(engine()).select("card_id", "reasons").to_pyarrow().to_pylist()
    assert aside == [{"card_id": 8, "reasons": "amount: greater_than(0)"}]
    assert house.current(group, "card_id") == [(7,)]


def test_a_group_without_one_good_row_is_refused_even_under_quarantine(house: House) -> None:
    house.load(f"2,8,-2.5,{DAYS[1]}")
    with pytest.raises(ValidationError, match="1 of 1 rows fail.*look at the rows in table 'quarantine/spend_v1'"):
        house.group(spend_group(checks=Positive, on_bad="quarantine"))
    assert not house.lake.table("features/spend_v1").exists


def test_a_group_that_makes_no_rows_is_refused(house: House) -> None:
    house.load(FIRST)

    def nothing(payments: Any) -> Any:
        return payments.filter(payments.amount > 100).select("card_id", "amount")

    with pytest.raises(DataError, match="Feature group 'nothing' makes no rows from sources/payments"):
        house.group(feature_group(CARD)(nothing))


def test_a_failed_commit_of_a_group_is_made_good_by_the_next_run(house: House) -> None:
    house.load(FIRST)
    with full_disk(), pytest.raises(StoreError, match="The commit to table 'features/spend_v1' failed"):
        house.group(spend_group())
    assert house.metadata.definition("features/spend_v1") is None
    assert house.group(spend_group()).rows_written == 1


def test_an_input_that_was_never_materialised_is_named(house: House) -> None:
    with pytest.raises(NotFoundError, match="Nothing is stored under 'sources/payments' yet"):
        house.group(spend_group())


def test_a_definition_changed_under_its_version_is_refused_with_the_line_to_write(house: House) -> None:
    house.load(FIRST)
    house.group(spend_group())

    def spend(payments: Any) -> Any:
        return payments.select("card_id", amount=payments.amount * 2)

    changed = feature_group(CARD)(spend)
    with pytest.raises(
        VersionError, match=r"'spend' changed under version 1: .*amount \* 2.*write version=2 in its @feature_group"
    ):
        house.group(changed)
    with pytest.raises(VersionError, match="ttl was None, is 86400000000"):
        check_version(spend_group(ttl="1d"), house.metadata)


def test_a_new_version_stands_beside_the_old_one(house: House) -> None:
    house.load(FIRST)
    house.group(spend_group())
    house.group(spend_group(version=2))
    assert house.lake.keys() == ["features/spend_v1", "features/spend_v2", "sources/payments"]


def test_the_newest_group_row_of_one_time_is_the_one_in_force(house: House) -> None:
    table = house.lake.table("features/spend_v1")
    moment = pa.array([0], pa.timestamp("us", "UTC"))
    for amount in (1.0, 2.0):
        table.append(pa.table({"card_id": [7], "amount": [amount], "event_time": moment, "known_at": moment}))
    assert read_current(spend_group(), house.lake, engine()).amount.to_pyarrow().to_pylist() == [2.0]
