"""Declarations of sources and clocks, checked when they are made."""

from __future__ import annotations

import re
from typing import Any

import pytest

from windrow import Constant, CsvFile, Entity, Every, Source
from windrow.errors import DeclarationError, TimeError, UnknownNameError

COLUMNS = {"payment_id": "int64", "amount": "float64"}


def source(**changed: Any) -> Source:
    return Source("payments", **{"columns": COLUMNS, "event_time": "ts", **changed})


def test_a_source_knows_its_fields_with_the_times_last() -> None:
    assert source(known_at="loaded").fields == {**COLUMNS, "ts": "timestamp", "loaded": "timestamp"}


def test_a_time_column_may_be_declared_among_the_columns() -> None:
    assert list(source(columns={"ts": "timestamp", **COLUMNS}).fields) == ["ts", "payment_id", "amount"]


def test_a_row_of_the_spine_has_the_declared_columns() -> None:
    assert [f.name for f in source().spine_fields] == ["payment_id", "amount"]


def test_a_source_is_stored_under_its_name() -> None:
    assert source().key == "sources/payments"


def test_a_column_is_found_as_attribute_and_by_name() -> None:
    assert (repr(source().amount), source()["ts"].dtype) == ("payments.amount", "timestamp")


def test_an_unknown_column_offers_the_closest() -> None:
    with pytest.raises(
        UnknownNameError,
        match="source 'payments' has no column 'amout'. It has 'amount', 'payment_id', 'ts'. Next: did you mean 'amount'",
    ):
        _ = source().amout


@pytest.mark.parametrize("name", ["ingest", "requests", "services"])
def test_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"source cannot be called '{name}'"):
        Source(name, columns=COLUMNS, event_time="ts")


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(
        UnknownNameError, match="source 'payments', column 'amount' has no dtype 'float'.*did you mean 'float"
    ):
        source(columns={"amount": "float"})


@pytest.mark.parametrize("name", ["event_time", "known_at", "_seq"])
def test_a_column_that_windrow_adds_itself_is_refused(name: str) -> None:
    with pytest.raises(
        DeclarationError, match=f"source 'payments' has a column '{name}', which windrow adds itself. Next: rename it"
    ):
        source(columns={name: "int64"})


def test_a_declared_time_may_be_called_event_time() -> None:
    assert source(event_time="event_time").time_columns == ("event_time",)


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(
        UnknownNameError, match="source 'payments' has no id column 'paymentid'.*did you mean 'payment_id'"
    ):
        source(id="paymentid")


def test_a_time_column_of_another_dtype_is_refused() -> None:
    with pytest.raises(DeclarationError, match="source 'payments': time column 'ts' is declared string"):
        source(columns={"ts": "string"})


def test_known_at_and_a_delay_exclude_each_other() -> None:
    with pytest.raises(DeclarationError, match="source 'payments' has both known_at and delay. Next: keep one"):
        source(known_at="loaded", delay="1d")


def test_a_delay_is_a_duration() -> None:
    assert source(delay="15d").delay == 1_296_000_000_000
    with pytest.raises(DeclarationError, match="delay= of source '[a-z_]*' is 'two weeks', which is not a duration"):
        source(delay="two weeks")


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(
        DeclarationError, match="source 'payments': there is no time zone 'Melbourne'. Next: use an IANA name"
    ):
        source(timezone="Melbourne")


def test_an_unknown_rule_for_ambiguous_hours_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="has no rule for ambiguous times 'late'.*did you mean 'latest'"):
        source(ambiguous="late")


def test_a_constant_is_a_time() -> None:
    assert source(event_time=Constant("2019-09-30")).event_time.micros == 1_569_801_600_000_000
    with pytest.raises(TimeError, match="a time cannot be read"):
        source(event_time=Constant("last year"))


def test_a_constant_time_is_no_column() -> None:
    assert source(event_time=Constant("2019-09-30")).fields == COLUMNS


def test_a_file_must_give_every_column() -> None:
    with pytest.raises(DeclarationError, match=r"source 'payments': its file 'p.csv' gives no column for \['amount'\]"):
        source(file=CsvFile("p.csv", columns={"payment_id": "ID", "ts": "Time"}))


def test_a_file_that_gives_an_unknown_column_is_refused() -> None:
    with pytest.raises(
        UnknownNameError, match=r"source 'payments' \(named in its file\) has no column 'amonut'.*did you mean 'amount'"
    ):
        source(file=CsvFile("p.csv", columns={"payment_id": "ID", "ts": "Time", "amonut": "A"}))


def test_a_constant_of_the_file_counts_as_a_column() -> None:
    file = CsvFile("p.csv", columns={"payment_id": "ID", "ts": "Time"}, constants={"amount": "1"})
    assert source(file=file).file == file


def test_a_simulator_is_named_and_not_imported() -> None:
    assert str(source(simulator="no_such_module:rows").simulator) == "no_such_module:rows"


def test_a_simulator_that_names_no_function_is_refused() -> None:
    with pytest.raises(DeclarationError, match="'simulate' does not name a function. Next: write \"module:function\""):
        source(simulator="simulate")


@pytest.mark.parametrize(
    "changed",
    [
        {"columns": {**COLUMNS, "lat": "float64"}}, {"event_time": "at"}, {"known_at": "loaded"}, {"delay": "1d"},
        {"id": "payment_id"}, {"timezone": "UTC"}, {"ambiguous": "latest"}, {"event_time": Constant("2019-09-30")},
    ],
)  # fmt: skip
def test_the_fingerprint_changes_with_what_the_rows_mean(changed: dict[str, Any]) -> None:
    assert source(**changed).fingerprint != source().fingerprint


def test_the_fingerprint_does_not_change_with_where_the_rows_come_from() -> None:
    assert source(simulator="simulate:rows").fingerprint == source().fingerprint


def test_a_constant_and_a_column_of_the_same_name_differ() -> None:
    assert source(event_time=Constant("2019-09-30")).fingerprint != source(event_time="2019-09-30").fingerprint


def test_a_clock_has_the_keys_of_its_entity() -> None:
    hourly = Every("1h", Entity("area", area="string"))
    assert ([f.name for f in hourly.spine_fields], hourly.interval) == (["area"], 3_600_000_000)
    assert repr(hourly.event_time) == "every_1h.event_time"


def test_a_clock_needs_a_duration() -> None:
    with pytest.raises(DeclarationError, match="the interval of Every\\(\\) is 'hourly', which is not a duration"):
        Every("hourly", Entity("area", area="string"))


def test_a_clock_with_an_offset_ticks_that_much_later_and_is_another_clock() -> None:
    late = Every("30s", Entity("area", area="string"), offset="10s")
    assert [late.first(second * 1_000_000) // 1_000_000 for second in (0, 10, 11, 40)] == [10, 10, 40, 40]
    assert (late.name, late.offset) == ("every_30s_at_10s", 10_000_000)


def test_an_offset_as_long_as_the_interval_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Every\('30s', offset='30s'\) has an offset as long as its interval"):
        Every("30s", Entity("area", area="string"), offset="30s")


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (["amount"], 'columns= of source \'s\' is a list. Next: write {"amount": "float64"}'),
        ({1: "int64"}, "a column of source 's' is an int"),
    ],
)
def test_columns_that_are_no_names_with_dtypes_are_refused(columns: Any, told: str) -> None:
    with pytest.raises(DeclarationError, match=re.escape(told)):
        Source("s", event_time="ts", columns=columns)
