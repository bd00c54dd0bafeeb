from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from windrow.errors import UnknownNameError
from windrow.features.arrow import to_numpy, to_pandas

UTC = pa.timestamp("us", "UTC")


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("values", [[1, 0], [1, None]])
def test_numbers_are_float64_whether_or_not_there_are_nulls(dtype: str, values: list[Any]) -> None:
    column = pa.array(values, pa.int64()).cast(pa.type_for_alias(dtype))
    found = to_numpy(column, dtype)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1.0, np.nan if values[1] is None else 0.0])


def test_a_column_that_is_all_null_is_nan() -> None:
    np.testing.assert_array_equal(to_numpy(pa.nulls(2), "int64"), [np.nan, np.nan])


@pytest.mark.parametrize("arrow", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_is_str_objects_with_one_word_for_missing(arrow: pa.DataType) -> None:
    found = to_numpy(pa.array(["a", None, ""]).cast(arrow), "string")
    assert (found.dtype, found.tolist()) == (np.dtype(object), ["a", "(missing)", ""])


@pytest.mark.parametrize("arrow", [UTC, pa.timestamp("ms", "UTC"), pa.timestamp("us", "Australia/Melbourne")])
def test_times_are_utc_microseconds(arrow: pa.DataType) -> None:
    found = to_numpy(pa.array([1_700_000_000_000_000, None], UTC).cast(arrow), "timestamp")
    assert found.dtype == np.dtype("datetime64[us]")
    assert (str(found[0]), bool(np.isnat(found[1]))) == ("2023-11-14T22:13:20.000000", True)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("int64", "float64"), ("string", "object"), ("timestamp", "datetime64[us]")]
)
def test_an_empty_column_keeps_its_dtype(dtype: str, kind: str) -> None:
    assert to_numpy(pa.chunked_array([pa.nulls(0)]), dtype).dtype == np.dtype(kind)


def test_chunks_are_joined_in_order() -> None:
    assert to_numpy(pa.chunked_array([[1, 2], [], [3]], pa.int32()), "int32").tolist() == [1.0, 2.0, 3.0]


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="has no dtype 'int16'"):
        to_numpy(pa.array([1]), "int16")


def test_a_frame_keeps_its_order_and_dtypes_in_pandas() -> None:
    frame = {"x": np.array([1, np.nan], np.float32), "a": np.array(["b", "(missing)"], object)}
    made = to_pandas(frame)
    assert (list(made.columns), made.dtypes.astype(str).tolist(), made["a"].tolist()) == (
        ["x", "a"], ["float32", "object"], ["b", "(missing)"],
    )  # fmt: skip


def test_an_empty_frame_keeps_its_dtypes_in_pandas() -> None:
    made = to_pandas({"x": np.empty(0, np.float32), "a": np.empty(0, object)})
    assert (len(made), made.dtypes.astype(str).tolist()) == (0, ["float32", "object"])
