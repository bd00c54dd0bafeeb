"""Who answers when the release cannot: deadlines, fallback chain, circuit breakers, and stores that go away and come back."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.redis_server import RedisServer, redis_server
from tests.serving import world
from tests.serving.conftest import Answered, Caller, eventually, settings_in
from tests.serving.world import GOOD
from windrow.errors import RequestError
from windrow.models.policies import Policies
from windrow.serving.backbone import Answers, Backbone, Given
from windrow.serving.live import LiveService
from windrow.serving.worker import Worker
from windrow.settings import Settings
from windrow.stores.log import LogRecord, records

RAISING = {**GOOD, "amount": 1000.0}
PRESENT = {"limit": "present", "amount": "present", "distance": "present"}
AWAY = {"limit": "unavailable", "amount": "present", "distance": "null"}


def live(caller: Caller, **facts: Any) -> Caller:
    """Release fraud with some facts, and wait until it answers."""
    world.release_fraud(caller.worker.settings, **facts)
    eventually(lambda: caller.worker.live.ready)
    return caller


def record_of(caller: Caller, answer: Answered) -> LogRecord:
    (found,) = [
        r
        for _, r in records(caller.worker.settings.home / "log")
        if r.request_id == answer.json["request_id"] and r.kind == "prediction"
    ]
    return found


def ask(candidates: Sequence[LiveService], *rows: Mapping[str, Any], backbone: Backbone | None = None) -> Answers:
    """Answer rows by some candidates, as the plane would."""
    times, begun = [world.NOW] * len(rows), time.perf_counter_ns()
    return asyncio.run((backbone or Backbone()).answer(candidates, Given([dict(r) for r in rows], times, begun)))


@pytest.fixture
def pair(fresh: Caller) -> tuple[LiveService, LiveService]:
    """A challenger that raises for large amounts, and the golden release."""
    settings = fresh.worker.settings
    world.release_raising(settings, 2, promote=False)
    golden = live(fresh).worker.live.service("fraud")
    return fresh.worker._loader.load("fraud-2"), golden


def test_a_challenger_that_raises_is_answered_for_by_the_golden_release(
    pair: tuple[LiveService, LiveService], fresh: Caller
) -> None:
    challenger, golden = pair
    assert ask(pair, GOOD).outputs == [0.25]
    made = ask(pair, RAISING)
    assert made.outputs == ask([golden], RAISING).outputs
    assert made.others
    assert made.reasons
    assert (made.others[0].name, made.reasons[0]) == ("fraud-1", ("model-failed",))
    assert challenger.breaker.failures == 1


def test_golden_only_answers_where_the_challenger_declares_it(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_raising(settings, 2, promote=False, policies=Policies(golden=False))
    golden = live(fresh).worker.live.service("fraud")
    with pytest.raises(Exception, match="indices element out of data bounds"):
        ask((fresh.worker._loader.load("fraud-2"), golden), RAISING)


def test_a_model_that_raises_is_answered_for_by_the_constant_and_answer_and_log_say_so(fresh: Caller) -> None:
    world.release_raising(fresh.worker.settings, policies=Policies(constant=0.02))
    eventually(lambda: fresh.worker.live.ready)
    answer = fresh.predict(RAISING)
    assert (answer.status, answer.json["release"]) == (200, "fraud-1")
    assert answer.json["predictions"] == [
        {
            "value": 0.02,
            "statuses": PRESENT,
            "probability": 0.02,
            "degraded": ["model-failed"],
            "answered_by": "constant",
        }
    ]
    found = record_of(fresh, answer)
    assert (found.output, found.release, found.answered_by, found.degraded) == (0.02, "", "constant", "model-failed")
    assert found.vector == {"limit": 500.0, "amount": 1000.0, "distance": 2.5}
    page = fresh("GET", "/metrics").body.decode()
    assert 'windrow_degraded_total{reason="model-failed",service="fraud"} 1.0' in page
    assert 'windrow_fallbacks_total{by="constant",service="fraud"} 1.0' in page


def test_a_model_that_raises_without_a_fallback_is_500_and_the_log_has_the_error(fresh: Caller) -> None:
    world.release_raising(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    assert (fresh.predict(RAISING).status, fresh.predict(RAISING).json["type"]) == (500, "urn:windrow:problem:internal")
    assert fresh.predict({"rows": [RAISING, GOOD]}).status == 500
    assert fresh.predict(GOOD).json["predictions"][0]["value"] == 0.25


def test_a_model_that_fails_again_and_again_is_left_alone_then_tried_once_and_answers_again(
    fresh: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    world.release_raising(fresh.worker.settings, policies=Policies(constant=0.02))
    eventually(lambda: fresh.worker.live.ready)
    with caplog.at_level(logging.ERROR):
        reasons = [fresh.predict(RAISING).json["predictions"][0]["degraded"] for _ in range(8)]
    assert reasons == [["model-failed"]] * 5 + [["model-resting"]] * 3
    assert fresh("GET", "/readyz").json["breakers"] == {"fraud-1": "open"}
    assert 'windrow_breaker_open{name="fraud-1"} 1.0' in fresh("GET", "/metrics").body.decode()
    assert sum("release fraud-1 failed" in r.message for r in caplog.records) == 5
    eventually(lambda: fresh.predict(GOOD).json["predictions"][0]["value"] == 0.25)
    assert "breakers" not in fresh("GET", "/readyz").json


def test_left_alone_without_a_fallback_is_503_with_retry_after(fresh: Caller) -> None:
    world.release_raising(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    for _ in range(5):
        fresh.predict(RAISING)
    answer = fresh.predict(GOOD)
    assert (answer.status, answer.json["type"]) == (503, "urn:windrow:problem:model-resting")
    assert answer.headers["retry-after"] == "1"


def test_a_row_that_is_the_callers_mistake_falls_back_on_nobody(fresh: Caller) -> None:
    live(fresh, policies=Policies(constant=0.02))
    past = {**GOOD, "event_time": "1970-01-01T00:00:01Z"}
    assert [fresh.predict(body).status for body in ({}, {**GOOD, "card_id": 4711}, past)] == [422, 404, 422]


@pytest.mark.parametrize(("constant", "status"), [(None, 504), (0.02, 200)])
def test_what_is_later_than_the_deadline_is_504_or_the_fallbacks(
    fresh: Caller, constant: float | None, status: int
) -> None:
    answer = live(fresh, policies=Policies(deadline_ms=0.001, constant=constant)).predict(GOOD)
    assert answer.status == status
    if status == 200:
        assert answer.json["predictions"][0]["degraded"] == ["deadline"]
    else:
        assert answer.json["type"] == "urn:windrow:problem:deadline"


def test_a_challenger_beside_the_worker_is_not_waited_for_longer_than_its_share(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_churn(settings, 1)
    world.release_churn(settings, 2, promote=False)
    eventually(lambda: fresh.worker.live.ready, seconds=60)
    golden, challenger = fresh.worker.live.service("churn"), fresh.worker._loader.load("churn-2")
    os.kill(challenger.predictor.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    try:
        made = ask((challenger, golden), {"customer_id": "anna"})
    finally:
        challenger.predictor.close()
    assert made.others
    assert made.reasons
    assert (made.others[0].name, made.reasons[0]) == ("churn-1", ("deadline",))
    assert made.outputs == ask([golden], {"customer_id": "anna"}).outputs


def test_a_side_process_that_is_killed_is_answered_for_by_the_constant(fresh: Caller) -> None:
    world.release_churn(fresh.worker.settings, policies=Policies(constant=0.5))
    eventually(lambda: fresh.worker.live.ready, seconds=60)
    predictor: Any = fresh.worker.live.service("churn").predictor
    os.kill(predictor.pid, signal.SIGKILL)
    answers = [fresh.predict({"customer_id": "anna"}, service="churn") for _ in range(3)]
    assert {a.status for a in answers} == {200}
    assert answers[-1].json["predictions"][0]["answered_by"] == "constant"
    eventually(
        lambda: "answered_by" not in fresh.predict({"customer_id": "anna"}, service="churn").json["predictions"][0],
        seconds=60,
    )


def test_an_unknown_or_expired_entity_is_left_to_the_fallback_and_the_other_rows_are_not(fresh: Caller) -> None:
    live(fresh, unknown_entity="fallback", policies=Policies(constant=0.02, expired="fallback"))
    rows = [GOOD, {**GOOD, "card_id": 4711}, {**GOOD, "card_id": 3}, {**GOOD, "card_id": 2}]
    answer = fresh.predict({"rows": rows})
    told = answer.json["predictions"]
    assert [(p.get("answered_by"), p.get("degraded")) for p in told] == [
        (None, None), ("constant", ["unknown_entity"]), ("constant", ["expired"]), (None, None),
    ]  # fmt: skip
    assert [p["value"] for p in told] == [
        fresh.predict(GOOD).json["predictions"][0]["value"], 0.02, 0.02, fresh.predict(rows[3]).json["predictions"][0]["value"],
    ]  # fmt: skip
    assert told[2]["statuses"]["limit"] == "expired"


def test_an_expired_value_is_refused_where_the_service_says_so(fresh: Caller) -> None:
    live(fresh, policies=Policies(expired="refuse"))
    answer = fresh.predict({"rows": [GOOD, {**GOOD, "card_id": 3}]})
    assert (answer.status, answer.json["type"], answer.json["where"]) == (
        503,
        "urn:windrow:problem:expired",
        "$.rows[1]",
    )


def test_an_expired_value_that_is_predicted_with_is_marked_in_answer_and_log(fresh: Caller) -> None:
    answer = live(fresh).predict({**GOOD, "card_id": 3})
    assert answer.json["predictions"][0]["degraded"] == ["expired"]
    assert (record_of(fresh, answer).degraded, record_of(fresh, answer).release) == ("expired", "fraud-1")


@pytest.mark.parametrize(
    ("policies", "status", "told"),
    [
        (Policies(), 503, None),
        (Policies(store_away="predict"), 200, (None, ["store_away"], AWAY)),
        (Policies(store_away="fallback", constant=0.02), 200, ("constant", ["store_away"], AWAY)),
    ],
)
def test_a_file_of_the_online_store_that_is_gone_is_noticed_and_answered_as_declared(
    fresh: Caller, policies: Policies, status: int, told: Any
) -> None:
    live(fresh, policies=policies)
    assert fresh.predict(GOOD).status == 200
    online = Path(fresh.worker.settings.online.removeprefix("lmdb://"))
    online.rename(online.with_name("elsewhere"))
    eventually(
        lambda: (
            "present" not in fresh.predict(GOOD).json.get("predictions", [{}])[0].get("statuses", {}).get("limit", "")
        )
    )
    answer = fresh.predict(GOOD)
    assert answer.status == status
    if told:
        made = answer.json["predictions"][0]
        assert (made.get("answered_by"), made["degraded"], made["statuses"]) == told
        assert record_of(fresh, answer).statuses["limit"] == 4
    else:
        assert answer.json["type"] == "urn:windrow:problem:store-unavailable"
        assert answer.headers["retry-after"] == "1"
    online.with_name("elsewhere").rename(online)
    eventually(lambda: fresh.predict(GOOD).json.get("predictions", [{}])[0].get("statuses") == PRESENT)


def test_a_default_stands_for_a_value_while_the_store_is_away_and_for_no_other(fresh: Caller) -> None:
    live(fresh, unknown_entity="predict", policies=Policies(store_away="predict", defaults={"limit": 100.0}))
    assert record_of(fresh, fresh.predict({**GOOD, "card_id": 4711})).vector["limit"] is None
    online = Path(fresh.worker.settings.online.removeprefix("lmdb://"))
    shutil.rmtree(online)
    eventually(lambda: record_of(fresh, fresh.predict(GOOD)).degraded == "store_away")
    found = record_of(fresh, fresh.predict(GOOD))
    assert (found.vector, found.statuses["limit"]) == ({"limit": 100.0, "amount": 20.0, "distance": None}, 4)


@pytest.fixture
def on_redis(tmp_path: Path) -> Iterator[tuple[Caller, RedisServer]]:
    """A worker whose online store is a Redis server, and that server."""
    with redis_server() as server:
        settings = Settings.read({**settings_in(tmp_path).environ(), "WINDROW_ONLINE": server.url})
        world.publish(settings)
        world.release_fraud(settings, policies=Policies(store_away="predict"))
        worker = Worker(settings, committer=False)
        worker.start()
        eventually(lambda: worker.live.ready)
        yield Caller(worker), server
        worker.close()


def test_redis_killed_and_back_under_load_fails_no_request_and_is_noticed_both_ways(
    on_redis: tuple[Caller, RedisServer],
) -> None:
    caller, server = on_redis

    def limits(count: int) -> list[str]:
        answers = [caller.predict(GOOD) for _ in range(count)]
        assert {a.status for a in answers} == {200}
        return [a.json["predictions"][0]["statuses"]["limit"] for a in answers]

    assert set(limits(20)) == {"present"}
    server.stop()
    assert set(limits(50)) == {"unavailable"}
    assert caller("GET", "/readyz").json["breakers"]["online store"] in ("open", "half_open")
    server.start()
    world.publish(caller.worker.settings)
    eventually(lambda: set(limits(1)) == {"present"})
    assert "breakers" not in caller("GET", "/readyz").json


@pytest.mark.parametrize(
    ("policies", "status"),
    [
        (Policies(), 503),
        (Policies(store_away="predict"), 200),
        (Policies(store_away="fallback", constant=0.02), 200),
    ],
)
def test_a_worker_that_starts_without_redis_answers_as_declared_and_in_full_when_it_is_there(
    tmp_path: Path, policies: Policies, status: int
) -> None:
    with redis_server() as server:
        settings = Settings.read({**settings_in(tmp_path).environ(), "WINDROW_ONLINE": server.url})
        world.publish(settings)
        world.release_fraud(settings, policies=policies)
        server.stop()
        worker = Worker(settings, committer=False)
        worker.start()
        try:
            eventually(lambda: worker.live.ready)
            caller = Caller(worker)
            answers = [caller.predict(GOOD) for _ in range(30)]
            assert {answer.status for answer in answers} == {status}
            if status == 200:
                assert {a.json["predictions"][0]["statuses"]["limit"] for a in answers} == {"unavailable"}
            server.start()  # empty at first: nothing yet, and no other answer
            assert {caller.predict(GOOD).status for _ in range(30)} == {status}
            world.publish(settings)
            eventually(lambda: caller.predict(GOOD).json.get("predictions", [{}])[0].get("statuses") == PRESENT)
        finally:
            worker.close()


@pytest.mark.slow
def test_redis_killed_and_back_again_and_again_under_concurrent_load_fails_no_request(
    on_redis: tuple[Caller, RedisServer],
) -> None:
    caller, server = on_redis
    seen: list[tuple[int, str]] = []
    ended = threading.Event()

    async def one() -> None:
        while not ended.is_set():
            answer = await caller.ask("POST", "/v1/fraud/predict", GOOD)
            seen.append((answer.status, answer.json["predictions"][0]["statuses"]["limit"]))
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(16)))

    def told(status: str) -> Callable[[], bool]:
        begun = len(seen)
        return lambda: len([1 for _, found in seen[begun:] if found == status]) > 100

    load = threading.Thread(target=lambda: asyncio.run(all_of_them()))
    load.start()
    try:
        for _ in range(5):
            eventually(told("present"), seconds=60)
            server.stop()
            eventually(told("unavailable"), seconds=60)
            server.start()
            world.publish(caller.worker.settings)
        eventually(told("present"), seconds=60)
    finally:
        ended.set()
        load.join()
    assert {status for status, _ in seen} == {200}
    assert {found for _, found in seen} == {"present", "unavailable"}


def test_redis_that_hangs_costs_one_short_wait_and_not_one_for_each_request(
    on_redis: tuple[Caller, RedisServer],
) -> None:
    caller, server = on_redis
    assert server.process is not None
    caller.predict(GOOD)
    server.process.send_signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        answers = [caller.predict(GOOD) for _ in range(20)]
        spent = time.monotonic() - begin
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert {a.json["predictions"][0]["statuses"]["limit"] for a in answers} == {"unavailable"}
    assert spent < 2.0  # each of them alone would have waited 0.2 s
    eventually(lambda: caller.predict(GOOD).json["predictions"][0]["statuses"] == PRESENT)


def test_a_function_of_the_view_that_raises_is_answered_for_with_nothing_known(fresh: Caller) -> None:
    service = live(fresh, policies=Policies(constant=0.02)).worker.live.service("fraud")

    def broken(x: Any, y: Any) -> Any:
        raise ValueError("broken")

    service.transformer._functions[0]._call = broken
    answer = fresh.predict(GOOD)
    assert answer.json["predictions"][0]["statuses"] == dict.fromkeys(PRESENT, "unavailable")
    assert record_of(fresh, answer).vector == dict.fromkeys(PRESENT)
    with pytest.raises(RequestError, match="no row for this entity"):
        ask([fresh.worker._loader.load("fraud-1")], {**GOOD, "card_id": 4711})
