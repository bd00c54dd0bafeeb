"""Promises of daily partitions: by the clock, complete, and never empty."""

from __future__ import annotations

from windrow import Batch, Entity, Every, FeatureView, Label, PredictionService, RandomSplit, Source, feature_group
from windrow.clock import Clock, parse_time
from windrow.orchestrate.partitions import day_partitions
from windrow.stores.metadata import Span

room = Entity("room", room="string")
readings = Source("readings", event_time="ts", delay="12h", columns={"room": "string", "degrees": "float64"})
doors = Source("doors", event_time="ts", columns={"room": "string", "open": "bool"})


@feature_group(room)
def heat(readings):  # type: ignore[no-untyped-def]
    return readings.select("room", "degrees")


def service(spine: Source | Every, batch: Batch | None) -> PredictionService:
    view = FeatureView("heat", spine=spine, features=[heat])
    label = Label.value(readings, "degrees", ahead="1d")
    return PredictionService("heat", view, label, model="train:model", split=RandomSplit(), batch=batch)


def span(first: str, last: str, known: str) -> Span:
    return Span(parse_time(first), parse_time(last), parse_time(known), 10)


HOURLY = service(Every("1h", room), Batch(rows="day"))
SPANS = {"readings": span("2024-03-01T03:00:00Z", "2024-03-05T20:00:00Z", "2024-03-06T08:00:00Z")}
DATA = Clock.parse("data")


def keys(made: object) -> list[str]:
    return list(made.get_partition_keys())  # type: ignore[attr-defined]


def test_days_run_from_the_first_full_day_with_features_to_the_day_of_the_clock() -> None:
    assert keys(day_partitions(HOURLY, SPANS, DATA)) == [
        "2024-03-02",
        "2024-03-03",
        "2024-03-04",
        "2024-03-05",
        "2024-03-06",
    ]


def test_a_fixed_clock_ends_the_days_at_its_own() -> None:
    assert keys(day_partitions(HOURLY, SPANS, Clock.parse("fixed:2024-03-03T05:00:00Z")))[-1] == "2024-03-03"


def test_a_clock_before_the_data_gives_no_day() -> None:
    assert keys(day_partitions(HOURLY, SPANS, Clock.parse("fixed:2024-01-01"))) == []


def test_an_event_spine_ends_with_its_last_event() -> None:
    events = service(doors, Batch(rows="day"))
    spans = {**SPANS, "doors": span("2024-03-02T10:00:00Z", "2024-03-04T01:00:00Z", "2024-03-04T01:00:00Z")}
    assert keys(day_partitions(events, spans, DATA)) == ["2024-03-03", "2024-03-04"]


def test_before_the_sources_are_read_there_is_no_day() -> None:
    assert keys(day_partitions(HOURLY, {}, DATA)) == []


def test_scoring_of_the_newest_rows_is_not_partitioned() -> None:
    assert day_partitions(service(Every("1h", room), Batch(rows="latest")), SPANS, DATA) is None


def test_a_service_without_batch_is_not_partitioned() -> None:
    assert day_partitions(service(Every("1h", room), None), SPANS, DATA) is None
