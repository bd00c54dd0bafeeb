"""Explanations over HTTP: beside predictions, of logged requests, in time or as tickets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import ROOT
from tests.serving import world
from tests.serving.conftest import Answered, Caller, eventually, settings_in
from tests.serving.world import GOOD
from windrow.serving.explaining.explanation import Shapley, decode
from windrow.serving.explaining.side import SideProcess
from windrow.serving.worker import Worker
from windrow.stores.log import records

WAIT = 240.0  # seconds, for a side process of the lowest priority on a busy machine


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A running worker with fraud (ONNX with its original) and churn (scikit-learn)."""
    settings = settings_in(tmp_path_factory.mktemp("explained"))
    world.publish(settings)
    world.release_explained(settings)
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready, seconds=120)
    yield Caller(worker)
    worker.close()


def later(caller: Caller, address: str) -> Answered:
    """Ask as a ticket says, until the explanation is there."""
    found: list[Answered] = []

    def there() -> bool:
        found.append(caller("GET", address))
        return found[-1].status != 202

    eventually(there, seconds=WAIT)
    return found[-1]


def test_a_prediction_brings_its_explanation_when_it_is_made_in_time(explained: Caller) -> None:
    first = explained("POST", "/v1/fraud/predict?explain=shap", GOOD)
    assert first.status in (200, 202)
    later(explained, f"/v1/requests/{first.json['request_id']}/explanation?kind=shap&row=0")
    answer = explained("POST", "/v1/fraud/predict?explain=shap", GOOD)
    assert answer.status == 200
    made = answer.json["explanations"][0]["shap"]
    assert (made["kind"], made["scale"], made["release"]) == ("shap", "log-odds", "fraud-1")
    added = made["base"] + sum(c["contribution"] for c in made["contributions"])
    assert added == pytest.approx(made["raw"], abs=1e-4)
    assert made["raw"] == pytest.approx(0.001 * 500 + 0.01 * 20 + 0.1 * 2.5 - 1, abs=1e-6)
    assert made["output"] == pytest.approx(answer.json["predictions"][0]["value"], abs=1e-6)
    assert {tuple(s["columns"]) for s in made["sources"]} == {
        ("customers.limit",),
        ("payments.amount",),
        ("customers.x", "payments.x"),
    }


def test_what_is_not_made_in_time_is_a_ticket_with_the_address_to_ask_again(explained: Caller) -> None:
    later(explained, _address(explained, GOOD, "shap"))
    pid = explained.worker.explainer.side.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        answer = explained("POST", "/v1/fraud/predict?explain=shap,anchor", {**GOOD, "amount": 33.0})
        spent = time.monotonic() - begin
        assert (answer.status, answer.headers["retry-after"]) == (202, "1")
        assert answer.json["predictions"][0]["value"] > 0
        assert 0.45 < spent < 10  # its budget is half a second, and the process stands still
        ticket = answer.json["explanations"][0]["anchor"]
        assert ticket == {
            "status": "pending",
            "kind": "anchor",
            "address": f"/v1/requests/{answer.json['request_id']}/explanation?kind=anchor&row=0",
            "retry_after": 1,
        }
        again = explained("GET", ticket["address"])
        assert (again.status, again.headers["retry-after"], again.json) == (202, "1", ticket)
        assert explained.predict(GOOD).status == 200
        written = [r for _, r in records(explained.worker.settings.home / "log")]
        assert [r.output for r in written if r.request_id == answer.json["request_id"]] == [
            answer.json["predictions"][0]["value"]
        ]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert later(explained, ticket["address"]).json["kind"] == "anchor"


@pytest.mark.parametrize("kind", ["shap", "anchor", "counterfactual"])
def test_a_logged_request_is_explained_from_the_log(explained: Caller, kind: str) -> None:
    rows = {"rows": [{**GOOD, "amount": 5.0}, {**GOOD, "amount": 90.0}]}
    id = explained.predict(rows).json["request_id"]
    answer = later(explained, f"/v1/requests/{id}/explanation?kind={kind}&row=1")
    assert (answer.status, answer.json["kind"], answer.json["release"]) == (200, kind, "fraud-1")
    if kind == "shap":
        found = decode(answer.body)
        assert isinstance(found, Shapley)
        assert {c.feature: c.value for c in found.contributions}["amount"] == 90.0
        assert "amount = 90" in found._repr_html_()


def test_the_kind_is_shap_and_the_row_the_first_where_nothing_else_is_asked(explained: Caller) -> None:
    id = explained.predict(GOOD).json["request_id"]
    assert later(explained, f"/v1/requests/{id}/explanation").json["kind"] == "shap"


@pytest.mark.parametrize(
    ("address", "status", "kind", "step"),
    [
        ("nope-1/explanation?kind=shap", 404, "unknown-request", "copy the request_id of an answer"),
        ("nope-1/explanation?kind=shape", 400, "unknown-kind", "did you mean 'shap'?"),
        ("nope-1/explanation?kind=", 400, "unknown-kind", "use one of 'anchor', 'counterfactual', 'shap'"),
        ("nope-1/explanation?row=-1", 400, "no-row", "ask for row=0"),
        ("%FF%00/explanation?row=x", 400, "no-row", "ask for row=0"),
        ("%00/explanation", 404, "unknown-request", "copy the request_id of an answer"),
        ("\x00/explanation", 404, "unknown-request", "copy the request_id of an answer"),
        ("a" * 5000 + "/explanation", 404, "unknown-request", "copy the request_id of an answer"),
    ],
)
def test_what_cannot_be_explained_says_why_and_what_to_do(
    explained: Caller, address: str, status: int, kind: str, step: str
) -> None:
    answer = later(explained, f"/v1/requests/{address}")
    assert (answer.status, answer.json["type"], answer.json["next"]) == (status, f"urn:windrow:problem:{kind}", step)


def test_a_row_that_the_request_did_not_have_is_404(explained: Caller) -> None:
    id = explained.predict(GOOD).json["request_id"]
    answer = later(explained, f"/v1/requests/{id}/explanation?row=7")
    assert (answer.status, answer.json["next"]) == (404, "ask for row=0 to row=0")


def test_a_request_that_failed_has_nothing_to_explain(explained: Caller) -> None:
    id = explained.predict({"amount": 1}).json["request_id"]
    answer = later(explained, f"/v1/requests/{id}/explanation")
    assert (answer.status, answer.json["type"]) == (409, "urn:windrow:problem:nothing-predicted")
    assert "422 (missing-key)" in answer.json["detail"]


def test_a_request_that_is_in_the_lake_already_is_found_there(tmp_path: Path) -> None:
    from windrow.serving.explaining.child import Answering
    from windrow.serving.explaining.messages import Logged, Question
    from windrow.stores.committer import commit
    from windrow.stores.lake import Lake
    from windrow.stores.log import LogRecord, LogWriter

    settings = settings_in(tmp_path)
    world.publish(settings)
    world.release_explained(settings)
    vector: dict[str, float | str | None] = {"limit": 500.0, "amount": None, "distance": 2.5}
    with LogWriter(settings.folder("log"), "api-0") as log:
        for name, kind in (("r1", "prediction"), ("r2", "error")):
            record = LogRecord(kind=kind, request_id=name, service="fraud", release="fraud-1", vector=vector)
            log.append([record if kind == "prediction" else LogRecord(kind=kind, request_id=name, service="no_such")])
    assert commit(settings.folder("log"), Lake(settings.lake)) == 2
    assert list(records(settings.folder("log"))) == []
    answering = Answering(settings)
    reply = answering.reply(Question(1, "find", request_id="r1"))
    assert msgspec.msgpack.decode(reply.body, type=Logged) == Logged("fraud-1", vector)
    problems = [answering.reply(Question(1, "find", request_id=id)).problem for id in ("r2", "r3")]
    assert [p.kind for p in problems if p] == ["nothing-predicted", "unknown-request"]


@pytest.mark.parametrize("asked", ["shape", "shap,", "shap,anchors", "%00"])
def test_an_unknown_kind_is_refused_before_anything_is_predicted(explained: Caller, asked: str) -> None:
    before = len(list(_predictions(explained)))
    answer = explained("POST", f"/v1/fraud/predict?explain={asked}", GOOD)
    assert (answer.status, answer.json["type"]) == (400, "urn:windrow:problem:unknown-kind")
    assert len(list(_predictions(explained))) == before


def test_more_rows_than_can_be_explained_at_once_are_refused(explained: Caller) -> None:
    answer = explained("POST", "/v1/fraud/predict?explain=shap", {"rows": [GOOD] * 17})
    assert (answer.status, answer.json["type"]) == (422, "urn:windrow:problem:too-many-rows")
    assert explained("POST", "/v1/fraud/predict", {"rows": [GOOD] * 17}).status == 200


def test_a_prediction_is_answered_and_says_why_it_cannot_be_explained(explained: Caller) -> None:
    # No feature may change in this release, so that there is no counterfactual.
    answers: list[Answered] = []

    def told() -> bool:
        answers.append(explained("POST", "/v1/churn/predict?explain=counterfactual", {"customer_id": "anna"}))
        return answers[-1].status == 200

    eventually(told, seconds=WAIT)
    assert answers[-1].json["predictions"][0]["value"] > 0
    failed = answers[-1].json["explanations"][0]["counterfactual"]
    assert (failed["status"], failed["problem"]["type"]) == ("failed", "urn:windrow:problem:no-contrast")


def test_a_side_process_that_dies_is_started_again(explained: Caller) -> None:
    later(explained, _address(explained, GOOD, "shap"))
    before = explained.worker.explainer.side.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    answer = later(explained, _address(explained, {**GOOD, "amount": 61.5}, "shap"))
    assert answer.status == 200
    assert explained.worker.explainer.side.pid != before


def test_the_side_process_has_the_lowest_priority_and_one_native_thread(explained: Caller) -> None:
    later(explained, _address(explained, GOOD, "shap"))
    pid = explained.worker.explainer.side.pid
    assert os.getpriority(os.PRIO_PROCESS, pid or 0) == 19
    assert b"OMP_NUM_THREADS=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_the_side_process_ends_with_its_parent(explained: Caller) -> None:
    settings = explained.worker.settings
    code = f"""
import os
from windrow.serving.explaining.messages import Question
from windrow.serving.explaining.side import SideProcess
from windrow.settings import Settings
side = SideProcess(Settings.read({settings.environ()!r}))
try:
    side.ask(Question(0, "find", request_id="x")).result()
except Exception:
    print(side.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    eventually(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


def test_a_worker_with_explanations_imports_none_of_their_packages() -> None:
    heavy = {"sklearn", "pandas", "shap", "numba", "ibis", "pyarrow", "dagster", "evidently", "scipy", "deltalake"}
    code = f"import sys, windrow.serving.asgi, windrow.serving.loader; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_explanation_that_takes_too_long_is_given_up(explained: Caller) -> None:
    from windrow.errors import RequestError
    from windrow.serving.explaining.messages import Question

    side = SideProcess(explained.worker.settings, patience=0.0, starting=0.0)
    try:
        with pytest.raises(RequestError, match="was given up") as caught:
            side.ask(Question(0, "find", request_id="x")).result(timeout=30)
        assert caught.value.status == 504
        assert side.pid is None
    finally:
        side.close()


def test_the_openapi_document_says_how_to_ask(explained: Caller) -> None:
    document = explained("GET", "/v1/openapi.json").json
    (asked,) = document["paths"]["/v1/fraud/predict"]["post"]["parameters"]
    assert (asked["name"], asked["in"], asked["required"]) == ("explain", "query", False)
    found = document["paths"]["/v1/requests/{id}/explanation"]["get"]
    assert {p["name"] for p in found["parameters"]} == {"id", "kind", "row"}
    assert {"200", "202", "401", "403", "429", "default"} == set(found["responses"])


def _address(caller: Caller, body: Any, kind: str) -> str:
    return f"/v1/requests/{caller.predict(body).json['request_id']}/explanation?kind={kind}"


def _predictions(caller: Caller) -> Iterator[str]:
    for _, record in records(caller.worker.settings.home / "log"):
        if record.kind == "prediction":
            yield record.request_id
