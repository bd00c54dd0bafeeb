"""Rows in the order of key and time, whatever sort is the quickest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.features.order import by_key_and_time

_FEW, _MANY = st.integers(0, 3), st.integers(0, 1 << 40)
_NEAR, _FAR = st.integers(0, 5), st.integers(-(1 << 62), 1 << 62)


@pytest.mark.parametrize("codes", [_FEW, _MANY], ids=["few keys", "many keys"])
@pytest.mark.parametrize("times", [_NEAR, _FAR], ids=["near times", "far times"])
@pytest.mark.parametrize("sorted_by_time", [False, True])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_equal_rows_stay_as_they_came(
    data: st.DataObject, codes: st.SearchStrategy[int], times: st.SearchStrategy[int], sorted_by_time: bool
) -> None:
    rows = data.draw(st.lists(st.tuples(codes, times), max_size=40))
    if sorted_by_time:
        rows.sort(key=lambda row: row[1])
    code, time = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    assert by_key_and_time(code, time).tolist() == sorted(range(len(rows)), key=lambda i: rows[i])
