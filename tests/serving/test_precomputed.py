"""Predictions that a batch run has stored answer requests of the release that made them, as long as they are not too old."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from tests.serving import world
from tests.serving.conftest import Answered, Caller, _running, eventually, settings_in
from tests.serving.world import CHURN, DAY, NOW
from windrow.clock import from_micros
from windrow.models.experiment import Experiment, weighed
from windrow.models.experiments import Experiments
from windrow.models.policies import Policies
from windrow.models.publishing import publish_predictions
from windrow.models.registry import Registry
from windrow.stores.lake import Lake
from windrow.stores.log import LogRecord, PredictionLog, records
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import open_online

HOUR = DAY // 24
UTC = pa.timestamp("us", "UTC")
ANNA, BEN = {"customer_id": "anna"}, {"customer_id": "ben"}


def stored(caller: Caller, *, at: int = NOW - HOUR, release: str = "churn-1", **outputs: float | None) -> None:
    """Publish predictions by customer as a batch run at that time did."""
    rows = pa.table(
        {
            "customer_id": list(outputs),
            "event_time": pa.array([at] * len(outputs), UTC),
            "known_at": pa.array([at] * len(outputs), UTC),
            "prediction": pa.array(list(outputs.values()), pa.float64()),
            "release": [release] * len(outputs),
        }
    )
    with open_online(caller.worker.settings.online, write=True) as store:
        publish_predictions("churn", CHURN, rows, store)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A worker that answers with predictions that are at most two days old."""
    settings = settings_in(tmp_path_factory.mktemp("precomputed"))
    world.publish(settings)
    world.release_churn(settings, policies=Policies(precomputed=2 * DAY))
    yield from _running(settings)


@pytest.fixture
def churn(shared: Caller) -> Iterator[Caller]:
    """The shared worker, without any stored prediction."""
    yield shared
    with open_online(shared.worker.settings.online, write=True) as store:
        store.delete("predictions/churn", [("anna",), ("ben",)])


@pytest.fixture
def alone(fresh: Caller) -> Caller:
    """Such a worker with a log, counts and releases of the test's own."""
    world.release_churn(fresh.worker.settings, policies=Policies(precomputed=2 * DAY))
    eventually(lambda: fresh.worker.live.ready)
    return fresh


def ask(caller: Caller, *rows: Any) -> list[dict[str, Any]]:
    answer = caller.predict({"rows": list(rows)}, service="churn")
    assert answer.status == 200, answer.json
    return answer.json["predictions"]  # type: ignore[no-any-return]


def logged(caller: Caller) -> list[LogRecord]:
    return [record for _, record in records(caller.worker.settings.home / "log")]


def test_what_a_batch_run_stored_is_the_answer_and_says_so_and_how_old_it_is(churn: Caller) -> None:
    stored(churn, anna=0.125)
    answer = churn.predict(ANNA, service="churn").json
    assert answer["release"] == "churn-1"
    assert answer["predictions"] == [
        {
            "value": 0.125,
            "probability": 0.125,
            "statuses": {},
            "answered_by": "precomputed",
            "precomputed_for": from_micros(NOW - HOUR).isoformat(),
            "age_seconds": 3600.0,
        }
    ]


def test_it_is_logged_with_its_release_and_without_a_vector(alone: Caller) -> None:
    stored(alone, anna=0.125)
    ask(alone, ANNA, BEN)
    kept, computed = logged(alone)
    assert (kept.output, kept.release, kept.answered_by, kept.keys) == (0.125, "churn-1", "precomputed", ANNA)
    assert (kept.vector, kept.statuses, kept.degraded) == ({}, {}, "")
    assert (computed.answered_by, computed.vector) == ("", {"plan": "(missing)", "months": 1.0})


def test_no_monitor_and_no_training_takes_it_for_a_vector(alone: Caller) -> None:
    stored(alone, anna=0.125)
    ask(alone, ANNA, BEN, ANNA)
    log = PredictionLog(alone.worker.settings.home / "log", Lake(alone.worker.settings.lake))
    assert log.table("churn").num_rows == 3
    assert log.vectors("churn", CHURN)["months"].to_pylist() == [1.0]


@pytest.mark.parametrize(
    "stored_as",
    [{"at": NOW - 2 * DAY - 1}, {"release": "churn-0"}, {"at": NOW + 1}],
    ids=["too old", "of another release", "about a later time"],
)
def test_what_must_not_answer_does_not_and_the_row_is_computed(churn: Caller, stored_as: dict[str, Any]) -> None:
    before = ask(churn, ANNA)
    stored(churn, anna=0.125, **stored_as)
    assert ask(churn, ANNA) == before
    assert "answered_by" not in before[0]


def test_at_its_greatest_age_it_still_answers(churn: Caller) -> None:
    stored(churn, at=NOW - 2 * DAY, anna=0.125)
    assert ask(churn, ANNA)[0]["age_seconds"] == 2 * 86_400


def test_its_age_counts_to_the_time_that_is_asked_about(churn: Caller) -> None:
    stored(churn, at=NOW - HOUR, anna=0.125)
    (said,) = ask(churn, ANNA | {"event_time": from_micros(NOW + HOUR).isoformat()})
    assert said["age_seconds"] == 7200


def test_rows_of_one_request_are_answered_each_in_its_way_and_in_their_order(churn: Caller) -> None:
    computed = [one["value"] for one in ask(churn, ANNA, BEN)]
    stored(churn, ben=0.25)
    found = ask(churn, BEN, ANNA, BEN)
    assert [one.get("answered_by") for one in found] == ["precomputed", None, "precomputed"]
    assert [one["value"] for one in found] == [0.25, computed[0], 0.25]
    assert [(r.row, r.answered_by) for r in logged(churn)[-3:]] == [(0, "precomputed"), (2, "precomputed"), (1, "")]


def test_a_promotion_leaves_no_old_prediction_behind(alone: Caller) -> None:
    stored(alone, anna=0.125)
    assert ask(alone, ANNA)[0]["value"] == 0.125
    world.release_churn(alone.worker.settings, 2, policies=Policies(precomputed=2 * DAY))
    eventually(lambda: alone.predict(ANNA, service="churn").json["release"] == "churn-2")
    assert "answered_by" not in ask(alone, ANNA)[0]
    stored(alone, release="churn-2", anna=0.5)
    assert ask(alone, ANNA)[0]["value"] == 0.5


def test_a_challenger_computes_and_a_shadow_hears_what_it_would_have_said(alone: Caller) -> None:
    settings, live = alone.worker.settings, alone.worker.live
    for number, strength in ((2, 0.01), (3, 0.001)):
        world.release_churn(settings, number, strength=strength, promote=False)
    metadata = Metadata(settings.metadata)
    trial = Experiment(
        service="churn", name="trial", arms=weighed({"new": ("churn-2", 1.0)}), shadows=("churn-3",),
        unit=("customer_id",), reason="test",
    )  # fmt: skip
    watch = Experiment(service="churn", name="watch", shadows=("churn-3",), unit=("customer_id",), reason="test")
    known = Experiments(metadata, Registry(metadata, settings.folder("releases")))
    stored(alone, anna=0.125)
    known.start(watch)
    eventually(lambda: live.dispatcher(live.service("churn")))

    async def heard_by_the_shadow() -> Answered:
        answer = await alone.ask("POST", "/v1/churn/predict", ANNA)
        await alone.worker.plane.shadows.drained()
        return answer

    assert asyncio.run(heard_by_the_shadow()).json["predictions"][0]["answered_by"] == "precomputed"
    (heard,) = (record for record in logged(alone) if record.kind == "shadow")
    assert (heard.release, heard.error, heard.vector) == ("churn-3", "", {"plan": "gold", "months": 24.0})
    known.stop("churn", "watch")
    known.start(trial)
    eventually(lambda: "answered_by" not in ask(alone, ANNA)[0])
    assert alone.predict(ANNA, service="churn").json["release"] == "churn-2"
    metadata.close()


def test_who_asks_why_gets_a_computed_answer_and_a_stored_one_says_how_to(churn: Caller) -> None:
    stored(churn, anna=0.125)
    answer = churn("POST", "/v1/churn/predict?explain=shap", ANNA).json
    assert "answered_by" not in answer["predictions"][0]
    id = churn.predict(ANNA, service="churn").json["request_id"]
    address = f"/v1/requests/{id}/explanation"
    eventually(lambda: churn("GET", address).status != 202)
    refused = churn("GET", address)
    assert (refused.status, refused.json["type"]) == (409, "urn:windrow:problem:no-vector")
    assert "?explain=shap" in refused.json["next"]


def test_streams_say_it_as_lines_and_as_columns(churn: Caller) -> None:
    stored(churn, anna=0.125)
    line = json.loads(churn("POST", "/v1/churn/batch", json.dumps(ANNA).encode(), kind="application/x-ndjson").body)
    assert (line["value"], line["answered_by"], line["age_seconds"]) == (0.125, "precomputed", 3600.0)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema([("customer_id", pa.string())])) as writer:
        writer.write_table(pa.table({"customer_id": ["anna", "ben"]}))
    body = churn("POST", "/v1/churn/batch", sink.getvalue(), kind="application/vnd.apache.arrow.stream").body
    told = pa.ipc.open_stream(body).read_all().to_pylist()
    assert [(one["answered_by"], one["age_seconds"]) for one in told] == [("precomputed", 3600.0), (None, None)]


def test_found_and_missed_rows_are_counted(alone: Caller) -> None:
    stored(alone, anna=0.125)
    ask(alone, ANNA, BEN, ANNA)
    page = alone("GET", "/metrics").body.decode()
    assert 'windrow_precomputed_rows_total{service="churn",what="found"} 2.0' in page
    assert 'windrow_precomputed_rows_total{service="churn",what="missed"} 1.0' in page


def test_what_is_rehearsed_before_ready_is_not_counted(alone: Caller) -> None:
    stored(alone, anna=0.125)
    alone("GET", "/readyz")
    ask(alone, ANNA)
    page = alone("GET", "/metrics").body.decode()
    assert 'windrow_precomputed_rows_total{service="churn",what="found"} 1.0' in page
    assert 'windrow_precomputed_rows_total{service="churn",what="missed"} 0.0' in page
    assert 'windrow_cache_total{release="churn-1",what="miss"} 0.0' in page


def test_a_page_for_people_shows_it_and_says_why_it_cannot_be_explained(churn: Caller) -> None:
    stored(churn, anna=0.125)
    id = churn.predict(ANNA, service="churn").json["request_id"]
    page = churn("GET", f"/ui/churn?request={id}").body.decode()
    assert "precomputed" in page
    assert "without its features" in page


def test_a_service_that_declares_nothing_never_looks(fresh: Caller) -> None:
    world.release_churn(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    stored(fresh, anna=0.125)
    assert "answered_by" not in ask(fresh, ANNA)[0]


def test_a_release_keeps_its_age_in_its_file() -> None:
    made = msgspec.json.decode(msgspec.json.encode(Policies(precomputed=5)), type=Policies)
    assert made.precomputed == 5
