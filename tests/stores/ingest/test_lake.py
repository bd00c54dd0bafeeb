"""Promises of micro-batches: every accepted event is in the lake once, and nothing is deleted before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.stores.ingest.world import World, clicks, now, payments, settings_in
from windrow.errors import SchemaError
from windrow.features.source import CsvFile, Source
from windrow.stores.ingest.events import EventWriter
from windrow.stores.materialize import materialize_source
from windrow.stores.metadata import Metadata

PAYMENTS = payments.key


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(settings_in(tmp_path))
    yield made
    made.writer.close()


def test_events_are_in_their_table_and_their_segments_gone(world: World) -> None:
    at = now()
    world.send("payments", [1, 7, 2.5, at], [2, 8, None, at])
    world.settle()
    assert world.segments() == []
    assert [(r["payment_id"], r["amount"]) for r in world.rows(PAYMENTS)] == [(1, 2.5), (2, None)]
    assert world.lake.table(PAYMENTS).schema.names == [
        "payment_id", "card_id", "amount", "ts", "event_time", "known_at", "_seq",
    ]  # fmt: skip


def test_a_segment_that_its_worker_still_writes_is_left_alone(world: World) -> None:
    world.send("payments", [1, 7, 2.5, now()])
    applier = world.applier()
    applier.step()
    assert applier.commit() == []
    applier.close()
    assert len(world.segments()) == 1


def test_a_segment_that_is_not_online_yet_is_not_committed(world: World) -> None:
    world.send("payments", [1, 7, 2.5, now()])
    world.writer.rotate()
    applier = world.applier()
    assert applier.commit() == []
    assert len(world.segments()) == 1
    applier.step()
    assert [one.rows for one in applier.commit()] == [1]
    applier.close()


def test_the_open_segment_of_a_dead_worker_is_committed(world: World) -> None:
    other = EventWriter(world.folder, "api-1")
    world.send("payments", [1, 7, 2.5, now()])
    path = next(world.folder.glob("api-0-*.open"))
    shutil.copy(path, world.folder / "api-9-1.open")
    other.close()
    world.settle()
    assert world.column(PAYMENTS, "payment_id") == [1]
    assert world.segments() == []


def test_a_segment_committed_and_not_deleted_is_not_committed_again(world: World, tmp_path: Path) -> None:
    at = now()
    world.send("clicks", [1, "home", at], [1, "home", at])
    world.writer.rotate()
    shutil.copytree(world.folder, tmp_path / "copy")
    world.settle()
    for path in (tmp_path / "copy").glob("*.seg"):  # as if killed between the commit and the deletion
        shutil.copy(path, world.folder / path.name)
    world.settle()
    assert world.column(clicks.key, "number") == [1, 1]
    assert world.segments() == []


def test_the_same_event_twice_is_stored_once(world: World) -> None:
    at = now()
    world.send("payments", [1, 7, 2.5, at], [1, 7, 2.5, at])
    world.settle()
    world.send("payments", [1, 7, 2.5, at], known=at + 10)
    world.settle()
    assert world.column(PAYMENTS, "payment_id") == [1]


def test_an_event_with_other_values_corrects_the_stored_one(world: World) -> None:
    at = now()
    world.send("payments", [1, 7, 2.5, at])
    world.settle()
    world.send("payments", [1, 7, 3.5, at])
    world.send("payments", [1, 7, 2.5, at])
    world.settle()
    stored = sorted(world.rows(PAYMENTS), key=lambda row: row["_seq"])
    assert [row["amount"] for row in stored] == [2.5, 3.5, 2.5]


def test_without_an_id_equal_events_all_count(world: World) -> None:
    at = now()
    world.send("clicks", [1, "home", at], [1, "home", at])
    world.settle()
    assert world.column(clicks.key, "number") == [1, 1]


def test_events_of_two_workers_are_committed_alike(world: World) -> None:
    at = now()
    with EventWriter(world.folder, "api-1") as other:
        first, world.writer = world.writer, other
        world.send("clicks", [2, "home", at])
        world.writer = first
        world.send("clicks", [1, "home", at])
        other.rotate()
        world.settle()
    assert world.column(clicks.key, "number") == [1, 2]


def test_a_table_that_cannot_be_written_keeps_its_events_and_stops_no_other_table(world: World) -> None:
    at = now()
    world.lake.table(PAYMENTS).append(pa.table({"other": [1]}))
    world.send("payments", [1, 7, 2.5, at])
    world.send("clicks", [1, "home", at])
    with pytest.raises(SchemaError, match="Rows do not fit table 'sources/payments'"):
        world.settle()
    assert world.column(clicks.key, "number") == [1]
    assert len(world.segments()) == 1
    shutil.rmtree(Path(world.settings.lake) / PAYMENTS)
    world.settle()
    assert world.column(PAYMENTS, "payment_id") == [1]
    assert world.column(clicks.key, "number") == [1]
    assert world.segments() == []


def test_a_file_does_not_store_again_what_came_as_an_event(world: World, tmp_path: Path) -> None:
    at = 1_700_000_000_000_000
    # Both arrived a minute after they happened.
    world.send("payments", [1, 7, 2.5, at], [2, 8, 1.5, at + 1], known=at + 60_000_000)
    world.settle()
    file = CsvFile("payments.csv", {name: name for name in payments.fields})
    source = Source("payments", id="payment_id", event_time="ts", columns=payments.columns, file=file)
    text = "payment_id,card_id,amount,ts\n1,7,2.5,2023-11-14T22:13:20Z\n3,9,4.5,2023-11-14T22:13:21Z\n"
    (tmp_path / "payments.csv").write_text(text)
    metadata = Metadata(world.settings.metadata)
    written = materialize_source(source, world.lake, metadata, tmp_path)
    assert (written.rows_read, written.rows_written, written.rows_unchanged) == (2, 1, 1)
    assert world.column(PAYMENTS, "payment_id") == [1, 2, 3]
    span = metadata.spans()["payments"]
    assert (span.first, span.known) == (at, at + 60_000_000)
    assert materialize_source(source, world.lake, metadata, tmp_path).rows_written == 0
    metadata.close()


def test_a_source_whose_rows_only_come_as_events_is_up_to_date_without_a_file(world: World, tmp_path: Path) -> None:
    world.send("clicks", [1, "home", now()])
    world.settle()
    metadata = Metadata(world.settings.metadata)
    assert materialize_source(clicks, world.lake, metadata, tmp_path).rows_read == 0
    metadata.close()


def test_the_span_of_a_source_takes_in_its_events(world: World) -> None:
    at = now()
    world.send("clicks", [1, "home", at - 50], [2, "home", at], known=at + 5)
    world.settle()
    metadata = Metadata(world.settings.metadata)
    assert metadata.spans()["clicks"] == (at - 50, at, at + 5, 2)
    metadata.close()
