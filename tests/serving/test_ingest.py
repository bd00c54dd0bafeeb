"""Promises of ``POST /v1/ingest/{name}``: strict, from this machine only, in a segment before the answer leaves."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serving import world as services
from tests.serving.conftest import Answered, eventually
from tests.stores.ingest.world import declared, prepare, settings_in
from windrow import Source
from windrow.errors import RequestError
from windrow.serving.asgi import WindrowMiddleware
from windrow.serving.ingest import Ingest
from windrow.serving.requests import MAX_BODY
from windrow.serving.worker import Worker
from windrow.settings import Settings
from windrow.stores.ingest.applier import Applier
from windrow.stores.ingest.catalogue import catalogue, record
from windrow.stores.ingest.events import FOLDER, Batch, Tail
from windrow.stores.metadata import Metadata

NOW = datetime.now(UTC)
GOOD = {"payment_id": 1, "card_id": 7, "amount": 2, "ts": NOW.isoformat()}


class Sender:
    """Sends events to a middleware as a server would; by default from this machine, where no keys are asked for."""

    def __init__(self, settings: Settings) -> None:
        settings = msgspec.structs.replace(settings, insecure=True)
        self.settings, self.folder = settings, settings.folder(FOLDER)
        self.worker = Worker(settings, committer=False)
        self.worker.start()
        eventually(lambda: self.worker.live.loaded)

    def __call__(self, body: Any, name: str = "payments", **scope: Any) -> Answered:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return asyncio.run(self._call(data, {"method": "POST", "path": f"/v1/ingest/{name}", **scope}))

    def get(self, path: str) -> Answered:
        return asyncio.run(self._call(b"", {"method": "GET", "path": path}))

    def written(self) -> list[Batch]:
        return [batch for _, batch in Tail(self.folder, "api-0").read() if batch is not None]

    async def _call(self, data: bytes, scope: dict[str, Any]) -> Answered:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": data}

        async def send(message: Any) -> None:
            sent.append(message)

        length = (b"content-length", str(len(data)).encode())
        facts = {"type": "http", "client": ("127.0.0.1", 50000), "headers": [length], **scope}
        await WindrowMiddleware(_nothing_inside, worker=self.worker)(facts, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answered(sent[0]["status"], found, sent[1]["body"])


async def _nothing_inside(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the middleware must answer every HTTP request itself")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    """One worker for the tests in which nothing is written, or nobody looks at what."""
    settings = settings_in(tmp_path_factory.mktemp("shared"))
    prepare(settings)
    made = Sender(settings)
    yield made
    made.worker.close()


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    settings = settings_in(tmp_path)
    prepare(settings)
    made = Sender(settings)
    yield made
    made.worker.close()


def _problem(answered: Answered) -> tuple[int, str, str]:
    return answered.status, answered.json["type"].rpartition(":")[2], answered.json["where"]


def test_a_row_is_written_before_it_is_acknowledged(sender: Sender) -> None:
    answered = sender(GOOD)
    assert answered.status == 202
    assert (answered.json["name"], answered.json["accepted"]) == ("payments", 1)
    (batch,) = sender.written()
    assert (batch.name, batch.fields) == ("payments", ("payment_id", "card_id", "amount", "ts"))
    assert batch.rows[0][:3] == [1, 7, 2.0]
    assert batch.rows[0][4] >= batch.rows[0][3] == round(NOW.timestamp() * 1e6)


def test_many_rows_are_one_write(sender: Sender) -> None:
    answered = sender({"rows": [GOOD, {**GOOD, "payment_id": 2, "amount": None}]})
    assert answered.json["accepted"] == 2
    assert [[row[0] for row in batch.rows] for batch in sender.written()] == [[1, 2]]


def test_rows_of_a_group_have_keys_features_and_a_time(sender: Sender) -> None:
    row = {"card_id": 7, "limit": 500.0, "event_time": "2026-01-01T00:00:00Z"}
    assert sender(row, "card_limit").status == 202
    assert sender(row, "card_limit_v1").status == 202
    assert [batch.name for batch in sender.written()] == ["card_limit_v1", "card_limit_v1"]


def test_a_late_row_is_known_when_it_arrives(sender: Sender) -> None:
    sender({**GOOD, "ts": "2020-01-01T00:00:00Z"})
    (batch,) = sender.written()
    assert batch.rows[0][4] - batch.rows[0][3] > 5 * 365 * 86_400 * 1_000_000


@pytest.mark.parametrize(
    ("change", "problem", "next_step"),
    [
        ({"amont": 2}, ("unknown-field", "$"), "did you mean 'amount'?"),
        ({"event_time": NOW.isoformat()}, ("unknown-field", "$"), "say when it happened in 'ts'"),
        ({"card_id": "7"}, ("wrong-type", "$.card_id"), "send a whole number"),
        ({"card_id": 2**63}, ("out-of-range", "$.card_id"), "send a whole number"),
        ({"amount": True}, ("wrong-type", "$.amount"), "send a number"),
        ({"ts": "2026-01-01T00:00:00"}, ("wrong-time", "$.ts"), "send a time with zone"),
        ({"ts": None}, ("wrong-type", "$.ts"), "send a time with zone"),
        ({"payment_id": None}, ("wrong-type", "$.payment_id"), "send a whole number"),
        ({"ts": (NOW + timedelta(hours=1)).isoformat()}, ("out-of-range", "$.ts"), "check the sender's clock"),
        ({"ts": "9999-01-01T00:00:00Z"}, ("out-of-range", "$.ts"), "send a time from 1900 to 2199"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_nothing_written(
    shared: Sender, change: dict[str, Any], problem: tuple[str, str], next_step: str
) -> None:
    before = len(shared.written())
    answered = shared({"rows": [GOOD, {**GOOD, **change}]})
    kind, where = problem
    assert _problem(answered) == (422, kind, where.replace("$", "$.rows[1]"))
    assert next_step in answered.json["next"]
    assert answered.headers["content-type"] == "application/problem+json"
    assert len(shared.written()) == before


def test_a_compressed_body_is_refused_as_such(shared: Sender) -> None:
    answered = shared(gzip.compress(json.dumps(GOOD).encode()), headers=[(b"content-encoding", b"gzip")])
    assert _problem(answered) == (415, "compressed", "headers")
    assert answered.json["next"] == "send it without the header content-encoding, as plain JSON"


def test_a_missing_field_is_refused(shared: Sender) -> None:
    answered = shared({"card_id": 7, "amount": 2, "ts": NOW.isoformat()})
    assert _problem(answered) == (422, "missing-field", "$")
    assert answered.json["detail"] == "Field 'payment_id' is missing"


def test_a_row_of_a_group_without_time_is_refused(shared: Sender) -> None:
    assert _problem(shared({"card_id": 7, "limit": 1.0}, "card_limit")) == (422, "missing-field", "$")


def test_an_event_within_the_allowed_skew_is_accepted(shared: Sender) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=4)
    assert shared({**GOOD, "ts": ahead.isoformat()}).status == 202


def test_broken_json_is_refused(shared: Sender) -> None:
    assert _problem(shared(b'{"payment_id": NaN}')) == (400, "broken-json", "")


def test_a_body_over_one_mebibyte_is_refused(shared: Sender) -> None:
    assert _problem(shared(b" " * (MAX_BODY + 1))) == (413, "body-too-large", "body")


def test_a_name_that_nothing_declares_is_refused_with_the_closest_one(shared: Sender) -> None:
    answered = shared(GOOD, "payment")
    assert _problem(answered) == (404, "unknown-stream", "path")
    assert answered.json["next"] == "did you mean 'payments'?"


def test_a_project_without_catalogue_says_how_to_make_one(tmp_path: Path) -> None:
    made = Sender(settings_in(tmp_path))
    assert "windrow up" in made(GOOD).json["next"]
    made.worker.close()


@pytest.mark.parametrize(
    "scope",
    [
        {"client": ("192.0.2.7", 50000)},
        {"client": None},
        {"client": ("::ffff:192.0.2.7", 50000)},
        {"headers": [(b"x-forwarded-for", b"192.0.2.7")]},
        {"headers": [(b"origin", b"http://elsewhere.example")]},
    ],
)
def test_a_peer_that_is_not_this_machine_is_refused_and_told_why(shared: Sender, scope: dict[str, Any]) -> None:
    before = len(shared.written())
    answered = shared(GOOD, **scope)
    assert _problem(answered) == (403, "not-from-here", "peer")
    assert answered.json["detail"] == "Without access keys this service answers this machine only"
    assert len(shared.written()) == before


@pytest.mark.parametrize(
    "scope",
    [
        {"client": ("127.0.1.1", 50000)},
        {"client": ("::1", 50000)},
        {"client": ("::ffff:127.0.0.1", 50000)},
        {"headers": [(b"origin", b"http://localhost:3000")]},
    ],
)
def test_every_address_of_this_machine_may_send(shared: Sender, scope: dict[str, Any]) -> None:
    assert shared(GOOD, **scope).status == 202


def test_only_post_is_answered(shared: Sender) -> None:
    answered = shared.get("/v1/ingest/payments")
    assert (answered.status, answered.headers["allow"]) == (405, "POST")


def test_too_much_that_waits_for_the_lake_is_429_with_the_time_to_wait(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, WINDROW_INGEST_BACKLOG="500", WINDROW_INGEST_EVERY="3")
    prepare(settings)
    made = Sender(settings)
    answers = [made(GOOD) for _ in range(20)]
    assert {a.status for a in answers} == {202, 429}
    refused = answers[-1]
    assert _problem(refused) == (429, "backlog-full", "")
    assert refused.headers["retry-after"] == "3"
    assert len(made.written()) == sum(a.status == 202 for a in answers)
    made.worker.ingest._writer.rotate()  # type: ignore[union-attr]
    applier = Applier(settings)
    applier.step()
    applier.commit()
    applier.close()
    eventually(lambda: made(GOOD).status == 202)
    made.worker.close()


def test_a_declaration_that_changes_is_followed(sender: Sender) -> None:
    streams = declared()
    metadata = Metadata(sender.settings.metadata)
    record({"clicks": streams["clicks"]}, metadata)
    assert sender(GOOD).status == 404
    record(streams, metadata)
    assert sender(GOOD).status == 202
    metadata.close()


def test_the_openapi_document_names_every_stream(shared: Sender) -> None:
    document = shared.get("/v1/openapi.json").json
    assert [path for path in document["paths"] if "/ingest/" in path] == [
        "/v1/ingest/card_limit", "/v1/ingest/card_limit_v1", "/v1/ingest/clicks", "/v1/ingest/payments",
    ]  # fmt: skip
    row = document["components"]["schemas"]["ingest.payments.Row"]
    assert row["required"] == ["payment_id", "card_id", "amount", "ts"]
    assert row["properties"]["amount"]["type"] == ["number", "null"]
    assert "202" in document["paths"]["/v1/ingest/payments"]["post"]["responses"]


def test_what_became_of_events_is_measured(sender: Sender) -> None:
    sender({"rows": [GOOD, {**GOOD, "payment_id": 2}]})
    sender({"card_id": 7, "limit": -1.0, "event_time": NOW.isoformat()}, "card_limit")
    sender(GOOD, "payment")
    sender.worker.ingest._writer.rotate()  # type: ignore[union-attr]
    applier = Applier(sender.settings)
    applier.step()
    applier.commit()
    applier.tell()
    applier.close()
    text = sender.get("/metrics").body.decode()
    assert 'windrow_ingest_accepted_total{name="payments"} 2.0' in text
    assert "windrow_ingest_parked_total 1.0" in text
    assert "windrow_ingest_committed_total 2.0" in text
    assert "windrow_ingest_backlog_bytes" in text
    assert 'windrow_requests_total{route="ingest",service="payments",status="202"} 1.0' in text
    assert 'windrow_requests_total{route="ingest",service="",status="404"} 1.0' in text


def test_with_the_clock_data_a_prediction_never_asks_about_the_past_of_an_event(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, WINDROW_CLOCK="data")
    services.publish(settings)
    services.release_fraud(settings)
    prepare(settings)
    made = Sender(settings)
    eventually(lambda: made.worker.live.ready)
    before = made.worker.live.services["fraud"].now()
    made({**GOOD, "ts": "2026-01-01T00:00:00Z"})
    assert (before, made.worker.live.services["fraud"].now()) == (services.NOW, 1_767_225_600_000_000)
    made.worker.close()


def test_a_row_that_would_move_the_clock_data_into_the_future_is_refused(tmp_path: Path) -> None:
    told = Source("told", event_time="at", known_at="seen", columns={"number": "int64"})
    row = b'{"number": 1, "at": "2026-01-01T00:00:00Z", "seen": "2190-01-01T00:00:00Z"}'
    for clock in ("data", "real"):
        settings = settings_in(tmp_path / clock, WINDROW_CLOCK=clock)
        record(catalogue([told], []), Metadata(settings.metadata))
    with pytest.raises(RequestError, match="Field 'seen' lies more than 5m in the future"):
        Ingest(settings_in(tmp_path / "data", WINDROW_CLOCK="data")).accept("told", row, request_id="r")
    # By the real clock it is held back until then, and moves nobody.
    held = Ingest(settings_in(tmp_path / "real")).accept("told", row, request_id="r")
    assert held == b'{"request_id":"r","name":"told","accepted":1}'
