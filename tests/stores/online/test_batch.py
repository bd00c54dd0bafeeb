"""Whole columns are packed to the same rows as one packs them value by value."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.errors import StoreError
from windrow.stores.online.batch import pack_batch
from windrow.stores.online.rows import age, are_newer, pack_key, pack_row, unpack_row
from windrow.stores.online.store import Row

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "float64": (pa.float64(), st.floats()),
    "float32": (pa.float32(), st.floats(width=32)),
    "int64": (pa.int64(), INT64),
    "int32": (pa.int32(), INT32),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.text(max_size=40)),
    "binary": (pa.binary(), st.binary(max_size=40)),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.RecordBatch, list[tuple[Any, ...]], int]:
    rows = draw(st.integers(0, 12))
    keys = draw(st.lists(st.sampled_from(["int64", "int32", "string"]), max_size=2))
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=20))
    made = [(COLUMNS[n][0], [draw(COLUMNS[n][1]) for _ in range(rows)]) for n in keys]
    made += [(pa.int64(), draw(st.lists(INT64, min_size=rows, max_size=rows))) for _ in range(3)]
    for name in names:
        kind, values = COLUMNS[name]
        made.append((kind, [draw(st.none() | values) for _ in range(rows)]))
    arrays = [pa.array(values, kind) for kind, values in made]
    batch = pa.RecordBatch.from_arrays(arrays, names=[f"c{i}" for i in range(len(arrays))])
    return batch, list(zip(*(array.to_pylist() for array in arrays), strict=True)), len(keys)


def same(one: object, other: object) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both_nan or (type(one) is type(other) and one == other)


@given(tables())
@settings(max_examples=60, deadline=None)
def test_a_packed_batch_says_what_its_rows_say(made: tuple[pa.RecordBatch, list[tuple[Any, ...]], int]) -> None:
    batch, rows, keys = made
    packed = pack_batch("g_v1", batch, keys)
    assert len(packed.keys) == len(rows)
    for key, raw, row in zip(packed.keys, packed.rows, rows, strict=True):
        found = unpack_row(raw)
        assert key == pack_key(row[:keys])
        assert age(raw) == found[:3] == row[keys : keys + 3]
        assert len(found.values) == len(row) - keys - 3
        assert all(map(same, found.values, row[keys + 3 :]))


@given(INT64, INT64, INT64, INT64, INT64, INT64)
def test_ages_are_compared_as_the_times_they_stand_for(a: int, b: int, c: int, d: int, e: int, f: int) -> None:
    one, other = pack_row(Row(a, b, c, (1.0,))), pack_row(Row(d, e, f, ()))
    assert (age(one) < age(other)) == ((a, b, c) < (d, e, f))


def test_times_are_packed_as_microseconds() -> None:
    time = pa.array([5, None], pa.timestamp("us", "UTC"))
    known = pa.array([1, 2], pa.timestamp("us", "UTC"))
    columns = [pa.array([7, 8]), known, known, pa.array([1, 1]), time]
    made = pack_batch("g_v1", pa.RecordBatch.from_arrays(columns, names=list("abcde")), 1)
    assert [unpack_row(row).values for row in made.rows] == [(5,), (None,)]


def test_a_key_that_is_null_is_refused() -> None:
    ones = pa.array([1], pa.int64())
    batch = pa.RecordBatch.from_arrays([pa.array([None], pa.int64()), ones, ones, ones], names=list("abcd"))
    with pytest.raises(StoreError, match="group 'g_v1': a key is beyond 64 bits or not valid text"):
        pack_batch("g_v1", batch, 1)


@pytest.mark.parametrize(
    "first", [-(2**63), -5, 0, 120, 250, 256, 300, 2**16 - 5, 2**16, 2**32 - 5, 2**32, 2**62, 2**63 - 10]
)
def test_a_key_of_whole_numbers_is_packed_as_a_reader_asks_for_it(first: int) -> None:
    numbers = range(first, first + 10)
    columns = [pa.array(numbers, pa.int64()), *[pa.array([1] * 10, pa.int64())] * 3]
    made = pack_batch("g_v1", pa.RecordBatch.from_arrays(columns, names=list("abcd")), 1)
    assert made.keys == [pack_key((n,)) for n in numbers]


TIME = st.integers(-2, 2)


@given(st.lists(st.tuples(TIME, TIME, TIME, TIME, TIME, TIME), max_size=30))
def test_many_rows_are_compared_as_one_by_one(times: list[tuple[int, ...]]) -> None:
    rows, old = [pack_row(Row(*t[:3], (1.0,))) for t in times], [pack_row(Row(*t[3:], ())) for t in times]
    assert are_newer(rows, old) == [t[:3] > t[3:] for t in times]
