"""Before a release answers it is asked what was asked lately, and what it once said it has to say again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from tests.serving.test_aggregates import payments, spend, view
from tests.serving.world import GOOD, NOW
from windrow import FeatureView
from windrow.errors import ModelError
from windrow.serving import warmer
from windrow.serving.live import Warmth
from windrow.serving.loader import Loader
from windrow.serving.requests import RowReader
from windrow.settings import Settings
from windrow.stores.committer import commit
from windrow.stores.lake import Lake
from windrow.stores.log import LogRecord, LogWriter, PredictionLog, records
from windrow.stores.online.store import open_online
from windrow.stores.recent import recent


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with the online store filled, and fraud-1 released."""
    made = settings_in(tmp_path)
    world.publish(made)
    world.release_fraud(made)
    return made


@pytest.fixture
def loader(settings: Settings) -> Iterator[Loader]:
    made = Loader(settings)
    yield made
    made.close()


def log(settings: Settings, *logged: LogRecord) -> None:
    with LogWriter(settings.folder("log"), "other-0") as writer:
        writer.append(logged)


def asked(number: int, *, request: Any = None, **facts: Any) -> LogRecord:
    """A logged prediction; `number` says how new it is."""
    given = {**GOOD, "amount": float(number)} if request is None else request
    return LogRecord(
        kind="prediction", request_id=f"r{number}", service="fraud", received_at=number, event_time=NOW, request=given,
        **facts,
    )  # fmt: skip


def amounts(bodies: Sequence[bytes]) -> list[float]:
    return [json.loads(body)["amount"] for body in bodies]


def test_the_newest_logged_requests_are_asked_again_newest_first(settings: Settings, loader: Loader) -> None:
    log(settings, *map(asked, range(1, 150)))
    warmth = loader.load("fraud-1").warmth
    assert warmth.source == "log"
    assert amounts(warmth.bodies) == [float(number) for number in range(149, 49, -1)]


def test_they_are_found_in_segments_and_where_the_committer_keeps_them(settings: Settings, loader: Loader) -> None:
    log(settings, asked(1), asked(2))
    commit(settings.home / "log", Lake(settings.lake))
    log(settings, asked(3))
    assert amounts(loader.load("fraud-1").warmth.bodies) == [3.0, 2.0, 1.0]


def test_without_a_log_a_made_up_request_is_asked(loader: Loader) -> None:
    warmth = loader.load("fraud-1").warmth
    assert (warmth.source, set(amounts(warmth.bodies))) == ("sample", {0.0})


def test_where_requests_bring_their_time_the_warmers_ask_about_now() -> None:
    assert view.contract.timed
    logged = LogRecord(kind="prediction", request_id="r1", service="fraud", event_time=5, request={"card_id": 1, "amount": 2.0})  # fmt: skip
    asked = (
        warmer.sample_request(view.contract, now=NOW),
        json.dumps(warmer._row(view.contract, logged, NOW)).encode(),
    )
    assert [RowReader(view.contract).read(body).times for body in asked] == [[NOW], [NOW]]


@pytest.mark.parametrize(("logged", "source"), [(True, "log"), (False, "sample")])
def test_a_release_whose_requests_bring_their_time_is_warmed_and_may_go_live(
    settings: Settings, loader: Loader, *, logged: bool, source: str
) -> None:
    timed = FeatureView("fraud", spine=payments, features=[payments.amount, spend["spend_1d", "payments_1h"]]).contract
    with open_online(settings.online, write=True) as store:
        store.write(spend.table_name, ["state"], [])
    if logged:
        log(settings, asked(1, request={"card_id": 1, "amount": 2.0}))
    warmth = loader.load(world.release_like(settings, timed, 2, p99_ms=1000.0)).warmth
    assert (warmth.source, warmth.skipped) == (source, 0)


def test_requests_that_this_release_cannot_read_are_skipped_and_counted(settings: Settings, loader: Loader) -> None:
    log(settings, asked(1), asked(2, request={"card_id": "seven"}), asked(3, request={}))
    warmth = loader.load("fraud-1").warmth
    assert (amounts(warmth.bodies), warmth.skipped) == ([1.0], 2)


def test_a_request_on_which_the_model_fails_keeps_no_release_back(settings: Settings, loader: Loader) -> None:
    id = world.release_raising(settings, 2)
    log(settings, asked(20), asked(200))
    assert amounts(loader.load(id).warmth.bodies) == [20.0]


def test_no_more_is_asked_when_its_time_is_over(
    settings: Settings, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmer, "SECONDS", 0.0)
    log(settings, *map(asked, range(1, 50)))
    assert len(loader.load("fraud-1").warmth.bodies) <= warmer.ROUNDS


def _answered(settings: Settings, *, output: float) -> LogRecord:
    vector = {"limit": 500.0, "amount": 20.0, "distance": 2.5}
    return asked(7, release="fraud-1", vector=vector, output=output)


def _says(loader: Loader) -> float:
    """What fraud-1 says of the vector of `_answered`."""
    import asyncio

    from windrow.serving.vectors import logged_vectors

    service = loader.load("fraud-1")
    vectors = logged_vectors(service.release.contract, [{"limit": 500.0, "amount": 20.0, "distance": 2.5}])
    (output,) = asyncio.run(service.predictor.predict(vectors))
    assert isinstance(output, float)
    return output


def test_a_release_that_says_again_what_it_said_is_loaded(settings: Settings, loader: Loader) -> None:
    log(settings, _answered(settings, output=_says(loader)))
    assert loader.load("fraud-1").warmth.source == "log"


def test_one_that_answers_its_own_vector_otherwise_than_it_did_is_refused(settings: Settings, loader: Loader) -> None:
    log(settings, _answered(settings, output=_says(loader) + 0.001))
    with pytest.raises(ModelError, match="'fraud-1' now answers row 0 of request 'r7' with 0.*, and answered it with"):
        loader.load("fraud-1")


def test_at_a_switch_the_one_that_answers_stays_and_readiness_says_why(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_fraud(settings, 2)
    eventually(lambda: fresh.worker.live.ready)
    log(settings, _answered(settings, output=0.999))
    world.release_fraud(settings, 1)
    eventually(lambda: fresh.worker.live.failures)
    assert fresh.predict(GOOD).json["release"] == "fraud-2"
    told = fresh("GET", "/readyz")
    assert told.status == 503
    assert "'fraud-1' now answers row 0 of request 'r7'" in told.json["detail"]


def test_warming_writes_nothing_to_the_log_and_counts_no_request(fresh: Caller) -> None:
    settings = fresh.worker.settings
    log(settings, asked(20), asked(200))
    world.release_raising(settings)
    eventually(lambda: fresh("GET", "/readyz").status == 200)
    page = fresh("GET", "/metrics").body.decode()
    assert [record.request_id for _, record in records(settings.home / "log")] == ["r20", "r200"]
    assert 'route="predict"' not in page
    assert "windrow_stage_seconds_count" not in page
    assert fresh.worker.live.services["fraud"].breaker.state == "closed"


def test_what_was_done_is_told_without_the_requests(fresh: Caller) -> None:
    log(fresh.worker.settings, asked(20))
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    told = fresh("GET", "/v1/fraud").json["warm_up"]
    assert told.pop("ms") > 0
    assert told == {"source": "log", "requests": 1, "skipped": 0}


def test_the_first_readiness_probe_warms_the_thread_that_answers_and_later_ones_do_not(
    fresh: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    vectors = fresh.worker.live.services["fraud"].transformer.vectors
    monkeypatch.setattr(
        fresh.worker.live.services["fraud"].transformer, "vectors", lambda *given: seen.append(1) or vectors(*given)
    )
    fresh("GET", "/readyz")
    first = len(seen)
    fresh("GET", "/readyz")
    assert (first > 0, len(seen)) == (True, first)


def test_the_committer_keeps_the_newest_hundred_of_each_service(settings: Settings) -> None:
    folder, lake = settings.folder("log"), Lake(settings.lake)
    for start in (0, 80):
        log(settings, *map(asked, range(start, start + 80)))
        commit(folder, lake)
    assert [record.request_id for record in recent(folder, "fraud")] == [f"r{n}" for n in range(159, 59, -1)]
    assert PredictionLog(folder, lake).table("fraud").num_rows == 160


def test_a_file_of_them_that_cannot_be_read_is_as_none(settings: Settings, loader: Loader) -> None:
    log(settings, asked(1))
    commit(settings.home / "log", Lake(settings.lake))
    (settings.home / "log" / "recent" / "fraud.records").write_bytes(b"\x93no records")
    assert loader.load("fraud-1").warmth.source == "sample"


def test_facts_hold_no_request() -> None:
    assert Warmth("log", [b'{"card_id":7}'], 2, 1.234).facts() == {
        "source": "log", "requests": 1, "skipped": 2, "ms": 1.2,
    }  # fmt: skip
