from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields

from tests.serving import world
from tests.serving.conftest import Caller, eventually
from tests.serving.world import GOOD
from windrow.models.promotion import Override
from windrow.models.registry import Registry
from windrow.models.release import GateResult
from windrow.serving.answers import Prediction
from windrow.stores.log import LogRecord, records
from windrow.stores.metadata import Metadata

# 1 / (1 + exp(-(0.001 * 500 + 0.01 * 20 + 0.1 * |4 - 1.5|)))
EXPECTED = 0.7211152


def logged(caller: Caller, kind: str = "prediction") -> list[LogRecord]:
    folder = caller.worker.settings.home / "log"
    return sorted((r for _, r in records(folder) if r.kind == kind), key=lambda r: r.received_at)


def test_a_prediction_carries_request_id_release_value_and_statuses(fraud: Caller) -> None:
    answer = fraud.predict(GOOD)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "request_id": answer.json["request_id"],
        "service": "fraud",
        "release": "fraud-1",
        "predictions": [
            {
                "value": pytest.approx(EXPECTED, abs=1e-6),
                "statuses": {"limit": "present", "amount": "present", "distance": "present"},
                "probability": pytest.approx(EXPECTED, abs=1e-6),
            }
        ],
        "now": "1970-01-01T00:16:40+00:00",
    }


def test_many_rows_are_answered_in_their_order(fraud: Caller) -> None:
    rows = [{**GOOD, "amount": amount} for amount in (300, 100, 200)]
    values = [p["value"] for p in fraud.predict({"rows": rows}).json["predictions"]]
    assert values == [fraud.predict(row).json["predictions"][0]["value"] for row in rows]
    assert values[0] > values[2] > values[1]


def test_request_ids_differ(fraud: Caller) -> None:
    ids = {fraud.predict(GOOD).json["request_id"] for _ in range(5)}
    assert len(ids) == 5


def test_a_prediction_is_in_the_log_when_its_answer_is_here(fraud: Caller) -> None:
    body = {"rows": [{**GOOD, "payment_id": 8, "event_time": "1970-01-01T00:16:41Z"}, {**GOOD, "amount": 7}]}
    answer = fraud.predict(body).json
    first, second = [r for r in logged(fraud) if r.request_id == answer["request_id"]]
    assert (first.row, second.row) == (0, 1)
    assert first.keys == {"card_id": 1}
    assert first.request == {"card_id": 1, "amount": 20.0, "x": 4.0, "payment_id": 8}
    assert first.vector == {"limit": 500.0, "amount": 20.0, "distance": 2.5}
    assert first.statuses == {"limit": 0, "amount": 0, "distance": 0}
    assert (first.event_time, second.event_time) == (1_001_000_000, world.NOW)
    assert (first.known_at, first.release, first.service) == (world.NOW, "fraud-1", "fraud")
    assert [first.output, second.output] == [p["value"] for p in answer["predictions"]]
    assert set(first.stages_us) == {"validate", "features", "model"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "where", "step"),
    [
        ("POST", "/v1/frud/predict", GOOD, 404, "unknown-service", "path", "did you mean 'fraud'?"),
        ("POST", "/v1/Fraud%2F/predict", GOOD, 404, "unknown-service", "path", "did you mean 'fraud'?"),
        ("GET", "/v1/frud", b"", 404, "unknown-service", "path", "did you mean 'fraud'?"),
        ("POST", "/v1/fraud/predict", {**GOOD, "amout": 1}, 422, "unknown-field", "$", "did you mean 'amount'?"),
        ("POST", "/v1/fraud/predict", {"amount": 1, "x": 2}, 422, "missing-key", "$", "add 'card_id' (int64)"),
        ("POST", "/v1/fraud/predict", {**GOOD, "card_id": "1"}, 422, "wrong-type", "$.card_id", "send a whole number"),
        ("POST", "/v1/fraud/predict", b'{"card_id": 1,', 400, "broken-json", "", "send UTF-8 JSON; NaN and Infinity are written null"),
        ("POST", "/v1/fraud/predict", b'{"amount": NaN}', 400, "broken-json", "", "send UTF-8 JSON; NaN and Infinity are written null"),
        ("POST", "/v1/fraud/predict", b"x" * 1_048_577, 413, "body-too-large", "body", "send fewer rows in one request"),
        ("GET", "/v1/fraud/predict", b"", 405, "method-not-allowed", "method", "use POST"),
        ("DELETE", "/v1/fraud", b"", 405, "method-not-allowed", "method", "use GET, HEAD"),
        ("POST", "/readyz", b"", 405, "method-not-allowed", "method", "use GET, HEAD"),
        ("GET", "/v1/fraud/explain", b"", 404, "no-page", "path", "see / for the services and /v1/openapi.json for their interface"),
        ("GET", "/schema.json", b"", 404, "no-page", "path", "see / for the services and /v1/openapi.json for their interface"),
        ("OPTIONS", "*", b"", 404, "no-page", "path", "see / for the services and /v1/openapi.json for their interface"),
        ("POST", "/anything", b"", 404, "no-page", "path", "see / for the services and /v1/openapi.json for their interface"),
    ],
)  # fmt: skip
def test_a_refused_request_gets_a_problem_with_the_next_step(
    fraud: Caller, method: str, path: str, body: Any, status: int, kind: str, where: str, step: str
) -> None:
    answer = fraud(method, path, body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json
    assert set(problem) == {"type", "title", "status", "detail", "where", "next", "request_id"}
    assert problem["type"] == f"urn:windrow:problem:{kind}"
    assert (problem["status"], problem["where"], problem["next"]) == (status, where, step)


def test_where_nothing_is_released_a_service_is_told_how_to_be(fresh: Caller) -> None:
    said = fresh.predict(GOOD)
    assert (said.status, said.json["detail"]) == (404, "No service has a live release")
    assert "windrow run SERVICE" in said.json["next"]


def test_405_names_the_methods_that_work(fraud: Caller) -> None:
    assert fraud("PUT", "/v1/fraud/predict").headers["allow"] == "POST"


def test_an_unknown_entity_is_refused_with_its_status_where_the_service_says_so(fraud: Caller) -> None:
    answer = fraud.predict({"rows": [GOOD, {**GOOD, "card_id": 4711}]})
    assert (answer.status, answer.json["where"]) == (404, "$.rows[1].card_id")
    assert answer.json["detail"] == "Group 'card_v1' has no row for this entity (status not_found)"
    assert "4711" not in answer.body.decode()


def test_a_null_or_expired_value_is_predicted_with_its_status(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    statuses = [fresh.predict({**GOOD, "card_id": card}).json for card in (2, 3)]
    assert [s["predictions"][0]["statuses"]["limit"] for s in statuses] == ["null", "expired"]


def test_an_unknown_entity_is_predicted_with_its_status_where_the_service_says_so(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings, unknown_entity="predict")
    eventually(lambda: fresh.worker.live.ready)
    answer = fresh.predict({**GOOD, "card_id": 4711})
    assert answer.status == 200
    assert answer.json["predictions"][0]["statuses"] == {"limit": "not_found", "amount": "present", "distance": "null"}


def test_a_failed_request_is_in_the_log_without_its_values(fraud: Caller) -> None:
    answer = fraud.predict({**GOOD, "amount": "secret-4711"})
    (record,) = [r for r in logged(fraud, "error") if r.request_id == answer.json["request_id"]]
    assert (record.service, record.status, record.error, record.release) == ("fraud", 422, "wrong-type", "fraud-1")
    assert (record.request, record.vector, record.output) == ({}, {}, None)
    assert "secret" not in answer.body.decode()


def test_a_request_to_an_unknown_service_is_in_the_log(fraud: Caller) -> None:
    answer = fraud.predict(GOOD, service="frud")
    (record,) = [r for r in logged(fraud, "error") if r.request_id == answer.json["request_id"]]
    assert (record.status, record.error) == (404, "unknown-service")


def test_a_body_over_one_mebibyte_is_refused_by_its_announced_length(fraud: Caller) -> None:
    assert fraud("POST", "/v1/fraud/predict", b"{}", length=str(2**40)).status == 413


def test_an_announced_length_of_thousands_of_digits_is_refused(fraud: Caller) -> None:
    assert fraud("POST", "/v1/fraud/predict", b"{}", length="9" * 5000).status == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
def test_a_body_that_says_it_is_not_json_is_refused(fraud: Caller, kind: str) -> None:
    answer = fraud("POST", "/v1/fraud/predict", GOOD, kind=kind)
    assert (answer.status, answer.json["type"]) == (415, "urn:windrow:problem:not-json")
    assert answer.json["next"] == "send the header content-type: application/json"


@pytest.mark.parametrize("kind", [None, "application/json", "Application/JSON; charset=utf-8", "application/json ;a=b"])
def test_a_body_that_says_nothing_or_json_is_read(fraud: Caller, kind: str | None) -> None:
    assert fraud("POST", "/v1/fraud/predict", GOOD, kind=kind).status == 200


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00Z", "1899-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_a_time_that_no_clock_shows_is_refused(fraud: Caller, moment: str) -> None:
    answer = fraud.predict({**GOOD, "event_time": moment})
    assert (answer.status, answer.json["where"]) == (422, "$.event_time")
    assert answer.json["next"] == "send a time from 1900 to 2199"


def test_a_body_over_one_mebibyte_is_refused_while_it_arrives(fraud: Caller) -> None:
    assert fraud("POST", "/v1/fraud/predict", chunks=[b" " * 600_000] * 100).status == 413


def test_a_body_in_pieces_is_read_as_one(fraud: Caller) -> None:
    data = json.dumps(GOOD).encode()
    assert fraud("POST", "/v1/fraud/predict", chunks=[data[:5], data[5:]]).status == 200


def test_a_body_that_does_not_arrive_is_refused_before_the_servers_own_time_out(fraud: Caller) -> None:
    async def stuck() -> Any:
        import asyncio

        await asyncio.sleep(30)

    import asyncio
    import time

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    begin = time.monotonic()
    scope = {"type": "http", "method": "POST", "path": "/v1/fraud/predict", "headers": fraud.signed}
    asyncio.run(fraud.app(scope, stuck, send))
    assert sent[0]["status"] == 408
    assert time.monotonic() - begin < 1.0


def test_without_a_live_release_there_is_503_with_the_next_step(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings, promote=False)
    eventually(lambda: fresh.predict(GOOD).json["type"].endswith("no-live-release"))
    answer = fresh.predict(GOOD)
    assert answer.status == 503
    assert answer.json["next"] == "run `windrow run fraud`, or `windrow promote fraud RELEASE`"
    assert fresh("GET", "/readyz").status == 503


def test_readiness_comes_with_a_warm_release_and_liveness_before(fresh: Caller) -> None:
    assert fresh("GET", "/livez").status == 200
    assert fresh("GET", "/healthz").status == 200
    assert (fresh("GET", "/readyz").status, fresh("GET", "/readyz").json["detail"]) == (
        503,
        "No service has a live release",
    )
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh("GET", "/readyz").status == 200)
    assert fresh("GET", "/readyz").json == {"status": "ready", "releases": {"fraud": "fraud-1"}}


def test_a_failing_log_write_is_503_and_no_answer(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    fresh.worker._log.close()
    answer = fresh.predict(GOOD)
    assert (answer.status, answer.json["type"]) == (503, "urn:windrow:problem:store-unavailable")
    assert "predictions" not in answer.json


def test_an_unexpected_failure_is_500_without_internals_and_logged(
    fresh: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    service = fresh.worker.live.service("fraud")
    object.__setattr__(service, "transformer", "broken")
    with caplog.at_level(logging.ERROR):
        answer = fresh.predict(GOOD)
    assert (answer.status, answer.json["type"]) == (500, "urn:windrow:problem:internal")
    assert "vectors" not in answer.body.decode()
    assert "has no attribute 'vectors'" in caplog.text
    assert logged(fresh, "error")[-1].error == "internal"


def test_outcomes_are_logged_with_the_time_they_were_known(fraud: Caller) -> None:
    asked = fraud.predict(GOOD).json["request_id"]
    outcomes = [
        {"request_id": asked, "row": 0, "value": 1},
        {"request_id": asked, "row": 0, "value": 0, "known_at": "1970-01-02T00:00:00Z"},
    ]
    answer = fraud("POST", "/v1/fraud/outcomes", {"outcomes": outcomes})
    assert (answer.status, answer.json["accepted"]) == (200, 2)
    first, second = [r for r in logged(fraud, "outcome") if r.request_id == asked]
    assert (first.outcome, first.known_at, first.service) == (1.0, world.NOW, "fraud")
    assert (second.outcome, second.known_at) == (0.0, world.DAY)


def test_wrong_outcomes_are_a_problem(fraud: Caller) -> None:
    answer = fraud("POST", "/v1/fraud/outcomes", {"outcomes": [{"row": 0, "value": 1}]})
    assert (answer.status, answer.json["where"]) == (422, "$.outcomes[0]")


def test_a_service_describes_its_request_and_its_release(fraud: Caller) -> None:
    facts = fraud("GET", "/v1/fraud").json
    assert (facts["service"], facts["release"], facts["backend"]) == ("fraud", "fraud-1", "onnx")
    assert facts["request"]["required"] == ["card_id", "amount", "x"]
    amount = facts["request"]["properties"]["amount"]
    assert amount == {"type": ["number", "null"], "minimum": -3.4028234663852886e38, "maximum": 3.4028234663852886e38}
    assert facts["features"][2] == {"name": "distance", "dtype": "float32"}
    assert facts["now"] == "1970-01-01T00:16:40+00:00"
    assert (facts["gates"], facts["override"]) == ([], None)


def test_a_service_says_which_gate_failed_and_who_signed_for_that(fresh: Caller) -> None:
    settings = fresh.worker.settings
    failed = GateResult("auc", 0.6, "at least 0.7", False, "auc is 0.6", name="gate_auc")
    world.release_fraud(settings, promote=False, gates=[failed])
    metadata = Metadata(settings.metadata)
    registry = Registry(metadata, settings.folder("releases"))
    registry.promote("fraud", "fraud-1", reason="down", override=Override(by="ada", reason="all else is worse"))
    metadata.close()
    eventually(lambda: fresh("GET", "/v1/fraud").status == 200)
    facts = fresh("GET", "/v1/fraud").json
    assert facts["gates"] == [{"name": "gate_auc", "verdict": "failed", "why": "auc is 0.6"}]
    assert facts["override"] == {
        "by": "ada", "reason": "all else is worse", "objections": ["gate_auc failed: auc is 0.6"],
    }  # fmt: skip


def test_the_interface_is_openapi_3_1_with_every_live_service(fraud: Caller) -> None:
    document = fraud("GET", "/v1/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert sorted(document["paths"]) == [
        "/v1/fraud",
        "/v1/fraud/batch",
        "/v1/fraud/outcomes",
        "/v1/fraud/predict",
        "/v1/requests/{id}/explanation",
    ]
    assert document["components"]["schemas"]["fraud.Row"]["additionalProperties"] is False
    assert fraud("GET", "/docs.json").json == document


def test_the_interface_names_every_field_that_a_prediction_may_have(fraud: Caller) -> None:
    schemas = fraud("GET", "/v1/openapi.json").json["components"]["schemas"]
    item = schemas["fraud.Answer"]["properties"]["predictions"]["items"]
    of_many_classes = {"class", "probabilities"}
    assert {field.encode_name for field in fields(Prediction)} - of_many_classes == item["properties"].keys()
    assert item["required"] == ["value", "statuses", "probability"]


def test_every_reference_of_the_interface_resolves(fraud: Caller) -> None:
    document = fraud("GET", "/v1/openapi.json").json
    references = {p.split('"')[0] for p in json.dumps(document).split('"$ref": "')[1:]}
    assert references == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_metrics_count_requests_by_service_route_and_status(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    for body in (GOOD, GOOD, {}):
        fresh.predict(body)
    fresh.predict(GOOD, service="made-up")
    text = fresh("GET", "/metrics").body.decode()
    assert 'windrow_requests_total{route="predict",service="fraud",status="200"} 2.0' in text
    assert 'windrow_requests_total{route="predict",service="fraud",status="422"} 1.0' in text
    assert 'windrow_requests_total{route="predict",service="",status="404"} 1.0' in text
    assert 'windrow_prediction_seconds_count{service="fraud"} 2.0' in text
    assert 'windrow_live_release{release="fraud-1",service="fraud"} 1.0' in text


def test_the_page_lists_the_services_and_loads_nothing_from_elsewhere(fraud: Caller) -> None:
    page = fraud("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b'<a href="/ui/fraud">fraud</a>' in page.body
    assert b"http" not in page.body.replace(b"xmlns='http://www.w3.org/2000/svg'", b"")
    assert fraud("GET", "/ui").body == page.body


def test_a_report_is_served_by_its_address(fraud: Caller) -> None:
    folder = fraud.worker.settings.folder("reports/fraud")
    (folder / "drift.html").write_text("<p>drift</p>")
    page = fraud("GET", "/ui/reports/fraud/drift.html")
    assert (page.status, page.body) == (200, b"<p>drift</p>")


@pytest.mark.parametrize(
    "path",
    [
        "/ui/reports/fraud/absent.html",
        "/ui/reports/fraud/../../secret.html",
        "/ui/reports/../secret.html",
        "/ui/reports/fraud/..%2f..%2fsecret.html",
        "/ui/reports/fraud/link.html",
        "/ui/reports/fraud/secret.txt",
        "/ui/reports//secret.html",
    ],
)
def test_nothing_outside_of_the_reports_is_ever_served(fraud: Caller, path: str) -> None:
    home = fraud.worker.settings.home
    folder = fraud.worker.settings.folder("reports/fraud")
    for place in (home / "secret.html", folder / "secret.txt"):
        place.write_text("secret")
    link: Path = folder / "link.html"
    if not link.is_symlink():
        link.symlink_to(home / "secret.html")
    answer = fraud("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


def test_an_outcome_of_a_class_service_is_0_or_1(fraud: Caller) -> None:
    answer = fraud("POST", "/v1/fraud/outcomes", {"outcomes": [{"request_id": "r", "row": 0, "value": 0.5}]})
    assert (answer.status, answer.json["where"]) == (422, "$.outcomes[0].value")


def test_the_card_of_a_release_is_served_by_its_address(fraud: Caller) -> None:
    release = world.release_with_card(fraud.worker.settings, "fraud-1", "fraud-9")
    page = fraud("GET", f"/ui/releases/{release.id}")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<h1>Release fraud-9</h1>" in page.body


@pytest.mark.parametrize("id", ["fraud-1", "absent", "../metadata.db", "", "\0", "fraud-1\0", ".", "\udcff"])
def test_where_there_is_no_card_nothing_else_is_served(fraud: Caller, id: str) -> None:
    answer = fraud("GET", f"/ui/releases/{id}")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    "path", ["/v1/{}", "/ui/{}", "/ui/reports/{}/drift.html", "/ui/reports/fraud/{}.html", "/ui/releases/{}", "/{}"]
)
@pytest.mark.parametrize("text", ["\0", "fraud\0", "\udcff"], ids=["nul", "name and nul", "surrogate"])
def test_an_address_with_characters_that_no_name_has_is_not_found(fraud: Caller, path: str, text: str) -> None:
    answer = fraud("GET", path.format(text))
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("action", ["predict", "outcomes"])
def test_a_service_whose_name_has_a_nul_is_not_found(fraud: Caller, action: str) -> None:
    assert fraud("POST", f"/v1/fraud\0/{action}", {}).status == 404
