"""A clock without entity, end to end: declared, trained, scored in batch and on the stream, served, and audited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.worlds import HOUR, World, ridge
from tests.serving.clock_functions import hour
from tests.serving.conftest import Caller, eventually, settings_in
from windrow import (
    Batch,
    Entity,
    Every,
    FeatureView,
    Label,
    Online,
    PredictionService,
    Source,
    Stream,
    TimeSplit,
    agg,
    aggregate,
    feature_group,
    on_demand,
)
from windrow.models.bundle import Bundle
from windrow.models.dataset import build_dataset
from windrow.models.scoring import score, score_latest
from windrow.models.stream import score_stream
from windrow.models.training import train
from windrow.monitoring.audit import audit
from windrow.serving.worker import Worker
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.log import PredictionLog
from windrow.stores.materialize import materialize_group
from windrow.stores.online.store import open_online
from windrow.stores.publish import publish_online

prices = Source("prices", id="n", event_time="ts", columns={"n": "int64", "price": "float64"})
ticking = Every("1h")


@feature_group(ttl="3h")
def price_now(prices: Any) -> Any:
    return prices.select("price")


steadiness = aggregate("steadiness", prices, by=Entity.keyless(), features={"prices_6h": agg.count("6h")})


market = PredictionService(
    "market",
    FeatureView("market", spine=ticking, features=[price_now, steadiness, on_demand(hour, at=ticking.event_time)]),
    Label.value(prices, "price", ahead="2h"),
    model=ridge,
    split=TimeSplit(test="6h"),
    baseline="price",
    online=Online(),
    batch=Batch("@hourly", rows="latest"),
    stream=Stream("6h"),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def world(settings: Settings) -> World:
    made = World(settings.home)
    made.add(prices, n=list(range(48)), price=[100.0 + h % 24 for h in range(48)], ts=[h * HOUR for h in range(48)])
    materialize_group(price_now, made.lake, made.metadata)
    return made


@pytest.fixture
def bundle(world: World) -> Bundle:
    dataset = build_dataset(market, world.lake, world.metadata, now=48 * HOUR, home=world.home)
    assert (dataset.rows, dataset.features) == (46, ["price", "prices_6h", "hour"])
    release = train(market, dataset, registry=world.registry, metadata=world.metadata)
    world.registry.promote("market", release.id, reason="first")
    return world.registry.load(release.id)


@pytest.fixture
def caller(settings: Settings, world: World, bundle: Bundle) -> Iterator[Caller]:
    world.metadata.record_span("prices", first=0, last=47 * HOUR, known=47 * HOUR, rows=48)
    with open_online(settings.online, write=True) as online:
        for group in market.groups:
            publish_online(group, world.lake, online, 47 * HOUR)
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready)
    yield Caller(worker)
    worker.close()


def hours(rows: Any) -> list[int]:
    return [t // HOUR for t in rows["event_time"].cast("int64").to_pylist()]


def test_it_is_scored_in_batch_once_a_tick_and_the_newest_alone(world: World, bundle: Bundle) -> None:
    made = score(market, bundle, world.lake, engine(), start=40 * HOUR, end=44 * HOUR, now=48 * HOUR)
    assert (made.column_names[:2], hours(made)) == (["event_time", "known_at"], [40, 41, 42, 43])
    newest = score_latest(market, bundle, world.lake, engine(), now=43 * HOUR)
    assert (hours(newest), newest["prediction"].to_pylist()) == ([43], made["prediction"].to_pylist()[3:])


def test_its_stream_answers_each_tick_once(world: World, bundle: Bundle) -> None:
    assert hours(score_stream(market, bundle, world.lake, engine(), now=44 * HOUR)) == [39, 40, 41, 42, 43, 44]
    assert hours(score_stream(market, bundle, world.lake, engine(), now=45 * HOUR)) == [45]


def test_a_request_without_fields_is_answered_as_batch_does_and_audited(
    world: World, bundle: Bundle, caller: Caller, settings: Settings
) -> None:
    expected = score_latest(market, bundle, world.lake, engine(), now=47 * HOUR)["prediction"].to_pylist()
    answer = caller.predict({}, "market")
    assert answer.status == 200
    assert [one["value"] for one in answer.json["predictions"]] == pytest.approx(expected, rel=1e-6)
    caller.worker.close()
    log = PredictionLog(settings.folder("log"), world.lake)
    report = audit(market, bundle, lake=world.lake, log=log, con=engine())
    assert (report.rows, report.equal) == (1, 1)
