from __future__ import annotations

import json
import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from tests.stores.log_tools import outcome, prediction
from tests.stores.table_tools import SPAWN, compact_until
from windrow.errors import DataError, StoreError
from windrow.features.group import FeatureGroup, feature_group
from windrow.features.source import CsvFile, Source
from windrow.models.places import places
from windrow.schema import Entity
from windrow.settings import Settings
from windrow.stores import committer
from windrow.stores.committer import commit
from windrow.stores.compaction import compact
from windrow.stores.engine import engine
from windrow.stores.forgetting.forget import Forgotten, Places, _arriving, forget, look, typed_key
from windrow.stores.forgetting.tombstones import tombstones
from windrow.stores.ingest.erasure import await_lake, events_on_their_way
from windrow.stores.ingest.events import Batch, EventWriter
from windrow.stores.ingest.later import _TABLE
from windrow.stores.lake import Lake
from windrow.stores.log import LogWriter, PredictionLog
from windrow.stores.materialize import materialize_group, materialize_source
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online
from windrow.stores.sinks import write_sink

TEXT, NUMBER = "K-zq83Xv7-secret", 0x123456789ABCDEF
UTC = pa.timestamp("us", "UTC")


class House(NamedTuple):
    """A home in which one entity stands in every place, beside another one."""

    settings: Settings
    metadata: Metadata
    source: Source
    group: FeatureGroup
    entity: Entity
    key: Any
    other: Any

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    @property
    def log(self) -> Path:
        return self.settings.folder("log")

    @property
    def places(self) -> Places:
        found = places(self.entity, [], [self.group])
        return found._replace(services={"fraud": [("payer",)]})

    def load(self) -> int:
        return materialize_source(self.source, self.lake, self.metadata, self.settings.data).rows_written

    def forget(self) -> Forgotten:
        return forget((self.key,), self.places, self.settings, self.metadata)


def limits(payments: Any) -> Any:
    return payments.select(card_id=payments.card, amount=payments.amount, other=payments.card)


def house(settings: Settings, dtype: str) -> House:
    key, other = (TEXT, "b-plain") if dtype == "string" else (NUMBER, 5)
    entity = Entity("card", card_id=dtype)
    file = CsvFile("p.csv", {"payment_id": "id", "card": "card", "amount": "eur", "ts": "ts"})
    columns = {"payment_id": "int64", "card": dtype, "amount": "float64"}
    source = Source("payments", id="payment_id", event_time="ts", columns=columns, file=file)
    limits.__globals__["payments"] = source
    settings.data.mkdir()
    days = [(1, key, 1.0, 1), (2, other, 2.0, 2), (3, key, 3.0, 3), (4, other, -4.0, 4)]
    lines = [f"{n},{card},{eur},2026-01-0{day}T00:00:00Z" for n, card, eur, day in days]
    (settings.data / "p.csv").write_text("\n".join(["id,card,eur,ts", *lines, ""]))
    return House(settings, Metadata(settings.metadata), source, feature_group(entity)(limits), entity, key, other)


both = pytest.mark.parametrize("full", ["string", "int64"], indirect=True)


@pytest.fixture
def full(settings: Settings, request: pytest.FixtureRequest) -> Iterator[House]:
    made = house(settings, getattr(request, "param", "int64"))
    fill_tables(made)
    fill_files(made)
    with LogWriter(made.log, "api-0") as writer:
        fill_log(made, writer)
        yield made


def fill_tables(house: House) -> None:
    house.load()
    materialize_group(house.group, house.lake, house.metadata)
    table = house.lake.table(house.group.key)
    keys = pa.array([house.key, house.other])
    times = pa.array([1, 2], UTC)
    row = {"card_id": keys, "amount": [9.0, 9.0], "other": keys, "event_time": times, "known_at": times}
    table.append(pa.table(row))
    compact(table, keys=["card_id"])  # leaves the old files behind
    table.delete(pa.table({"card_id": keys}).slice(0, 1))
    with open_online(house.settings.online, write=True) as online:
        for at in (1, 2):
            rows = [((key,), Row(at, at, at, (1.0, key))) for key in (house.key, house.other)]
            online.write("limits_v1", ["amount", "other"], rows)
    house.lake.table("quarantine/limits_v1").append(pa.table({**row, "reasons": ["x", "y"]}))
    # As an older windrow wrote it: least and greatest of every column in the log.
    seqs = pa.array([1, 2], pa.int64())
    write_deltalake(house.lake.table("features/old_v1").path, pa.table({"card_id": keys, "_seq": seqs}))


def fill_files(house: House) -> None:
    payers = pa.array([house.key, house.other])
    rows = pa.table({"payer": payers, "event_time": pa.array([1, 2], UTC), "output": [0.1, 0.2]})
    for sink in ("delta", "duckdb"):
        write_sink(sink, "fraud", rows, lake=house.lake, settings=house.settings, day=None)
    folder = house.settings.folder("datasets/fraud")
    pq.write_table(rows, folder / "d1.parquet")


def fill_log(house: House, writer: LogWriter) -> None:
    for number, card in enumerate((house.key, house.other)):
        request = {"payer": card, "amount": 2.0}
        record = prediction(number, service="fraud", keys={"payer": card}, request=request)
        writer.append([record, outcome(record.request_id, 1.0, known_at=5, service="fraud")])
    writer.rotate()
    commit(house.log, house.lake)
    both = [prediction(n, service="fraud", request={"payer": card}) for n, card in ((2, house.key), (3, house.other))]
    writer.append(both)
    writer.rotate()  # sealed, and not committed
    writer.append([prediction(4, service="fraud", request={"payer": house.key})])
    writer.append([prediction(5, service="fraud", request={"payer": house.other})])  # both still open


def traces(root: Path, key: Any) -> list[str]:
    """Return every file that holds the key: as bytes in any of its forms, or as a value of a Parquet or DuckDB file."""
    forms = [str(key).encode()]
    if isinstance(key, int):
        forms += [struct.pack("<q", key), struct.pack(">q", key), struct.pack("<d", key), struct.pack("<f", key)]
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            data = path.read_bytes()
            if any(form in data for form in forms) or str(key) in values(path, data):
                found.append(str(path.relative_to(root)))
    return sorted(found)


def values(path: Path, data: bytes) -> str:
    if data[:4] == b"PAR1":
        return str(pq.read_table(path).to_pydict()) + str(pq.read_metadata(path).to_dict())
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as con:
            return str([con.execute(f"FROM {t}").fetchall() for (t,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()])  # fmt: skip
    return ""


@both
def test_no_byte_of_the_key_is_left_in_any_file(full: House) -> None:
    home = full.settings.home
    before = {path.split("/")[0] for path in traces(home, full.key)}
    assert before == {"datasets", "lake", "log", "online", "sinks"}
    assert len([path for path in traces(home, full.key) if path.startswith("lake/")]) >= 10
    full.forget()
    assert traces(home, full.key) == []


@both
def test_what_went_is_told_place_by_place(full: House) -> None:
    assert full.forget().rows == {
        "log (not committed yet)": 2, "sources/payments": 2, "features/limits_v1": 3, "features/old_v1": 1,
        "quarantine/limits_v1": 1, "predictions/fraud": 1, "log/fraud": 1, "outcomes/fraud": 1,
        "datasets/fraud/d1": 1, "sinks/fraud": 1, "online/limits_v1": 1,
    }  # fmt: skip


def test_everything_of_others_is_kept(full: House) -> None:
    full.forget()
    lake, con = full.lake, engine()
    assert lake.table("sources/payments").scan(con).card.to_pyarrow().to_pylist() == [full.other] * 2
    assert lake.table("features/limits_v1").stats().rows == 3
    assert sorted(PredictionLog(full.log, lake).table("fraud")["request_id"].to_pylist()) == [
        prediction(n).request_id for n in (1, 3, 5)
    ]
    assert PredictionLog(full.log, lake).table("fraud", kind="outcome").num_rows == 1
    with open_online(full.settings.online) as online:
        found = online.read([("limits_v1", (full.key,)), ("limits_v1", (full.other,))])
    assert [row is not None for row in found] == [False, True]
    assert pq.read_table(full.settings.home / "datasets/fraud/d1.parquet")["payer"].to_pylist() == [full.other]


def test_looking_changes_nothing_and_tells_the_same(full: House) -> None:
    before = traces(full.settings.home, full.key)
    seen = look((full.key,), full.places, full.settings)
    rows = dict(seen.rows)
    assert (traces(full.settings.home, full.key), seen.hash) == (before, "")
    assert rows.pop("log (not committed yet)") == 2
    told = full.forget().rows
    assert rows == {place: count for place, count in told.items() if place != "log (not committed yet)"}


def test_a_second_forgetting_finds_nothing(full: House) -> None:
    full.forget()
    assert full.forget().rows == {}


def test_a_committer_and_a_compaction_at_work_bring_nothing_back(full: House) -> None:
    done = SPAWN.Event()
    others = [
        SPAWN.Process(target=committer.run, args=(full.settings.home,), kwargs={"every": 0.05}, daemon=True),
        SPAWN.Process(target=compact_until, args=(full.settings.lake, done), kwargs={"key": full.group.key}, daemon=True),
    ]  # fmt: skip
    for process in others:
        process.start()
    try:
        while any(full.log.glob("*.seg")):
            time.sleep(0.01)
        with LogWriter(full.log, "api-1") as writer:
            for number in range(10, 40):
                writer.append([prediction(number, service="fraud", request={"payer": full.key})])
                writer.rotate()
        full.forget()
        assert traces(full.settings.home, full.key) == []
    finally:
        done.set()
        others[0].terminate()
        for process in others:
            process.join(60)
    commit(full.log, full.lake)
    assert traces(full.settings.home, full.key) == []


def forget_in_child(key: Any, where: Places, settings: Settings, begun: Event) -> None:
    begun.set()
    forget((key,), where, settings, Metadata(settings.metadata))


@pytest.mark.slow
@both
def test_killed_at_any_moment_it_is_finished_by_the_next_run(full: House) -> None:
    for tenths in (1, 3, 5, 7, 9, 12):
        begun = SPAWN.Event()
        child = SPAWN.Process(target=forget_in_child, args=(full.key, full.places, full.settings, begun))
        child.start()
        assert begun.wait(60)
        child.join(tenths / 10)
        child.kill()
        child.join()
    full.forget()
    assert traces(full.settings.home, full.key) == []
    assert full.lake.table("sources/payments").scan(engine()).card.to_pyarrow().to_pylist() == [full.other] * 2
    assert full.load() == 0


def test_the_log_goes_on_after_a_forgetting(full: House) -> None:
    full.forget()
    commit(full.log, full.lake)
    rows = full.lake.table("log/fraud").scan(engine())
    assert "erased" not in rows.kind.to_pyarrow().to_pylist()
    assert full.lake.keys() == sorted({*full.lake.keys()} - {"log/_other"})


@both
def test_the_next_load_of_the_source_does_not_bring_it_back(full: House) -> None:
    full.forget()
    assert full.load() == 0
    assert traces(full.settings.home, full.key) == []


def test_an_entity_that_comes_back_later_is_new(full: House) -> None:
    full.forget()
    with (full.settings.data / "p.csv").open("a") as file:
        file.write(f"9,{full.key},7.0,2199-01-01T00:00:00Z\n")
    assert full.load() == 1


def test_the_tombstone_has_a_hash_and_counts_and_no_key(full: House) -> None:
    done = full.forget()
    (stone,) = tombstones(full.metadata)
    assert (stone.entity, stone.hash, stone.rows) == ("card", done.hash, done.rows)
    assert stone.columns["sources/payments"] == [["card_id"], ["card"]]
    assert len(stone.hash) == 64


def test_two_forgotten_entities_share_the_salt_and_not_the_hash(full: House) -> None:
    first = full.forget()
    second = forget((full.other,), full.places, full.settings, full.metadata)
    assert first.hash != second.hash
    assert len({stone.salt for stone in tombstones(full.metadata)}) == 1


def test_what_windrow_cannot_take_apart_is_named(full: House) -> None:
    page = full.settings.folder("reports") / "page.html"
    page.write_text(f"<td>{full.key}</td>")
    assert full.forget().remains == [str(page)]


def test_writers_may_go_on_meanwhile(full: House) -> None:
    table = full.lake.table("features/limits_v1")
    full.forget()
    times = pa.array([3], UTC)
    row = {"card_id": pa.array([full.other]), "amount": [1.0], "other": pa.array([full.other])}
    table.append(pa.table({**row, "event_time": times, "known_at": times}))
    assert table.stats().rows == 4


def test_events_kept_for_a_later_time_are_erased(full: House) -> None:
    folder = full.settings.folder("ingest")
    with closing(sqlite3.connect(folder / "later.db")) as connection:
        connection.execute(_TABLE)
        for row, card in enumerate((full.key, full.other)):
            event = msgspec.msgpack.encode([1, 2, {"payment_id": 1, "card": card}])
            connection.execute("insert into later values ('w', 1, 1, ?, 1, 'payments', ?)", (row, event))
        connection.commit()
    assert look((full.key,), full.places, full.settings).rows["events (of a later time)"] == 1
    assert full.forget().rows["events (of a later time)"] == 1
    assert traces(full.settings.home, full.key) == []
    assert sqlite3.connect(folder / "later.db").execute("select row from later").fetchall() == [(1,)]


def test_events_that_do_not_arrive_stop_a_forgetting_before_it_begins(full: House) -> None:
    with EventWriter(full.settings.folder("ingest"), "api-9") as writer:
        writer.append(Batch("payments", ("payment_id", "card"), [[7, full.key, 1], [8, full.other, 1]]))
        wanted = _arriving((full.key,), full.places)
        assert events_on_their_way(full.settings.home, wanted) == 1
        with pytest.raises(StoreError, match="1 events of the entity are on their way to the lake and do not arrive"):
            await_lake(full.settings, wanted, seconds=0)


def test_a_refused_event_is_erased_from_the_quarantine(full: House) -> None:
    table = full.lake.table("quarantine/payments")
    texts = [f'{{"card": {json.dumps(card)}}}' for card in (full.key, full.other)] + [f"no json {full.key}", "{"]
    table.append(pa.table({"received_at": pa.array([1] * 4, UTC), "reasons": ["r"] * 4, "row": texts}))
    assert full.forget().rows["quarantine/payments"] == 2
    assert table.stats().rows == 2
    assert traces(full.settings.home, full.key) == []


def test_an_empty_home_has_nothing_to_forget(settings: Settings) -> None:
    made = house(settings, "int64")
    assert made.forget().rows == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "has 1 key parts, but 0"),
        (["x"], "is no whole number that fits"),
        (["9223372036854775808"], "no whole number that fits. card_id is int64"),
    ],
)
def test_a_key_of_another_form_is_refused(given: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        typed_key(Entity("card", card_id="int64"), given)
