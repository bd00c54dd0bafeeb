"""The page of a service: its form, its predictions and how it is, as HTML, without a browser."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.serving import world
from tests.serving.conftest import Answered, Caller, eventually, make_key_for, settings_in
from tests.serving.test_sign_in import cookie_of, csrf_of, sign_in
from windrow.features.contract import Contract
from windrow.models.experiment import Experiment, weighed
from windrow.models.experiments import Experiments
from windrow.models.registry import Registry
from windrow.schema import Field
from windrow.serving.latest import MOST, Latest
from windrow.serving.requests import RowReader
from windrow.serving.ui import form
from windrow.serving.worker import Worker
from windrow.stores.log import LogRecord, records
from windrow.stores.metadata import Metadata

KIND = "application/x-www-form-urlencoded"
HTML = (b"accept", b"text/html,*/*")
GOOD = {"v.card_id": "1", "v.amount": "20", "v.x": "4"}
ODD = '"><script>alert(1)</script>'


def post(caller: Caller, fields: dict[str, str], service: str = "fraud", **options: object) -> Answered:
    return caller("POST", f"/ui/{service}", urlencode(fields).encode(), kind=KIND, **options)


def text(answer: Answered) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", answer.body.decode()))


def value(answer: Answered, name: str) -> str:
    found = re.search(rf'name="v\.{name}"[^>]*value="([^"]*)"', answer.body.decode())
    assert found is not None
    return html.unescape(found[1])


@pytest.mark.parametrize(
    "path", ["/ui/releases/nope", "/ui/reports/nope/x.html", "/nowhere", "/ui/lineage?at=x&of=nope"]
)
def test_a_browser_is_told_of_a_page_that_is_not_there_in_a_page(fraud: Caller, path: str) -> None:
    key = make_key_for(fraud.worker, "admin")
    bearer = (b"authorization", f"Bearer {key}".encode())
    page, plain = (fraud("GET", path, headers=[bearer, *more]) for more in ([HTML], []))
    assert (page.status, plain.status) == (404, 404)
    assert page.headers["content-type"].startswith("text/html")
    assert html.escape(plain.json["detail"]) in page.body.decode()
    assert plain.headers["content-type"] == "application/problem+json"


def test_a_form_that_is_right_leads_to_the_page_of_its_prediction(fraud: Caller) -> None:
    answer = post(fraud, GOOD)
    assert answer.status == 303
    place = answer.headers["location"]
    assert re.fullmatch(r"/ui/fraud\?request=[\w-]+#prediction", place)
    id = place.partition("=")[2].partition("#")[0]
    page = fraud("GET", place.partition("#")[0])
    logged = next(r for _, r in records(fraud.worker.settings.home / "log") if r.request_id == id)
    assert (page.status, f"{logged.output:.1%}" in text(page), f"{id}, row 0" in text(page)) == (200, True, True)
    assert [value(page, name) for name in ("card_id", "amount", "x")] == ["1", "20", "4"]


def test_a_form_predicts_what_the_interface_for_programs_predicts(fraud: Caller) -> None:
    for_programs = fraud.predict({"card_id": 1, "amount": 33.25, "x": None}).json["predictions"][0]["value"]
    post(fraud, {**GOOD, "v.amount": "33.25", "v.x": ""})
    newest = fraud.worker.latest.of("fraud")[0]
    assert (newest.output, newest.request) == (for_programs, {"card_id": 1, "amount": 33.25, "x": None})


def test_every_wrong_value_is_told_beside_its_field_and_nothing_is_predicted(fraud: Caller) -> None:
    before = fraud.worker.latest.of("fraud")
    answer = post(fraud, {"v.card_id": "", "v.amount": "12,5", "v.x": "4", "v.event_time": "yesterday"})
    assert answer.status == 422
    errors = re.findall(r'<p class="error" id="(e\d)">([^<]*)</p>', html.unescape(answer.body.decode()))
    assert errors == [
        ("e0", "The key 'card_id' is missing: add 'card_id' (int64)."),
        ("e1", "Field 'amount' is not a number: send a number."),
        ("e4", 'Field \'event_time\' is not a time with zone, such as "2026-01-31T09:00:00Z": send a time with zone, such as "2026-01-31T09:00:00Z".'),
    ]  # fmt: skip
    assert (value(answer, "amount"), value(answer, "x")) == ("12,5", "4")
    assert answer.body.count(b'aria-invalid="true"') == 3
    assert answer.body.count(b"autofocus") == 1
    assert 'aria-describedby="h1 e1"' in answer.body.decode()
    assert fraud.worker.latest.of("fraud") == before


def test_what_the_service_refuses_is_told_above_the_form_and_logged(fraud: Caller) -> None:
    answer = post(fraud, {**GOOD, "v.card_id": "777"})
    assert (answer.status, 'role="alert"' in answer.body.decode(), value(answer, "card_id")) == (404, True, "777")
    last = [r for _, r in records(fraud.worker.settings.home / "log")][-1]
    assert (last.kind, last.status, last.service) == ("error", 404, "fraud")


def test_every_input_has_a_label_a_hint_and_a_place_in_the_order(fraud: Caller) -> None:
    page = fraud("GET", "/ui/fraud").body.decode()
    inputs = re.findall(r'<input id="(f\d)" name="v\.(\w+)" aria-describedby="(h\d)"', page)
    assert [name for _, name, _ in inputs] == ["card_id", "amount", "x", "payment_id", "event_time"]
    assert all(f'<label for="{id}">' in page and f'id="{hint}"' in page for id, _, hint in inputs)
    assert page.index('class="skip"') < page.index("<nav") < page.index('<main id="main"') < page.index("<form method")
    assert '<html lang="en">' in page
    assert 'tabindex="0" aria-label="Latest predictions"' in page or "None in the last ten minutes" in page


def test_no_page_runs_or_fetches_anything(fraud: Caller) -> None:
    post(fraud, GOOD)
    for path in ("/ui", "/ui/fraud", "/ui/login"):
        page = fraud("GET", path, headers=[*fraud.signed, HTML])
        assert b"<script" not in page.body
        assert re.findall(rb'(?:src|href|action)="(?!/|#|data:image)[^"]*"', page.body) == []
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script" not in policy


def test_what_people_write_stays_text_on_the_page(fraud: Caller) -> None:
    for fields in ({**GOOD, "v.amount": ODD}, {**GOOD, "v.event_time": ODD}, {**GOOD, "v.card_id": ODD}):
        answer = post(fraud, fields)
        assert (answer.status, b"<script" in answer.body) == (422, False)
    assert b"<script" not in fraud("GET", f"/ui/fraud?request={ODD}&kind=shap", headers=[*fraud.signed, HTML]).body


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/absent", 404), ("/ui/fraud?request=x&row=-1", 400), ("/ui/fraud?request=x&kind=shape", 400),
        ("/ui/fraud?" + "a=1&" * 50, 400), ("/ui/", 404),
    ],
)  # fmt: skip
def test_an_address_that_means_nothing_is_told_to_people_and_to_programs(fraud: Caller, path: str, status: int) -> None:
    if path != "/ui/":
        page = fraud("GET", path, headers=[*fraud.signed, HTML])
        assert (page.status, "Next:" in text(page), "To the services" in text(page)) == (status, True, True)
    assert (fraud("GET", path).status, fraud("GET", path).headers["content-type"]) == (
        status,
        "application/problem+json",
    )


def test_other_methods_and_bodies_are_refused(fraud: Caller) -> None:
    assert fraud("DELETE", "/ui/fraud").headers["allow"] == "GET, HEAD, POST"
    assert fraud("POST", "/ui/fraud", b"{}", kind="application/json").status == 415
    assert post(fraud, {str(n): "" for n in range(100)}).status == 400


def test_the_form_of_a_session_needs_its_token(fraud: Caller) -> None:
    cookie = cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics", "predict", "explain")))
    other = csrf_of(fraud, cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics"))))
    token = csrf_of(fraud, cookie)
    for fields in (GOOD, {**GOOD, "csrf": ""}, {**GOOD, "csrf": other}):
        assert post(fraud, fields, headers=[cookie]).status == 403
    page = fraud("GET", "/ui/fraud", headers=[cookie]).body.decode()
    assert page.count(f'name="csrf" value="{token}"') == 2  # of the form, and of the way out
    assert post(fraud, {**GOOD, "csrf": token}, headers=[cookie]).status == 303


def test_a_key_sees_and_does_on_the_page_what_its_scopes_allow(fraud: Caller) -> None:
    post(fraud, GOOD)
    cookie = cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics")))
    page = fraud("GET", "/ui/fraud", headers=[cookie])
    assert b'name="v.' not in page.body
    assert b"card_id=1" not in page.body
    assert "lacks the scope predict" in text(page)
    token = csrf_of(fraud, cookie)
    assert post(fraud, {**GOOD, "csrf": token}, headers=[cookie]).status == 403
    assert fraud("GET", "/ui/fraud?request=x", headers=[cookie]).status == 403
    assert fraud("GET", "/ui/fraud", headers=[cookie_of(sign_in(fraud, make_key_for(fraud.worker, "metrics", "predict")))]).body.count(b'value="1"') == 0  # fmt: skip


def test_without_keys_the_page_needs_no_session(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings_in(tmp_path), insecure=True)
    world.publish(settings)
    world.release_fraud(settings)
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready)
    caller = Caller(worker)
    assert post(caller, GOOD, headers=[]).status == 303
    page = caller("GET", "/ui/fraud", headers=[])
    assert (page.status, "card_id=1" in text(page), "Sign out" in text(page)) == (200, True, False)
    assert post(caller, GOOD, headers=[(b"origin", b"https://attacker.example")]).status == 403
    worker.close()


@pytest.fixture
def busy(fresh: Caller) -> Iterator[Caller]:
    """A worker with an experiment, a drift report and gates."""
    settings = fresh.worker.settings
    world.release_fraud(settings)
    world.release_fraud(settings, 2, shift=1.0, promote=False)
    eventually(lambda: fresh.worker.live.ready)
    metadata = Metadata(settings.metadata)
    plan = Experiment(service="fraud", name="bolder", arms=weighed({"bold": ("fraud-2", 0.5)}), unit=("card_id",))
    Experiments(metadata, Registry(metadata, settings.folder("releases"))).start(plan)
    metadata.close()
    eventually(lambda: fresh.worker.live.dispatcher(fresh.worker.live.service("fraud")))
    folder = settings.folder("reports/fraud")
    column = {"feature": "amount", "verdict": "drift", "why": "distance 0.3 is above 0.1"}
    seen = {"name": "drift", "passed": False, "why": "1 of 3 drifted", "html": "fraud/drift.html", "made_at": 0, "judged": 3, "columns": [column]}  # fmt: skip
    (folder / "drift.json").write_text(json.dumps(seen))
    (folder / "torn.json").write_text('{"name": "torn"')
    return fresh


def test_the_page_tells_release_experiments_drift_latencies_and_what_was_predicted(busy: Caller) -> None:
    assert post(busy, GOOD).status == 303
    record = busy.worker.latest.of("fraud")[0]
    page = busy("GET", "/ui/fraud")
    said = re.sub(r"\s+", " ", text(page))
    assert f"bolder={record.arms['bolder']}" in said
    assert re.search(r"bold fraud-2 50% [01]", said)
    assert "amount drift distance 0.3 is above 0.1" in said
    assert re.search(r"model \d+ µs|model [\d.]+ ms", said)
    assert "auc 0.9 0.5" in said
    for way in ("/ui/releases/fraud-1", "/ui/lineage?service=fraud", "/ui/reports/fraud/drift.html"):
        assert f'href="{way}"' in page.body.decode()


def test_only_the_newest_predictions_are_kept_and_each_service_has_its_own() -> None:
    written: list[LogRecord] = []

    class Kept:
        def append(self, more: object) -> None:
            written.extend(more)  # type: ignore[call-overload]

    latest, now = Latest(Kept()), time.time_ns() // 1000
    old = LogRecord(kind="prediction", request_id="old", service="quiet", received_at=now - 601_000_000)
    latest.append([old])
    for number in range(3 * MOST):
        latest.append([LogRecord(kind="prediction", request_id=str(number), service="busy", received_at=now)])
    latest.append([LogRecord(kind="error", request_id="e", service="busy", received_at=now)])
    assert [r.request_id for r in latest.of("busy")] == [str(n) for n in range(3 * MOST - 1, 2 * MOST - 1, -1)]
    assert (latest.of("quiet"), latest.of("never")) == ([], [])
    assert len(written) == 3 * MOST + 2


def test_a_built_service_has_every_file_that_its_pages_are_made_from() -> None:
    written = (ROOT / "bento" / "bentofile.yaml").read_text()
    endings = {file.suffix for file in (ROOT / "windrow" / "serving").rglob("*.*") if file.suffix != ".pyc"}
    assert endings == {".py", ".html", ".css"}
    assert [ending for ending in endings if f'"windrow/**/*{ending}"' not in written] == []


DTYPES = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(-(2.0**127), 2.0**127, width=32),
    "float64": st.floats(-1e30, 1e30),
    "string": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
    "timestamp": st.integers(-(10**15), 6 * 10**15),
}
FIELDS = tuple(Field(name, name) for name in DTYPES)
ALL = Contract(view="v", spine="s", request=FIELDS, optional=(), lookups=(), on_demand=(), features=FIELDS)
ROWS = st.fixed_dictionaries({name: st.none() | values for name, values in DTYPES.items()})


@given(ROWS)
def test_a_form_filled_with_a_logged_row_means_that_row(row: dict[str, object]) -> None:
    filled = form.texts(ALL, row)
    assert RowReader(ALL).read(json.dumps(form.row_of(ALL, filled)).encode()).values == [row]


@given(st.dictionaries(st.sampled_from(["v." + name for name in DTYPES]), st.text()))
def test_whatever_is_typed_is_a_row_or_a_mistake_beside_a_field(filled: dict[str, str]) -> None:
    row = form.row_of(ALL, filled)
    wrong = RowReader(ALL).mistakes(row)
    if not wrong:
        RowReader(ALL).read(json.dumps(row).encode())
    drawn = form.fields(ALL, filled, wrong)
    assert drawn.count('class="error"') == len(wrong)
    assert set(re.findall(r"<(\w+)", drawn)) <= {"div", "label", "small", "input", "p", "select", "option"}
