from __future__ import annotations

import io
import json

import msgspec
import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually
from tests.serving.world import GOOD
from windrow.serving.notes import Notes


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_request_that_fails_is_told_in_one_line_without_its_values(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings, p99_ms=800)
    eventually(lambda: fresh.worker.live.ready)
    out = io.StringIO()
    fresh.worker.notes = Notes(out=out)
    fresh.predict(GOOD)
    refused = fresh.predict({**GOOD, "amount": "a-secret-value"}).json["request_id"]
    fresh.predict(GOOD, service="a-secret-name")
    (first, second) = lines(out)
    assert {k: first[k] for k in ("why", "request_id", "service", "route", "status", "budget_ms")} == {
        "why": "refused",
        "request_id": refused,
        "service": "fraud",
        "route": "predict",
        "status": 422,
        "budget_ms": 800,
    }
    assert (second["why"], second["service"], second["status"]) == ("refused", "", 404)
    assert "secret" not in out.getvalue()


@pytest.mark.parametrize(
    ("status", "seconds", "why"),
    [
        (200, 0.03, "slow"),
        (503, 0.0, "turned-away"),
        (429, 0.0, "turned-away"),
        (500, 0.03, "failed"),
        (504, 1, "failed"),
    ],
)
def test_a_line_says_why_it_is_there(status: int, seconds: float, why: str) -> None:
    out = io.StringIO()
    Notes(out=out).take("r", "fraud", "predict", status, seconds, budget_ms=20)
    assert [line["why"] for line in lines(out)] == [why]


def test_a_ticket_for_what_is_still_to_come_is_a_good_request() -> None:
    out = io.StringIO()
    Notes(out=out).take("r", "fraud", "explain", 202, 0.5, budget_ms=None)
    assert lines(out) == []


def test_one_in_so_many_good_requests_is_told() -> None:
    out = io.StringIO()
    notes = Notes(10, out=out)
    for i in range(1, 31):
        notes.take(f"r{i}", "fraud", "predict", 200, 0.001, budget_ms=20)
    assert [line["request_id"] for line in lines(out)] == ["r10", "r20", "r30"]
    assert {line["why"] for line in lines(out)} == {"sampled"}


def test_many_failures_do_not_fill_a_disk_and_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("windrow.serving.notes.time.monotonic", lambda: now[0])
    notes = Notes(out=out)
    for _ in range(1000):
        notes.take("r", "fraud", "predict", 500, 0.0, budget_ms=20)
    assert len(lines(out)) == 100
    now[0] = 1.0
    notes.take("r", "fraud", "predict", 500, 0.0, budget_ms=20)
    assert lines(out)[-1]["left_out"] == 900


def test_how_many_good_requests_are_told_is_a_setting_that_children_read(fresh: Caller) -> None:
    settings = msgspec.structs.replace(fresh.worker.settings, note_every=50)
    assert type(settings).read(settings.environ()).note_every == 50
    assert type(settings).read(fresh.worker.settings.environ()).note_every == 0
