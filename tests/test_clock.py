"""Durations, times and the one answer to "what is now?"."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from windrow.clock import Clock, duration, from_micros, parse_time, spoken, to_micros
from windrow.errors import DeclarationError, SettingsError, TimeError


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1s", 1_000_000),
        ("90m", 5_400_000_000),
        ("24h", 86_400_000_000),
        ("7d", 604_800_000_000),
        ("2w", 1_209_600_000_000),
        ("0s", 0),
    ],
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, micros: int) -> None:
    assert duration(text) == micros


@pytest.mark.parametrize("text", ["", "1", "d", "1.5h", "-1h", "1 h", "1h30m", "1y", "1H"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(DeclarationError, match='is not a duration. Next: write a number and a unit, such as "24h"'):
        duration(text)


def test_what_is_no_duration_is_told_with_who_asked_for_one() -> None:
    with pytest.raises(DeclarationError, match="ttl= of Cache\\(\\) is 'soon', which is not a duration"):
        duration("soon", where="ttl= of Cache()")


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "0d"), (3_600_000_000, "1h"), (90_000_000, "90s"), (1_500_000, "1.5s")]
)
def test_a_duration_is_spoken_in_its_largest_whole_unit(micros: int, text: str) -> None:
    assert spoken(micros) == text


@pytest.mark.parametrize("micros", [0, 1, -1, 1_700_000_000_000_001, -62_135_596_800_000_000, 253_402_300_799_999_999])
def test_times_go_to_microseconds_and_back_exactly(micros: int) -> None:
    assert to_micros(from_micros(micros)) == micros


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    assert to_micros(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TimeError, match="1970-01-01T00:00:00 has no time zone. Next: add one, such as 'Z'"):
        to_micros(datetime(1970, 1, 1))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    ("text", "micros"),
    [("1970-01-02", 86_400_000_000), ("1970-01-01T00:00:01Z", 1_000_000), ("1970-01-01 00:00:00.000001+00:00", 1)],
)
def test_iso_times_with_a_zone_and_dates_are_read(text: str, micros: int) -> None:
    assert parse_time(text) == micros


def test_an_iso_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TimeError, match="2026-01-31T09:00:00 has no time zone"):
        parse_time("2026-01-31T09:00:00")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "1700000000"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(TimeError, match="a time cannot be read. Next: write ISO 8601"):
        parse_time(text)


def test_the_fixed_clock_stands_still() -> None:
    assert Clock.parse("fixed:2019-09-30T00:00:00Z").now(lambda: 7) == 1_569_801_600_000_000


def test_the_data_clock_is_the_latest_known_time() -> None:
    assert Clock.parse("data").now(lambda: 7) == 7


def test_the_real_clock_runs() -> None:
    assert abs(Clock.parse("real").now(lambda: 7) - to_micros(datetime.now(UTC))) < 5_000_000
    assert abs(Clock.parse("real").now(lambda: 7) - time.time() * 1e6) < 5_000_000


def test_an_unknown_clock_is_refused() -> None:
    with pytest.raises(SettingsError, match="WINDROW_CLOCK is 'wall'. Next: use real, data or fixed:<ISO time>"):
        Clock.parse("wall")


def test_a_fixed_clock_without_a_zone_is_refused() -> None:
    with pytest.raises(
        SettingsError, match="WINDROW_CLOCK is 'fixed:2019-09-30T00:00:00': .* has no time zone. Next: add"
    ):
        Clock.parse("fixed:2019-09-30T00:00:00")


@pytest.mark.parametrize("text", ["365251d", "1000000000000d", "9" * 5000 + "d"])
def test_a_duration_that_no_time_can_hold_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="is longer than 1000 years"):
        duration(text)
