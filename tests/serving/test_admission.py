"""Who is let in when there are too many, and when the worker is about to end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.serving.conftest import Caller
from tests.serving.world import GOOD
from windrow.serving.admission import Admission
from windrow.stores.log import records

NDJSON = "application/x-ndjson"


@pytest.fixture
def admission(fraud: Caller) -> Iterator[Admission]:
    admission = fraud.worker.admission
    most, admission.most = admission.most, 2
    yield admission
    admission.most, admission.in_flight, admission.draining = most, 0, False
    admission.turned_away.clear()


def test_beyond_the_bound_a_request_is_told_to_come_again_and_is_neither_read_nor_logged(
    fraud: Caller, admission: Admission
) -> None:
    admission.in_flight = 2
    answer = fraud.predict(b"not even JSON")
    assert (answer.status, answer.json["type"]) == (503, "urn:windrow:problem:overloaded")
    assert answer.headers["retry-after"] == "1"
    assert answer.json["request_id"] not in {r.request_id for _, r in records(fraud.worker.settings.home / "log")}
    page = fraud("GET", "/metrics").body.decode()
    assert 'windrow_turned_away_total{reason="overloaded"} 1.0' in page
    assert "windrow_in_flight 2.0" in page


def test_turning_away_takes_microseconds(fraud: Caller, admission: Admission) -> None:
    admission.in_flight = 2
    middleware, spent = fraud.app, []
    for _ in range(200):
        begin = time.perf_counter()
        middleware._turned_away("fraud", "predict", "r1")
        spent.append(time.perf_counter() - begin)
    assert sorted(spent)[100] < 0.001  # 6 us on a quiet machine


def test_every_answer_gives_its_place_back(fraud: Caller, admission: Admission) -> None:
    for body in (GOOD, {}, b"x" * 1_048_577, GOOD):
        fraud.predict(body)
    assert admission.in_flight == 0
    assert fraud.predict(GOOD).status == 200


def test_a_stream_takes_a_place_too_and_gives_it_back(fraud: Caller, admission: Admission) -> None:
    admission.in_flight = 2
    refused = fraud("POST", "/v1/fraud/batch", b"{}\n", kind=NDJSON)
    assert (refused.status, refused.json["type"]) == (503, "urn:windrow:problem:overloaded")
    admission.in_flight = 0
    assert fraud("POST", "/v1/fraud/batch", b"{}\n", kind=NDJSON).status == 200
    assert admission.in_flight == 0


def test_a_draining_worker_is_not_ready_and_takes_no_more_requests(fraud: Caller, admission: Admission) -> None:
    admission.draining = True
    ready, answer, alive = fraud("GET", "/readyz"), fraud.predict(GOOD), fraud("GET", "/livez")
    assert (ready.status, ready.json["type"]) == (503, "urn:windrow:problem:draining")
    assert (answer.status, answer.json["type"]) == (503, "urn:windrow:problem:draining")
    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
    assert (alive.status, alive.headers["connection"]) == (200, "close")
