from __future__ import annotations

import ibis
import pyarrow as pa
import pytest

from windrow.stores.difference import changed, missing


def test_stored_rows_are_left_out_whatever_their_nulls() -> None:
    stored = pa.table({"a": [1, None], "b": ["x", None]})
    assert missing(
        pa.table({"a": [1, None, 2], "b": ["x", None, None]}), ibis.memtable(stored), every=False
    ).to_pylist() == [{"a": 2, "b": None}]


@pytest.mark.parametrize(("every", "left"), [(True, [1, 1]), (False, [])])
def test_equal_rows_count_one_by_one_if_asked(every: bool, left: list[int]) -> None:
    found = missing(pa.table({"a": [1, 1, 1]}), ibis.memtable(pa.table({"a": [1]})), every=every)
    assert found.column("a").to_pylist() == left


@pytest.mark.parametrize(
    ("before", "after", "is_new"),
    [(1.0, 1.0 + 1e-12, False), (1.0, 1.0 + 1e-6, True), (None, None, False), (None, 1.0, True), (1.0, None, True)]
    + [(0.0, 0.0, False), (0.0, 1e-300, True), (1e300, 1e300, False), (-1.0, 1.0, True)],
)
def test_a_computed_number_is_new_only_beyond_rounding(before: float | None, after: float | None, is_new: bool) -> None:
    stored = pa.table({"k": [1], "x": pa.array([before], pa.float64())})
    rows = pa.table({"k": [1], "x": pa.array([after], pa.float64())})
    assert changed(rows, ibis.memtable(stored), identity=["k"]).num_rows == int(is_new)


def test_a_key_that_is_not_stored_is_new_even_if_every_value_is_null() -> None:
    stored, rows = (
        pa.table({"k": [1], "s": pa.array([None], pa.string())}),
        pa.table({"k": [2], "s": pa.array([None], pa.string())}),
    )
    assert changed(rows, ibis.memtable(stored), identity=["k"]).column("k").to_pylist() == [2]
