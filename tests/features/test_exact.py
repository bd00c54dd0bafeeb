"""No value changes on its way into a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from windrow import CsvFile, Source
from windrow.errors import SchemaError
from windrow.features.exact import exactly
from windrow.stores.reader import read_source


def cast(dtype: str, *values: Any, kind: pa.DataType | None = None) -> list[Any]:
    return exactly(pa.chunked_array([pa.array(values, kind)]), dtype, place="column 'x'").to_pylist()


@pytest.mark.parametrize(
    ("dtype", "value", "told"),
    [
        ("int64", 1.7, "row 2: 1.7 cannot be int64 without changing"),
        ("int64", float(2**63), "row 2: .* cannot be int64 without changing"),
        ("int32", 2**31, "row 2: 2147483648 cannot be int32 without changing"),
        ("float64", 2**53 + 1, "row 2: 9007199254740993 cannot be float64 without changing"),
        ("float32", 2**24 + 1, "row 2: 16777217 cannot be float32 without changing"),
        ("float32", float(2**24 + 1), "row 2: 16777217.0 cannot be float32 without changing"),
        ("float32", 1e39, "row 2: 1e.39 is no finite float32"),
        ("float64", float("inf"), "row 2: inf is no finite float64"),
        ("int64", "one", "row 2: 'one' cannot be int64 without changing"),
    ],
)
def test_a_value_that_would_change_is_refused(dtype: str, value: Any, told: str) -> None:
    with pytest.raises(SchemaError, match=f"column 'x', {told}"):
        cast(dtype, type(value)(1) if not isinstance(value, str) else "1", value)


def test_what_rounding_to_a_float_means_is_no_other_value() -> None:
    assert cast("float32", 0.1, 16_777_216.0, 1e10 + 0.5)[0] == pytest.approx(0.1)
    assert cast("int64", 3.0, None, float("nan")) == [3, None, None]
    assert cast("float64", 2**53) == [float(2**53)]


@pytest.mark.parametrize(
    ("text", "good"), [("16777216", True), ("0.1", True), ("16777217", False), ("20000001.0", False)]
)
def test_a_file_is_read_by_the_same_rule(tmp_path: Path, text: str, good: bool) -> None:
    (tmp_path / "p.csv").write_text(f"ts,x\n2026-01-01T00:00:00Z,{text}\n")
    source = Source("p", event_time="ts", columns={"x": "float32"}, file=CsvFile("p.csv", {"ts": "ts", "x": "x"}))
    if good:
        assert read_source(source, tmp_path).column("x")[0].as_py() == pytest.approx(float(text))
    else:
        with pytest.raises(SchemaError, match=f"row 1: '{text}'"):
            read_source(source, tmp_path)
