"""Promises of segments of events: what was accepted is read once, in order, whatever happens to the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.stores.ingest.world import card_limit, clicks, payments
from windrow.discover import record_streams, services
from windrow.errors import StoreError
from windrow.features.source import Constant, Source
from windrow.settings import Settings
from windrow.stores.ingest.catalogue import catalogue, recorded, stream_of_group, stream_of_source
from windrow.stores.ingest.events import Batch, EventWriter, Parked, Position, Tail, listing, park, parked
from windrow.stores.metadata import Metadata
from windrow.stores.segments import MAGIC, SegmentId, backlog


def _batch(number: int) -> Batch:
    return Batch("clicks", ("number",), [[number, 5]])


def _numbers(tail: Tail) -> list[int]:
    return [batch.rows[0][0] for _, batch in tail.read() if batch is not None]


def test_a_tail_reads_each_batch_once_while_the_segment_grows(tmp_path: Path) -> None:
    tail = Tail(tmp_path, "w")
    with EventWriter(tmp_path, "w") as writer:
        writer.append(_batch(1))
        assert _numbers(tail) == [1]
        writer.append(_batch(2))
        writer.append(_batch(3))
        assert _numbers(tail) == [2, 3]
    assert _numbers(tail) == []


def test_a_tail_follows_its_worker_from_segment_to_segment(tmp_path: Path) -> None:
    tail = Tail(tmp_path, "w")
    with EventWriter(tmp_path, "w", segment_bytes=1) as writer:
        for number in range(4):
            writer.append(_batch(number))
        assert _numbers(tail) == [0, 1, 2, 3]


def test_a_tail_goes_on_at_the_position_it_is_given(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w") as writer:
        writer.append(_batch(1))
        tail = Tail(tmp_path, "w")
        assert _numbers(tail) == [1]
        writer.append(_batch(2))
        assert _numbers(Tail(tmp_path, "w", tail.position)) == [2]


def test_a_torn_frame_is_read_when_its_rest_is_there(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w") as writer:
        writer.append(_batch(1))
        writer.append(_batch(2))
    path = next(tmp_path.glob("*.seg"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    tail = Tail(tmp_path, "w")
    assert _numbers(tail) == [1]
    path.write_bytes(whole)
    assert _numbers(tail) == [2]


def test_a_tail_that_stops_in_the_middle_goes_on_there(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w", segment_bytes=1) as writer:
        for number in range(3):
            writer.append(_batch(number))
    tail = Tail(tmp_path, "w")
    _, first = next(iter(tail.read()))
    assert first is not None
    assert first.rows == [[0, 5]]
    assert _numbers(tail) == [1, 2]


def test_a_segment_that_is_deleted_is_passed_over(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w", segment_bytes=1) as writer:
        for number in range(3):
            writer.append(_batch(number))
    listing(tmp_path)[0].path(tmp_path, ".seg").unlink()
    assert _numbers(Tail(tmp_path, "w")) == [1, 2]


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    SegmentId("w", 1).path(tmp_path, ".seg").write_bytes(b"SOMETHING ELSE")
    with pytest.raises(StoreError, match="not of this format"):
        list(Tail(tmp_path, "w").read())


def test_a_listing_leaves_out_what_came_after_its_first_look(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w", segment_bytes=1) as writer:
        writer.append(_batch(0))
        writer.append(_batch(1))
        found = listing(tmp_path)
        assert [s.worker for s in found] == ["w", "w"]
        assert found == sorted(found)


def test_the_backlog_is_what_was_accepted_and_not_committed(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w") as writer:
        assert backlog(tmp_path) == 0
        writer.append(_batch(1))
        size = backlog(tmp_path)
        assert size == os.stat(next(tmp_path.glob("*.open"))).st_size - len(MAGIC)
    assert backlog(tmp_path) == size


def test_an_old_segment_is_handed_over_without_another_event(tmp_path: Path) -> None:
    with EventWriter(tmp_path, "w", segment_seconds=0.0) as writer:
        writer.append(_batch(1))
        assert [p.suffix for p in tmp_path.glob("w-*")] == [".open"]
        writer.rotate_if_old()
        assert [p.suffix for p in tmp_path.glob("w-*")] == [".seg"]


def test_what_is_parked_stays_parked_and_a_torn_end_is_ignored(tmp_path: Path) -> None:
    segment = SegmentId("w", 1)
    park(tmp_path, segment, [Parked(8, 0, "no number")])
    park(tmp_path, segment, [Parked(8, 1, "no text")])
    path = segment.path(tmp_path, ".parked")
    path.write_bytes(path.read_bytes() + b"\x20\x00\x00\x00half")
    assert parked(tmp_path, segment) == {(8, 0): "no number", (8, 1): "no text"}


def test_a_source_without_times_takes_no_events() -> None:
    source = Source("shops", event_time=Constant("2026-01-01"), columns={"shop_id": "int64"})
    assert stream_of_source(source) is None


def test_a_group_answers_to_its_name_and_to_its_version() -> None:
    found = catalogue([payments, clicks], [card_limit])
    assert sorted(found) == ["card_limit", "card_limit_v1", "clicks", "payments"]
    assert found["card_limit"] == found["card_limit_v1"] == stream_of_group(card_limit)
    assert found["card_limit"].names == ("card_id", "limit", "event_time")


def test_a_source_goes_before_a_group_of_its_name() -> None:
    limits = Source("card_limit", event_time="at", columns={"limit": "float64"})
    assert catalogue([limits], [card_limit])["card_limit"].key == "sources/card_limit"


def test_a_position_sorts_by_segment_then_offset() -> None:
    assert Position(1, 50) < Position(2, 8) < Position(2, 9)


def test_every_source_and_stored_group_of_a_project_takes_events(settings: Settings) -> None:
    found = record_streams(services("assets", project=ROOT).values(), settings)
    assert {"demand", "demand_lags", "demand_lags_v1", "snapshots", "customer_account"} <= set(found)
    metadata = Metadata(settings.metadata)
    assert recorded(metadata) == found
    metadata.close()
