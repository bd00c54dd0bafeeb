"""How long from pushing an event over HTTP until a reader of the online store has it: alone, and during a bulk load."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks import rig
from tests.benchmarks.harness import Row, quantile
from windrow.features import agg
from windrow.features.aggregate import aggregate
from windrow.features.source import Source
from windrow.features.tiles import Tiles
from windrow.schema import Entity
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings
from windrow.stores.ingest.catalogue import catalogue, record
from windrow.stores.metadata import Metadata
from windrow.stores.online import store as stores

ROOT = Path(__file__).resolve().parents[2]
EVENTS, PAUSE = 300, 0.01
LOADED = 300_000  # entities x 20 floats, again and again
COLUMNS = {"payment_id": "int64", "card_id": "int64", "amount": "float64"}
pushes = Source("pushes", id="payment_id", event_time="ts", columns=COLUMNS)
spend = aggregate(
    "push_spend",
    pushes,
    by=Entity("card", card_id="int64"),
    features={"spend_1d": agg.sum("amount", "1d"), "n_7d": agg.count("7d"), "last_30d": agg.last("amount", "30d")},
)


def rows() -> list[Row]:
    """Push events one after the other, and look into the store every millisecond until each is counted."""
    with TemporaryDirectory() as folder:
        settings = Settings.read({"WINDROW_HOME": folder, "WINDROW_PROJECT": str(ROOT), "WINDROW_CLOCK": "real"})
        rig.build(settings)
        metadata = Metadata(settings.metadata)
        record(catalogue([pushes], [spend]), metadata)
        metadata.close()
        local_key(settings)
        with start(settings) as running:
            _fresh(settings, running.url, first=0, events=20)  # the applier is up, and its modules are loaded
            alone = _fresh(settings, running.url, first=1000, events=EVENTS)
            with _bulk_load(settings.online):
                loaded = _fresh(settings, running.url, first=10_000, events=EVENTS)
    note = f"{EVENTS} events, one request each; BentoML worker, LMDB, three windows per entity; read by another process"
    return [_row("", alone, note), _row(", during a bulk load", loaded, f"{note}; {LOADED:,} entities x 20 floats")]


def _row(when: str, seconds: list[float], note: str) -> Row:
    p99, half = quantile(seconds, 0.99), quantile(seconds, 0.5)
    told = f"{note}; p50 {half * 1000:.0f} ms, most {max(seconds) * 1000:.0f} ms"
    return Row(
        name=f"event pushed to readable online, p99{when}", value=p99, unit="s", bar="<= 1 s", holds=p99 <= 1, note=told
    )


def _fresh(settings: Settings, url: str, *, first: int, events: int) -> list[float]:
    address, tiles, seconds = urlsplit(url), Tiles(spend.spec), []
    headers = {"content-type": "application/json", "authorization": f"Bearer {local_key(settings)}"}
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    with stores.open_online(settings.online) as store:
        for number in range(first, first + events):
            begin = time.perf_counter()
            _push(connection, number, headers)
            while _counted(store, tiles, number) < 1:
                time.sleep(0.001)
                assert time.perf_counter() - begin < 30, "an event did not come online"
            seconds.append(time.perf_counter() - begin)
            time.sleep(PAUSE)
    connection.close()
    return seconds


def _push(connection: http.client.HTTPConnection, number: int, headers: dict[str, str]) -> None:
    body = {"payment_id": number, "card_id": number, "amount": 2.5, "ts": datetime.now(UTC).isoformat()}
    connection.request("POST", "/v1/ingest/pushes", json.dumps(body), headers)
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 202, said


def _counted(store: stores.OnlineStore, tiles: Tiles, card: int) -> Any:
    row = store.read([(spend.table_name, (card,))])[0]
    if row is None:
        return 0
    values, _ = tiles.values(row.values[0], time.time_ns() // 1000)
    return values[1]


@contextmanager
def _bulk_load(url: str) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    loader = context.Process(target=_load_for_ever, args=(url, begun), daemon=True)
    loader.start()
    try:
        assert begun.wait(60), "the bulk load did not begin"
        yield
    finally:
        loader.kill()
        loader.join()


def _load_for_ever(url: str, begun: Any) -> None:
    columns = [f"f{i}" for i in range(20)]
    with stores.open_online(url, write=True) as store:
        while True:
            values = tuple(float(i) for i in range(20))
            made = (((key,), stores.Row(10, 10, 1, values)) for key in range(LOADED))
            begun.set()
            with store.bulk("bulky_v1", columns) as load:
                load.write(made)
                load.switch()


if __name__ == "__main__":
    for row in rows():
        print(row.name, round(row.value, 4), row.unit, row.bar, row.holds, row.note)
