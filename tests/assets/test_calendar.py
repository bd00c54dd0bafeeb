"""The on-demand calendar of the electricity service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from assets.electricity import on_demand as od

THREE_YEARS = np.arange(
    np.datetime64("2011-12-31T13:00", "us"), np.datetime64("2014-12-31T13:00", "us"), np.timedelta64(30, "m")
)


def test_hour_follows_daylight_saving() -> None:
    summer, winter = np.datetime64("2014-01-15T13:00", "us"), np.datetime64("2014-07-15T13:00", "us")
    assert od.hour(np.array([summer, winter])).tolist() == [0.0, 23.0]


def test_weekday_is_that_of_the_predicted_day_in_local_time() -> None:
    monday_morning_in_melbourne = np.datetime64("2014-07-13T22:00", "us")
    assert od.weekday(np.array([monday_morning_in_melbourne])).tolist() == [1]


def test_a_fixed_offset_would_get_the_day_wrong_1086_times_in_three_years() -> None:
    fixed = [
        datetime.fromtimestamp(t, UTC) + timedelta(hours=10 + 24)
        for t in THREE_YEARS.astype("datetime64[s]").astype(int)
    ]
    wrong = od.day_of_year(THREE_YEARS) != [moment.timetuple().tm_yday for moment in fixed]
    assert (THREE_YEARS.size, int(wrong.sum())) == (52608, 1086)
