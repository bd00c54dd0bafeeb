from __future__ import annotations

import textwrap
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from windrow.clock import parse_time
from windrow.errors import DataError, DeclarationError, SchemaError, TimeError
from windrow.features.source import Constant, CsvFile, Source
from windrow.stores.reader import origin, read_source, span

PAYMENTS = {"payment_id": "int64", "card": "string", "amount": "float64"}
HEADER = "id,card no,eur,when\n"
MELBOURNE = "Australia/Melbourne"


def payments(
    *, columns: dict[str, str] | None = None, constants: dict[str, str] | None = None, **options: Any
) -> Source:
    declared = columns or PAYMENTS
    mapped = {"payment_id": "id", "card": "card no", "amount": "eur", "ts": "when"}
    mapped = {
        name: cell
        for name, cell in mapped.items()
        if (name in declared or name == "ts") and name not in (constants or {})
    }
    where = options.pop("where", {})
    return Source(
        "payments",
        event_time="ts",
        columns=declared,
        file=CsvFile("payments.csv", mapped, constants or {}, where),
        **options,
    )


def read(tmp_path: Path, text: str, source: Source | None = None) -> pa.Table:
    (tmp_path / "payments.csv").write_text(HEADER + textwrap.dedent(text))
    return read_source(source or payments(), tmp_path)


def simulated(rows: Any, **options: Any) -> Source:
    given = {"event_time": "ts", "columns": {"card": "string", "amount": "float64"}} | options
    source = Source("payments", **given, simulator="json:dumps")
    object.__setattr__(source, "simulator", type(source.simulator).to(lambda: rows))  # a function of this test
    return source


TIMES = np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[us]")


# Files


def test_a_file_gives_the_declared_columns_in_their_order_and_both_times(tmp_path: Path) -> None:
    rows = read(tmp_path, "7,a,1.5,2026-01-01T00:00:00Z\n")
    moment = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    assert rows.to_pylist() == [
        {"payment_id": 7, "card": "a", "amount": 1.5, "ts": moment, "event_time": moment, "known_at": moment}
    ]


def test_columns_have_the_declared_dtypes_even_when_all_cells_are_blank(tmp_path: Path) -> None:
    columns = {"payment_id": "int32", "card": "bool", "amount": "float32"}
    rows = read(tmp_path, ",,,2026-01-01T00:00:00Z\n", payments(columns=columns))
    types = [str(field.type) for field in rows.schema]
    assert types == [
        "int32",
        "bool",
        "float",
        "timestamp[us, tz=UTC]",
        "timestamp[us, tz=UTC]",
        "timestamp[us, tz=UTC]",
    ]


def test_blank_cells_are_null(tmp_path: Path) -> None:
    rows = read(tmp_path, '1,   ," ",2026-01-01T00:00:00Z\n2,"",,2026-01-01T00:00:00Z\n')
    assert (rows.column("card").to_pylist(), rows.column("amount").to_pylist()) == ([None, None], [None, None])


def test_text_keeps_its_spaces_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    rows = read(tmp_path, '1," a, ""b""\nc",1,2026-01-01T00:00:00Z\n')
    assert rows.column("card").to_pylist() == [' a, "b"\nc']


def test_text_that_looks_like_a_number_or_a_null_stays_text(tmp_path: Path) -> None:
    rows = read(tmp_path, "1,007,1,2026-01-01T00:00:00Z\n2,NULL,1,2026-01-01T00:00:00Z\n3,1e5,1,2026-01-01T00:00:00Z\n")
    assert rows.column("card").to_pylist() == ["007", "NULL", "1e5"]


@pytest.mark.parametrize(
    ("dtype", "cell", "value"),
    [("int64", "9223372036854775807", 2**63 - 1), ("int64", "-1", -1), ("int64", "+3.0", 3), ("int32", " 12 ", 12)]
    + [("float64", "-1.5e-3", -0.0015), ("float64", ".5", 0.5), ("float32", "0.5", 0.5)]
    + [("bool", text, True) for text in ("TRUE", "yes", "1")]
    + [("bool", text, False) for text in ("False", "NO", "0")],
)
def test_a_cell_is_read_as_its_dtype(tmp_path: Path, dtype: str, cell: str, value: object) -> None:
    rows = read(tmp_path, f"1,a,{cell},2026-01-01T00:00:00Z\n", payments(columns={"amount": dtype}))
    assert rows.column("amount").to_pylist() == [value]


@pytest.mark.parametrize(
    ("dtype", "cell"),
    [
        ("int64", "1.7"),
        ("int64", "9223372036854775808"),
        ("int64", "1_000"),
        ("int32", "2147483648"),
        ("float64", "1,5"),
    ]
    + [("float64", "inf"), ("float64", "NA"), ("float32", "1e39"), ("bool", "maybe"), ("bool", "2")],
)
def test_a_cell_that_its_dtype_cannot_hold_is_named_by_row_and_column(tmp_path: Path, dtype: str, cell: str) -> None:
    text = f'1,a,1,2026-01-01T00:00:00Z\n2,secret,"{cell}",2026-01-01T00:00:00Z\n'
    with pytest.raises(
        SchemaError, match=rf"payments.csv, column 'eur', row 2: '{cell}' is not .* \({dtype}\)"
    ) as failed:
        read(tmp_path, text, payments(columns={"amount": dtype}))
    assert "secret" not in str(failed.value)


def test_a_long_cell_is_not_repeated_whole(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"row 1: 'x{37}\.\.\.' is not a number"):
        read(tmp_path, f"1,a,{'x' * 500},2026-01-01T00:00:00Z\n")


def test_a_missing_column_is_named_with_the_closest_one(tmp_path: Path) -> None:
    (tmp_path / "payments.csv").write_text("id,card no,euro,when\n1,a,1,2026-01-01T00:00:00Z\n")
    with pytest.raises(SchemaError, match="payments.csv has no column 'eur'.*did you mean 'euro'?"):
        read_source(payments(), tmp_path)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_file_with_another_separator_is_told_so(tmp_path: Path, mark: str) -> None:
    (tmp_path / "payments.csv").write_text(f"id{mark}card no{mark}eur{mark}when\n")
    with pytest.raises(SchemaError, match=f"separate the cells by commas; the file has {mark!r}".replace("\\", r"\\")):
        read_source(payments(), tmp_path)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "payments.csv").write_text("id,card no,eur,eur,when\n1,a,1,2,2026-01-01T00:00:00Z\n")
    with pytest.raises(SchemaError, match="payments.csv has two columns called 'eur'"):
        read_source(payments(), tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,a,1,2026-01-01T00:00:00Z\n2,secret\n", "payments.csv, line 3: 2 cells where the header has 4"),
        ('1,a,1,2026-01-01T00:00:00Z\n2,"secret,1,2\n', "payments.csv, line 3: a quote that is never closed"),
    ],
)
def test_a_broken_line_is_named_but_not_repeated(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told) as failed:
        read(tmp_path, text)
    assert "secret" not in str(failed.value)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "payments.csv").write_bytes(HEADER.encode() + "1,Müller,1,2026-01-01T00:00:00Z\n".encode("latin-1"))
    with pytest.raises(DataError, match="payments.csv.*not UTF-8 text"):
        read_source(payments(), tmp_path)


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "payments.csv").write_bytes(b"\xef\xbb\xbfid,card no,eur,when\r\n1,a,2.5,2026-01-01T00:00:00Z\r\n")
    assert read_source(payments(), tmp_path).column("amount").to_pylist() == [2.5]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "payments.csv").write_text("")
    with pytest.raises(DataError, match="payments.csv is empty"):
        read_source(payments(), tmp_path)


def test_a_file_with_nothing_but_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Source 'payments' has no rows \(payments.csv\)"):
        read(tmp_path, "")


def test_only_rows_that_hold_the_wanted_text_are_read_and_keep_their_number(tmp_path: Path) -> None:
    text = "1,a,bad,2026-01-01T00:00:00Z\n2,b,2,2026-01-01T00:00:00Z\n3,b,bad,2026-01-01T00:00:00Z\n"
    with pytest.raises(SchemaError, match="row 3: 'bad' is not a number"):
        read(tmp_path, text, payments(where={"card no": "b"}))
    assert read(tmp_path, text, payments(where={"id": "2"})).column("payment_id").to_pylist() == [2]


def test_a_constant_is_the_same_in_every_row(tmp_path: Path) -> None:
    source = payments(constants={"card": "x", "amount": "2.5"})
    rows = read(tmp_path, "1,a,9,2026-01-01T00:00:00Z\n2,b,9,2026-01-01T00:00:00Z\n", source)
    assert rows.select(["card", "amount"]).to_pylist() == [{"card": "x", "amount": 2.5}] * 2


def test_a_constant_time_may_be_a_date(tmp_path: Path) -> None:
    rows = read(tmp_path, "1,a,1,ignored\n", payments(constants={"ts": "2019-09-30"}))
    assert rows.column("event_time")[0].value == parse_time("2019-09-30T00:00:00Z")


def test_a_constant_of_another_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="the constant 'many' is not float64"):
        read(tmp_path, "1,a,1,2026-01-01T00:00:00Z\n", payments(constants={"amount": "many"}))


def test_a_missing_file_without_a_simulator_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"'payments.csv' is not in {tmp_path}, and it names no simulator"):
        read_source(payments(), tmp_path)


# Times


@pytest.mark.parametrize(
    "cell",
    [
        "2026-01-01T10:00:00Z",
        "2026-01-01 10:00Z",
        "2026-01-01T11:00:00.000000+01:00",
        "2026-01-01T20:30+1030",
        "2026-01-01T05:00:00-05",
    ],
)
def test_times_with_a_zone_become_utc(tmp_path: Path, cell: str) -> None:
    assert read(tmp_path, f"1,a,1,{cell}\n").column("event_time")[0].value == parse_time("2026-01-01T10:00:00Z")


@pytest.mark.parametrize("cell", ["2026-01-01T10:00:00", "2026-01-01"])
def test_a_naive_time_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TimeError, match=r'column \'when\', row 1: a time without zone.*declare timezone="UTC"'):
        read(tmp_path, f"1,a,1,{cell}\n")


@pytest.mark.parametrize(
    "cell", ["01/02/2026", "2026-02-30T00:00:00Z", "yesterday", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00.1234567Z"]
)
def test_a_time_that_cannot_be_read_is_named_by_row_and_column(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TimeError, match=rf"payments.csv, column 'when', row 2: '{cell}' is not an ISO 8601 time"):
        read(tmp_path, f"1,a,1,2026-01-01T00:00:00Z\n2,a,1,{cell}\n")


@pytest.mark.parametrize("cell", ["0001-01-01", "1699-12-31T23:59:59", "2200-01-01", "9999-12-31"])
def test_a_time_that_stands_for_never_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TimeError, match=r"payments.csv, row 2: a time before 1700 or after 2199. 1 rows are like it"):
        read(tmp_path, f"1,a,1,2026-01-01\n2,a,1,{cell}\n", payments(timezone="UTC"))


def test_a_missing_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TimeError, match="payments.csv, column 'ts', row 2: the time is missing"):
        read(tmp_path, "1,a,1,2026-01-01T00:00:00Z\n2,a,1,\n")


def test_naive_times_are_in_the_declared_zone(tmp_path: Path) -> None:
    rows = read(
        tmp_path, "1,a,1,2026-01-01T10:00:00\n2,a,1,2026-07-01T10:00\n3,a,1,2026-07-01\n", payments(timezone=MELBOURNE)
    )
    moments = ["2025-12-31T23:00:00Z", "2026-07-01T00:00:00Z", "2026-06-30T14:00:00Z"]
    assert [value.value for value in rows.column("event_time")] == [parse_time(moment) for moment in moments]


def test_times_with_a_zone_are_not_moved_by_the_declared_one(tmp_path: Path) -> None:
    rows = read(tmp_path, "1,a,1,2026-01-01T10:00:00\n2,a,1,2026-01-01T10:00:00Z\n", payments(timezone=MELBOURNE))
    moments = ["2025-12-31T23:00:00Z", "2026-01-01T10:00:00Z"]
    assert [value.value for value in rows.column("event_time")] == [parse_time(moment) for moment in moments]


def test_a_time_that_happened_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TimeError, match="row 2: 2026-04-05 02:30:00 happened twice when the clocks changed in Australia/Melbourne"
    ):
        read(tmp_path, "1,a,1,2026-04-05T04:00:00\n2,a,1,2026-04-05T02:30:00\n", payments(timezone=MELBOURNE))


@pytest.mark.parametrize(("rule", "moment"), [("earliest", "2026-04-04T15:30:00Z"), ("latest", "2026-04-04T16:30:00Z")])
def test_a_time_that_happened_twice_is_resolved_as_declared(tmp_path: Path, rule: str, moment: str) -> None:
    rows = read(tmp_path, "1,a,1,2026-04-05T02:30:00\n", payments(timezone=MELBOURNE, ambiguous=rule))
    assert rows.column("event_time")[0].value == parse_time(moment)


def test_a_half_hour_that_happened_twice_is_seen_too(tmp_path: Path) -> None:
    with pytest.raises(
        TimeError, match="row 1: 2026-04-05 01:45:00 happened twice when the clocks changed in Australia/Lord_Howe"
    ):
        read(tmp_path, "1,a,1,2026-04-05T01:45:00\n", payments(timezone="Australia/Lord_Howe"))


@pytest.mark.parametrize("rule", ["refuse", "earliest", "latest"])
def test_a_time_that_never_happened_is_refused(tmp_path: Path, rule: str) -> None:
    with pytest.raises(
        TimeError, match="row 1: 2026-10-04 02:30:00 was skipped when the clocks changed in Australia/Melbourne"
    ):
        read(tmp_path, "1,a,1,2026-10-04T02:30:00\n", payments(timezone=MELBOURNE, ambiguous=rule))


def test_known_at_is_later_by_the_declared_delay(tmp_path: Path) -> None:
    rows = read(tmp_path, "1,a,1,2026-01-01T00:00:00Z\n", payments(delay="15d"))
    assert rows.column("known_at")[0].value == parse_time("2026-01-16")


def test_known_before_it_happened_is_refused() -> None:
    rows = {"card": ["a", "b"], "amount": [1.0, 2.0], "ts": TIMES, "loaded": TIMES[::-1].copy()}
    with pytest.raises(TimeError, match=r"row 2: known_at \(loaded\) is before event_time \(ts\)"):
        read_source(simulated(rows, known_at="loaded"), Path())


def test_one_constant_event_time_is_given_to_every_row() -> None:
    source = simulated({"card": ["a"], "amount": [1.0]}, event_time=Constant("2019-09-30"))
    rows = read_source(source, Path())
    assert (rows.column_names, rows.column("known_at")[0].value) == (
        ["card", "amount", "event_time", "known_at"],
        parse_time("2019-09-30"),
    )


# Ids


def test_two_rows_with_one_id_are_refused_by_number(tmp_path: Path) -> None:
    text = "1,a,1,2026-01-01T00:00:00Z\n2,a,1,2026-01-01T00:00:00Z\n1,a,1,2026-01-02T00:00:00Z\n"
    with pytest.raises(
        DataError, match="payments.csv: rows 1 and 3 have the same 'payment_id'. 1 ids are there more than once"
    ):
        read(tmp_path, text, payments(id="payment_id"))


def test_a_row_without_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="payments.csv, row 1: the id 'payment_id' is missing"):
        read(tmp_path, ",a,1,2026-01-01T00:00:00Z\n", payments(id="payment_id"))


# Simulators


def test_a_simulator_answers_where_the_file_is_missing(tmp_path: Path) -> None:
    source = simulated({"card": ["a", "b"], "amount": [1.0, float("nan")], "ts": TIMES})
    rows = read_source(source, tmp_path)
    assert (rows.column("amount").to_pylist(), rows.column("event_time")[1].value) == (
        [1.0, None],
        parse_time("2026-01-02"),
    )


def test_the_file_is_read_where_it_exists(tmp_path: Path) -> None:
    source = simulated(
        {"card": ["a"], "amount": [1.0], "ts": TIMES[:1]},
        file=CsvFile("p.csv", {"card": "c", "amount": "a", "ts": "t"}),
    )
    before = origin(source, tmp_path)
    (tmp_path / "p.csv").write_text("c,a,t\nfile,2,2026-01-01T00:00:00Z\n")
    assert (before, origin(source, tmp_path), read_source(source, tmp_path).column("card").to_pylist()) == (
        "simulator",
        "file",
        ["file"],
    )


def test_a_simulator_may_give_an_arrow_table() -> None:
    rows = pa.table(
        {"card": ["a", "b"], "amount": pa.array([1, 2], pa.int8()), "ts": pa.array(TIMES, pa.timestamp("us", "UTC"))}
    )
    assert read_source(simulated(rows), Path()).column("amount").to_pylist() == [1.0, 2.0]


def test_naive_arrow_times_are_refused() -> None:
    with pytest.raises(TimeError, match="column 'ts': times without zone"):
        read_source(simulated(pa.table({"card": ["a", "b"], "amount": [1.0, 2.0], "ts": TIMES})), Path())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"card": ["a", "b"], "amout": [1.0, 2.0], "ts": TIMES}, "gives no column 'amount'.*did you mean 'amout'"),
        (
            {"card": ["a", "b"], "amount": [1.0, 2.0], "ts": TIMES, "plan": [1, 2]},
            "gives a column 'plan' that is not declared",
        ),
        ({"card": ["a", "b"], "amount": [1.0], "ts": TIMES}, "gives columns of different lengths"),
        ({"card": [1, 2], "amount": [1.0, 2.0], "ts": TIMES}, "column 'card' is int64, declared is string"),
        ({"card": ["a", "b"], "amount": ["1", "2"], "ts": TIMES}, "column 'amount' is string, declared is float64"),
        ([1, 2], "returned list"),
        (
            {"card": "ab", "amount": [1.0, 2.0], "ts": TIMES},
            "column 'card' is no column of values. Next: return one array",
        ),
        ({"card": ["a", "b"], "amount": None, "ts": TIMES}, "column 'amount' is no column of values"),
        ({"card": ["a", "b"], "amount": np.ones((2, 2)), "ts": TIMES}, "column 'amount' is no column of values"),
        ({"card": ["a", "b"], "amount": np.array([1j, 2j]), "ts": TIMES}, "column 'amount' cannot be read"),
        ({"card": ["a", "\ud800"], "amount": [1.0, 2.0], "ts": TIMES}, "column 'card' cannot be read"),
    ],
)
def test_a_simulator_that_gives_something_else_is_refused(rows: Any, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        read_source(simulated(rows), Path())


@pytest.mark.parametrize(
    ("dtype", "values"), [("int64", [1.0, 1.7]), ("int32", [1, 2**31]), ("float64", [1, 2**53 + 1])]
)
def test_a_value_that_a_cast_would_change_is_named_by_row(dtype: str, values: list[float]) -> None:
    source = simulated({"card": ["a", "b"], "amount": values, "ts": TIMES}, columns={"card": "string", "amount": dtype})
    with pytest.raises(SchemaError, match=f"column 'amount', row 2: .* cannot be {dtype} without changing"):
        read_source(source, Path())


@pytest.mark.parametrize(("dtype", "value"), [("float64", float("inf")), ("float32", 1e39)])
def test_an_infinite_value_is_refused(dtype: str, value: float) -> None:
    source = simulated(
        {"card": ["a", "b"], "amount": [1.0, value], "ts": TIMES}, columns={"card": "string", "amount": dtype}
    )
    with pytest.raises(SchemaError, match=f"column 'amount', row 2: .* is no finite {dtype}"):
        read_source(source, Path())


def test_a_simulator_that_fails_is_named_with_the_place() -> None:
    def luckless() -> Any:
        raise ValueError("no luck")

    source = simulated(None)
    object.__setattr__(source, "simulator", type(source.simulator).to(luckless))
    with pytest.raises(
        DeclarationError,
        match=r"the simulator of source 'payments' .*luckless.* fails: ValueError: no luck. It stops at .*test_reader.py, line \d+. Next",
    ):
        read_source(source, Path())


def test_a_simulator_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="Source 'payments' has no rows"):
        read_source(simulated({"card": [], "amount": [], "ts": TIMES[:0]}), Path())


def test_the_span_of_rows_is_in_microseconds(tmp_path: Path) -> None:
    rows = read(tmp_path, "1,a,1,2026-01-01T00:00:00Z\n2,a,1,2026-01-03T00:00:00Z\n", payments(delay="1d"))
    assert span(rows) == {"first": 1767225600000000, "last": 1767398400000000, "known": 1767484800000000, "rows": 2}


@pytest.mark.data("churn_telco.csv")
def test_blank_charges_of_the_real_customers_are_null(data: Path) -> None:
    file = CsvFile("churn_telco.csv", {"customer_id": "customerID", "total": "TotalCharges"})
    columns = {"customer_id": "string", "total": "float64"}
    rows = read_source(
        Source("c", id="customer_id", event_time=Constant("2019-09-30"), columns=columns, file=file), data
    )
    assert (rows.num_rows, rows.column("total").null_count) == (7043, 11)
