"""The online store: one vector and a hundred from LMDB and Redis, and from tables to the store.

``BENCH_SIZE=full`` takes 1M entities x 20 features; the default is a fifth. Redis runs on loopback, started for this
run; its rows are left out where redis-server is not installed. Figures that other processes spoil are taken as the
best of several turns, ours and the peer's by turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from tests.benchmarks.harness import Row, each, quantile
from tests.needs import find
from windrow.features.group import feature_group
from windrow.features.source import Source
from windrow.schema import Entity
from windrow.stores.lake import Lake
from windrow.stores.online.batch import pack_batch
from windrow.stores.online.rows import Block, Packed, pack_key, pack_row
from windrow.stores.online.store import TXN_ROWS, OnlineStore, open_online
from windrow.stores.online.store import Row as OnlineRow
from windrow.stores.publish import publish_online

FEATURES = [f"f{i}" for i in range(20)]
ENTITIES = {"small": 200_000, "full": 1_000_000}[os.environ.get("BENCH_SIZE", "small")]
TURNS, OTHERS = 7, 100
card = Entity("card", card_id="int64")
payments = Source("payments", event_time="ts", columns={"card_id": "int64", **dict.fromkeys(FEATURES, "float64")})


@feature_group(card)
def wide(payments: Any) -> Any:
    return payments.select("card_id", *FEATURES)


def rows() -> list[Row]:
    """Measure look-ups and loads on both backends."""
    with TemporaryDirectory(prefix="bench-online-") as folder:
        lake = Lake(f"{folder}/lake")
        made = _loads(Path(folder), lake) + _vectors(f"lmdb://{folder}/online-0")
    return made + (_redis() if find("redis-server") else [])


def _loads(folder: Path, lake: Lake) -> list[Row]:
    table = lake.table(wide.key)
    table.append(_table(1_000))
    warm = Lake(f"{folder}/warm")
    warm.table(wide.key).append(_table(1_000).slice(0, 1000))
    with open_online(f"lmdb://{folder}/warm-online", write=True) as store:
        publish_online(wide, warm, store, 5_000)  # imports, and the engine's first plan
    stores = [open_online(f"lmdb://{folder}/online-{turn}", write=True) for turn in range(3)]
    first = [_published(lake, store, now=2_000) for store in stores]
    table.append(_table(3_000))
    updates = [_published(lake, store, now=4_000) for store in stores]
    for store in stores:
        store.close()
    what = f"{ENTITIES / 1e6:g}M x {len(FEATURES)}"
    note = "from a Delta table through publish_online, fsync after every 20k rows; best of 3"
    return [
        _rate(f"offline to LMDB, first load, {what}", first, 300_000, note),
        _rate(f"offline to LMDB, every entity updated, {what}", updates, 150_000, note),
    ]


def _rate(name: str, spent: list[tuple[float, float]], bar: int, note: str) -> Row:
    seconds, cpu = min(spent)
    value = ENTITIES / seconds
    told = f"{note}; {seconds:.2f} s, of which {cpu:.2f} s of CPU"
    return Row(name=name, value=value, unit="entities/s", bar=f">= {bar:,} /s", holds=value >= bar, note=told)


def _published(lake: Lake, store: OnlineStore, *, now: int) -> tuple[float, float]:
    begin, worked = time.perf_counter(), time.process_time()
    made = publish_online(wide, lake, store, now)
    assert made.entities_written == ENTITIES, made
    return time.perf_counter() - begin, time.process_time() - worked


def _vectors(url: str) -> list[Row]:
    generator = np.random.default_rng(7)
    with open_online(url) as reader:
        one = [_one(reader, generator) for _ in range(TURNS)]
        many = [_many(reader, generator) for _ in range(TURNS)]
        apart = [_apart(reader, generator) for _ in range(TURNS)]
    _register_others(url)
    with open_online(url) as reader, open_online(url.replace("online-0", "online-1")) as plain:
        reader.read([(f"other{i}_v1", (1,)) for i in range(OTHERS)])
        turns = [(_one(plain, generator), _one(reader, generator)) for _ in range(TURNS)]
    p50, p99, hundred, tail = _best(one, 0.5), _best(one, 0.99), _best(many, 0.5), _best(many, 0.99)
    alone, among = (_best([turn[side] for turn in turns], 0.5) for side in (0, 1))
    what = (
        f"best of {TURNS} turns; {len(FEATURES)} features, {ENTITIES / 1e6:g}M entities, keys at random, rows decoded"
    )
    return [
        Row(name="online vector LMDB, 1 entity, p99", value=p99, unit="us", bar="<= 10 us", holds=p99 <= 10, note=f"p50 {p50:.1f} us; {what}"),
        Row(name="online vector LMDB, 100 entities, p50", value=hundred, unit="us", bar="<= 200 us", holds=hundred <= 200, note=f"p99 {tail:.0f} us; as one float32 matrix; as rows of Python values {_best(apart, 0.5):.0f} us; {what}"),
        Row(name=f"online vector LMDB, {OTHERS} other groups in use", value=among, unit="us", against=f"a store without them: {alone:.2f} us", ratio=among / alone, bar="<= 1.1 x", holds=among <= 1.1 * alone, note=f"1 entity, p50, by turns, {what}"),
    ]  # fmt: skip


def _best(turns: list[list[float]], q: float) -> float:
    return min(quantile(turn, q) for turn in turns)


def _one(reader: OnlineStore, generator: np.random.Generator) -> list[float]:
    keys = iter(generator.integers(0, ENTITIES, 6_000).tolist())
    return each(lambda: reader.read([("wide_v1", (next(keys),))]), calls=5_000)


def _many(reader: OnlineStore, generator: np.random.Generator) -> list[float]:
    asked = iter([[(k,) for k in row] for row in generator.integers(0, ENTITIES, (600, 100)).tolist()])

    def matrix() -> np.ndarray[Any, Any]:
        (block,) = reader.read_blocks([("wide_v1", next(asked))])
        assert isinstance(block, Block)
        return block.values.astype(np.float32)

    return each(matrix, calls=300)


def _apart(reader: OnlineStore, generator: np.random.Generator) -> list[float]:
    asked = iter([[("wide_v1", (k,)) for k in row] for row in generator.integers(0, ENTITIES, (600, 100)).tolist()])
    return each(lambda: reader.read(next(asked)), calls=300)


def _register_others(url: str) -> None:
    with open_online(url, write=True) as store:
        for i in range(OTHERS):
            store.write(f"other{i}_v1", FEATURES, [((k,), OnlineRow(1, 1, 1, (0.5,) * 20)) for k in range(10)])


def _redis() -> list[Row]:
    import redis

    from tests.redis_server import redis_server

    made = []
    with redis_server() as server, redis.Redis.from_url(server.url, socket_timeout=120) as client:
        made += _redis_loads(server.url, client)
        for name, url in (("TCP", server.url), ("socket", server.socket_url)):
            with redis.Redis.from_url(url) as raw, open_online(url) as reader:
                made += [_redis_vector(name, reader, raw, count) for count in (1, 100)]
    return made


def _redis_loads(url: str, client: Any) -> list[Row]:
    """Compare with the client's own pipeline of SETs of the same keys and values."""
    entities = ENTITIES // 4
    batches = list(_batches(entities))
    newer = [_newer(batch) for batch in batches]
    theirs, ours, updates = [], [], []
    for _ in range(3):
        client.flushall(asynchronous=True)
        theirs.append(_timed(lambda: _raw(client, batches)))
        with open_online(url, write=True) as store:
            ours.append(_timed(partial(_bulk, store, batches)))
            updates.append(_timed(partial(store.write_packed, "wide_v1", FEATURES, newer)))
    updated = min(updates)
    mine, raw = entities / min(ours), entities / min(theirs)
    against = f"pipelined SET, 1,000 at a time: {raw:,.0f} /s"
    what = f"{entities / 1e6:g}M x {len(FEATURES)}"
    return [
        Row(name=f"packed rows to Redis, first load, {what}", value=mine, unit="entities/s", against=against, ratio=mine / raw, bar=">= 0.7 x", holds=mine >= 0.7 * raw, note="bulk load, newer rows win on the server; best of 3"),
        Row(name=f"packed rows to Redis, every entity updated, {what}", value=entities / updated, unit="entities/s", against=against, ratio=entities / updated / raw, bar=">= 0.7 x", holds=entities / updated >= 0.7 * raw, note="compared and replaced by a script on the server; best of 3"),
    ]  # fmt: skip


def _bulk(store: OnlineStore, batches: list[Packed]) -> None:
    with store.bulk("wide_v1", FEATURES) as load:
        load.write_packed(batches)
        load.switch()


def _raw(client: Any, batches: list[Packed]) -> None:
    for batch in batches:
        items = list(zip(batch.keys, batch.rows, strict=True))
        for at in range(0, len(items), 1000):
            pipe = client.pipeline(transaction=False)
            for key, row in items[at : at + 1000]:
                pipe.set(b"raw:" + key, row)
            pipe.execute()


def _redis_vector(name: str, reader: OnlineStore, raw: Any, count: int) -> Row:
    keys = np.random.default_rng(7).integers(0, ENTITIES // 4, (200, count)).tolist()
    names = [[b"raw:" + pack_key((k,)) for k in row] for row in keys]
    wanted = [[("wide_v1", (k,)) for k in row] for row in keys]
    assert None not in reader.read(wanted[0])
    theirs, ours = [], []
    for _ in range(TURNS * 4):
        places = iter(range(10**9))
        theirs += each(lambda: raw.mget(names[next(places) % 200]), calls=150, warm=20)  # noqa: B023 - called at once
        ours += each(lambda: reader.read(wanted[next(places) % 200]), calls=150, warm=20)  # noqa: B023
    mine, peer = quantile(ours, 0.5), quantile(theirs, 0.5)
    return Row(
        name=f"online vector Redis by {name}, {count} {'entity' if count == 1 else 'entities'}, p50", value=mine, unit="us",
        against=f"one raw MGET, not decoded: {peer:.0f} us", ratio=mine / peer, bar="<= 1.3 x", holds=mine <= 1.3 * peer,
        note=f"rows decoded; p99 {quantile(ours, 0.99):.0f} us against {quantile(theirs, 0.99):.0f} us",
    )  # fmt: skip


def _table(at: int) -> pa.Table:
    generator = np.random.default_rng(at)
    times = pa.array(np.full(ENTITIES, at), pa.timestamp("us", "UTC"))
    columns = {"card_id": pa.array(np.arange(ENTITIES)), **{f: pa.array(generator.random(ENTITIES)) for f in FEATURES}}
    return pa.table({**columns, "event_time": times, "known_at": times})


def _batches(entities: int) -> Iterator[Packed]:
    table = _table(1_000).slice(0, entities)
    table = table.select(["card_id", "event_time", "known_at"]).append_column(
        "_seq", pa.array(np.ones(entities, np.int64))
    )
    features = _table(1_000).slice(0, entities)
    for name in FEATURES:
        table = table.append_column(name, features.column(name))
    for batch in table.combine_chunks().to_batches(TXN_ROWS):
        yield pack_batch("wide_v1", batch, 1)


def _newer(batch: Packed) -> Packed:
    head = pack_row(OnlineRow(2_000, 2_000, 2, ()))[:28]
    return Packed(batch.types, batch.keys, [head + row[28:] for row in batch.rows])


def _timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    for row in rows():
        print(row.name, round(row.value, 1), row.unit, row.ratio and round(row.ratio, 2), row.bar, row.holds, row.note)
