from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from windrow.clock import duration, parse_time
from windrow.errors import SchemaError
from windrow.models.service import Drift
from windrow.monitoring.windows import Window, chosen, frame_of, rows_within, thinned, window_at
from windrow.schema import Field

NOW = parse_time("2015-06-30T00:00:00Z")
DAY = duration("1d")


def logged(*times: int) -> pa.Table:
    return pa.table({"event_time": pa.array(times, pa.timestamp("us", "UTC")), "x": np.arange(len(times))})


def test_the_window_ends_now_by_the_clock_of_the_service() -> None:
    assert window_at(NOW, Drift(window="7d")) == Window(parse_time("2015-06-23T00:00:00Z"), NOW)


def test_a_row_of_now_belongs_to_the_window_and_one_of_its_start_does_not() -> None:
    rows = logged(NOW - 7 * DAY, NOW - 7 * DAY + 1, NOW, NOW + 1)
    assert rows_within(rows, window_at(NOW, Drift(window="7d")))["x"].to_pylist() == [1, 2]


def test_a_log_without_rows_gives_a_window_without_rows() -> None:
    assert rows_within(logged(), Window(0, NOW)).num_rows == 0


def test_rows_without_an_event_time_are_refused() -> None:
    with pytest.raises(SchemaError, match="no column 'event_time'. Next: read them with PredictionLog.vectors"):
        rows_within(pa.table({"x": [1]}), Window(0, NOW))


def test_logged_inputs_come_out_as_the_model_saw_them() -> None:
    fields = (Field("flag", "bool"), Field("seen", "timestamp"), Field("plan", "string"))
    frame = frame_of(pa.table({"flag": [1.0, None], "seen": [86400.0, None], "plan": ["a", None]}), fields)
    assert {name: values.dtype.name for name, values in frame.items()} == {
        "flag": "float32",
        "seen": "float32",
        "plan": "object",
    }
    assert frame["plan"].tolist() == ["a", "(missing)"]
    np.testing.assert_array_equal(frame["seen"], np.array([86400.0, np.nan], "float32"))


def test_a_log_that_lacks_a_feature_is_refused_by_name() -> None:
    with pytest.raises(SchemaError, match="logged rows have no column 'plan'"):
        frame_of(pa.table({"x": [1]}), (Field("x", "int64"), Field("plan", "string")))


def test_beyond_the_limit_rows_are_drawn_once_in_order_and_alike_for_every_column() -> None:
    kept = chosen(1000, most=100)
    frame = thinned({"x": np.arange(1000), "y": -np.arange(1000)}, most=100)
    assert (len(kept), len(set(kept.tolist())), bool((np.diff(kept) > 0).all())) == (100, 100, True)
    np.testing.assert_array_equal(frame["x"], kept)
    np.testing.assert_array_equal(frame["y"], -kept)
