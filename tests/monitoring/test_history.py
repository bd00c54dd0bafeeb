from __future__ import annotations

import numpy as np
import pytest

from tests.monitoring.conftest import words
from windrow.clock import duration
from windrow.features.contract import Frame
from windrow.models.service import Drift
from windrow.monitoring.history import Past, past_distance
from windrow.monitoring.verdict import compare
from windrow.schema import Field

HOUR, DAY = duration("1h"), duration("1d")
FIELDS = (Field("month", "int64"), Field("temperature", "float64"), Field("season", "string"))
TEMPERATURE = FIELDS[1]


def weather(hours: np.ndarray, *, warmer: float = 0.0) -> Frame:
    """Hourly weather with a yearly swing of 10 degrees, and 2 of slow noise."""
    day = hours / 24
    slow = np.interp(day, np.arange(0, 1500, 3), np.random.default_rng(0).normal(0, 2, 500))
    return {
        "month": np.floor(day / 30.4375) % 12,
        "temperature": 15 + 10 * np.sin(2 * np.pi * day / 365.25) + slow + warmer,
        "season": words([("winter", "spring", "summer", "autumn")[int(d / 91.3125) % 4] for d in day]),
    }


YEARS, JANUARY = np.arange(0, 3 * 8766), np.arange(3 * 8766, 3 * 8766 + 720)
PAST = Past(weather(YEARS), YEARS * HOUR, 30 * DAY)


def verdicts(current: Frame, past: Past | None = PAST) -> dict[str, str]:
    found = compare(weather(YEARS), current, FIELDS, Drift(), past=past)
    return {v.feature: v.verdict for v in found}


def test_a_month_is_far_from_all_years_and_no_drift() -> None:
    current = weather(JANUARY)
    assert verdicts(current, past=None) == dict.fromkeys(("month", "temperature", "season"), "drift")
    assert verdicts(current) == dict.fromkeys(("month", "temperature", "season"), "ok")


def test_a_month_that_no_month_of_the_past_was_like_is_drift() -> None:
    assert verdicts(weather(JANUARY, warmer=30.0))["temperature"] == "drift"


def test_the_verdict_names_how_far_the_past_went() -> None:
    usual, broken = (
        compare(weather(YEARS), weather(JANUARY, warmer=w), (TEMPERATURE,), Drift(), past=PAST)[0] for w in (0.0, 30.0)
    )
    assert "is usual: a time of the training data was 0." in usual.why
    assert "and further than any such time of the training data (0." in broken.why
    assert usual.threshold == broken.threshold == pytest.approx(past_distance(PAST, TEMPERATURE, rows=720))


def test_rows_without_an_order_in_time_are_as_near_as_chance() -> None:
    rng = np.random.default_rng(0)
    past = Past({"temperature": rng.normal(size=20_000)}, np.arange(20_000) * HOUR, 30 * DAY)
    distance = past_distance(past, TEMPERATURE, rows=300)
    assert distance is not None
    assert distance < 0.15


def test_a_shift_is_caught_as_before_where_the_past_was_steady() -> None:
    rng = np.random.default_rng(0)
    steady = {"temperature": rng.normal(size=20_000)}
    past = Past(steady, np.arange(20_000) * HOUR, 30 * DAY)
    shifted = {"temperature": rng.normal(1.0, 1.0, 300)}
    assert compare(steady, shifted, (TEMPERATURE,), Drift(), past=past)[0].verdict == "drift"


def test_a_past_of_fewer_than_five_windows_says_nothing() -> None:
    hours = np.arange(4 * 720)
    assert past_distance(Past(weather(hours), hours * HOUR, 30 * DAY), TEMPERATURE, rows=300) is None


def test_snapshots_are_stretches_of_their_own_however_far_apart() -> None:
    times = np.repeat(np.arange(12) * 30 * DAY, 500)
    values = np.random.default_rng(0).normal(np.repeat(np.arange(12.0), 500), 1.0)
    distance = past_distance(Past({"temperature": values}, times, HOUR), TEMPERATURE, rows=300)
    assert distance == pytest.approx(0.7, abs=0.1)


def test_a_feature_without_any_value_in_the_past_says_nothing() -> None:
    past = Past({"temperature": np.full(100, np.nan)}, np.arange(100) * HOUR, DAY)
    assert past_distance(past, TEMPERATURE, rows=10) is None


def test_stretches_with_few_values_do_not_raise_the_bar() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    values[rng.random(20_000) < 0.5] = np.nan
    values[:720] = np.where(np.arange(720) % 100 == 0, 50.0, np.nan)  # a month of eight odd values
    distance = past_distance(Past({"temperature": values}, np.arange(20_000) * HOUR, 30 * DAY), TEMPERATURE, rows=300)
    assert distance is not None
    assert distance < 0.2
