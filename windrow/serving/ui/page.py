"""``/ui`` and ``/ui/{service}``: try a prediction, see why, see what was predicted lately and how the service is.

A form is answered by a redirect to the page of its prediction, so that loading it again predicts nothing again. That page
has an address of its own; while its explanation is being made, it loads itself again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, MutableMapping
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import msgspec

from windrow.clock import from_micros
from windrow.errors import RequestError
from windrow.models.policies import CONSTANT
from windrow.schema import EVENT_TIME, Status
from windrow.serving.answers import HTML, Output, Reply, as_problem
from windrow.serving.explaining.answering import seconds_of
from windrow.serving.explaining.explanation import KINDS, Explanation, Shapley, decode, spoken
from windrow.serving.explaining.messages import Logged, checked_kind, explainable, vector_of
from windrow.serving.guard import GRANT, SESSION, require
from windrow.serving.sign_in import sign_out
from windrow.serving.ui import form, sections
from windrow.serving.ui.look import SAFE, Html, document, facts, link, note, safe, section, table

if TYPE_CHECKING:
    from windrow.serving.live import LiveService
    from windrow.serving.worker import Worker
    from windrow.stores.log import LogRecord

Scope = MutableMapping[str, Any]

_TIMES = 60  # that a page loads itself again
_WORDS = {"shap": "Contributions", "anchor": "Rule", "counterfactual": "Nearest other outcome"}
_log = logging.getLogger("windrow.serving")


class _Shown(msgspec.Struct, frozen=True):
    """One prediction on the page: of the newest ones, or from further back in the log (`record` is None)."""

    request_id: str
    row: int
    kind: str
    record: LogRecord | None
    why: str = ""
    again: str = ""


class Ui:
    """The pages of one worker.

    Parameters
    ----------
    worker
        Whose services are shown and asked.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def index(self, scope: Scope) -> Reply:
        """Return the page of all services."""
        live = self._worker.live
        rows = [
            (
                link(name, f"/ui/{name}"), link(one.release.id, f"/ui/releases/{one.release.id}"),
                str(sum(1 for _ in self._worker.latest.of(name))), Html(f"<code>POST /v1/{name}/predict</code>"),
            )
            for name, one in sorted(live.services.items())
        ]  # fmt: skip
        shown = table(("service", "live release", "predicted lately", "for programs"), rows, name="Services")
        empty = "<p>No service is live yet: run <code>windrow run SERVICE</code>.</p>"
        ways = " · ".join(link(way, way) for way in ("/v1/openapi.json", "/readyz", "/metrics"))
        failed = "".join(f'<p class="error">{escape(n)}: {escape(why)}</p>' for n, why in sorted(live.failures.items()))
        body = f"<h1>Prediction services</h1><p class=lead>What answers now. Choose one to try it.</p>{section('Live', (shown if rows else empty) + failed, id='live')}<p>{ways}</p>"
        return self._document("Services", body, scope, here="/ui")

    async def shown(self, name: str, scope: Scope) -> Reply:
        """Return the page of a service, with the prediction that the query names.

        Raises
        ------
        RequestError
            404 for a service that there is not, 400 for a query that means nothing.
        """
        service = self._worker.live.service(name)
        asked = _of(scope.get("query_string", b""), most=10)
        prediction = None
        if "request" in asked:
            require(scope[GRANT], "explain")
            prediction = await self._prediction(service, asked)
        records = self._worker.latest.of(name)
        given = _given(service, prediction.record if prediction else records[0] if records else None, scope)
        return await asyncio.to_thread(self._page, service, scope, given, prediction=prediction)

    async def tried(self, name: str, scope: Scope, body: bytes) -> Reply:
        """Predict what a form says, and lead to the page of the prediction; the form again where it is wrong.

        Raises
        ------
        RequestError
            403 for a form of another site and for a key that may not predict, 404 for a service that there is not.
        """
        service, contract = self._worker.live.service(name), self._worker.live.service(name).release.contract
        given = _of(body, most=len(contract.request) + len(contract.optional) + 10)
        session = scope.get(SESSION)
        if session is not None:
            session.check_csrf(given.get("csrf", ""))
        require(scope[GRANT], "predict")
        row = form.row_of(contract, given)
        mistakes = service.reader.mistakes(row)
        if mistakes:
            return await asyncio.to_thread(self._page, service, scope, given, mistakes=mistakes)
        request_id = self._worker.plane.new_id()
        error = await self._predicted(name, row, request_id)
        if error is not None:
            return await asyncio.to_thread(self._page, service, scope, given, error=error)
        place = f"/ui/{name}?{urlencode({'request': request_id})}#prediction"
        return Reply(303, b"", HTML, more=((b"location", place.encode()), *SAFE))

    async def _predicted(self, name: str, row: Mapping[str, Any], request_id: str) -> RequestError | None:
        worker, begin, told = self._worker, time.perf_counter(), None
        if worker.admission.draining or worker.admission.in_flight >= worker.admission.most:
            return worker.admission.refusal()
        worker.admission.in_flight += 1
        try:
            await worker.plane.predict(name, json.dumps(row).encode(), request_id=request_id)
        except Exception as error:  # noqa: BLE001 - as for programs: a problem for the caller, a record in the log
            told = self._failed(name, error, request_id)
        finally:
            worker.admission.in_flight -= 1
        worker.metrics.observe(name, "predict", told.status if told else 200, time.perf_counter() - begin)
        return told

    def _failed(self, name: str, error: Exception, request_id: str) -> RequestError:
        told = as_problem(error)
        if told is not error:
            _log.error("request %s failed", request_id, exc_info=error)
        try:
            self._worker.plane.failure(name, told, request_id=request_id)
        except Exception as second:  # noqa: BLE001 - the log is what fails here, and the caller must hear of that
            return as_problem(second)
        return told

    async def _prediction(self, service: LiveService, asked: Mapping[str, str]) -> _Shown:
        id, row, kind = asked["request"], _whole(asked.get("row", "0")), checked_kind(asked.get("kind", "shap"))
        record = next((r for r in self._worker.latest.of(service.name) if (r.request_id, r.row) == (id, row)), None)
        shown = _Shown(id, row, kind, record)
        if record is not None and record.answered_by == CONSTANT:
            return msgspec.structs.replace(shown, why=note("A declared constant answered: there is nothing to explain."))  # fmt: skip
        try:
            made = await self._explanation(shown)
        except RequestError as error:
            why = f'<p class="error">{escape(error.what)}. Next: {escape(error.next_step or "try another kind")}.</p>'
            return msgspec.structs.replace(shown, why=why)
        if made is not None:
            return msgspec.structs.replace(shown, why=_why(decode(made)))
        return _pending(service.name, shown, _whole(asked.get("again", "0")))

    async def _explanation(self, shown: _Shown) -> bytes | None:
        worker, services = self._worker, self._worker.live.services
        until = time.monotonic() + seconds_of(services, shown.record.release if shown.record else "")
        if shown.record is not None:
            found: Logged | None = explainable(shown.record)
        else:
            found = await worker.explainer.logged(shown.request_id, shown.row, until=until)
        return None if found is None else await worker.explainer.explanation(found, shown.kind, until=until)

    def _page(
        self, service: LiveService, scope: Scope, given: Mapping[str, str], *, prediction: _Shown | None = None,
        mistakes: Mapping[str, RequestError] | None = None, error: RequestError | None = None,
    ) -> Reply:  # fmt: skip
        worker, release = self._worker, service.release
        may_see = "explain" in scope[GRANT].scopes
        records = worker.latest.of(service.name) if may_see else []
        dispatcher = worker.live.dispatcher(service)
        running = [] if dispatcher is None else dispatcher.experiments
        asking = section("Try a prediction", _form(service, scope, given, mistakes or {}, error), id="try")
        output = _speaker(service)
        parts = [
            f'<div class="try">{asking}{_result(service, prediction, may_see=may_see)}</div>',
            sections.latest(service.name, records, output) if may_see else _unseen(),
            '<div class="grid">',
            sections.live_release(release),
            sections.experiments(running, worker.plane.arms, worker.live.paused, service.name),
            sections.drift(worker.reports, service.name),
            sections.latencies(worker.latest.of(service.name), release.p99_ms),
            "</div>",
        ]
        lead = f'<h1>{escape(service.name)}</h1><p class="lead">{_lead(service)}</p>'
        status = 422 if mistakes else error.status if error else 200
        again = prediction.again if prediction else ""
        return self._document(service.name, lead + "".join(parts), scope, here=f"/ui/{service.name}", status=status, again=again)  # fmt: skip

    def _document(self, title: str, body: str, scope: Scope, *, here: str, status: int = 200, again: str = "") -> Reply:
        leave, services = sign_out(scope.get(SESSION)), sorted(self._worker.live.services)
        return document(title, body, status=status, services=services, here=here, leave=leave, again=again)


def _form(
    service: LiveService, scope: Scope, given: Mapping[str, str], mistakes: Mapping[str, RequestError], error: RequestError | None
) -> str:  # fmt: skip
    if "predict" not in scope[GRANT].scopes:
        return note("Your key lacks the scope predict: windrow keys create NAME --scope metrics --scope predict")
    session = scope.get(SESSION)
    token = "" if session is None else f'<input type="hidden" name="csrf" value="{escape(session.csrf)}">'
    alert = ""
    if mistakes:
        alert = f'<p role="alert">{len(mistakes)} of the values cannot be taken; what is wrong stands beside {"it" if len(mistakes) == 1 else "each"}.</p>'
    if error is not None:
        alert = f'<p role="alert">{escape(error.what)}.{f" Next: {escape(error.next_step)}." if error.next_step else ""}</p>'
    inputs = form.fields(service.release.contract, given, mistakes)
    return f'{alert}<form method="post" action="/ui/{service.name}" novalidate>{token}{inputs}<button class="main">Predict</button></form>'


def _given(service: LiveService, record: LogRecord | None, scope: Scope) -> dict[str, str]:
    """Return what the form is filled with: the values of a prediction, and a time where one is needed."""
    contract = service.release.contract
    moment = {form.PREFIX + EVENT_TIME: from_micros(service.now()).isoformat()} if contract.timed else {}
    if record is None or "explain" not in scope[GRANT].scopes:
        return moment
    return moment | form.texts(contract, record.request)


def _result(service: LiveService, shown: _Shown | None, *, may_see: bool) -> str:
    if shown is None:
        step = "Fill the form and press Predict: the prediction and what it comes from are shown here."
        return section("Prediction", note(step if may_see else f"{step} It takes the scope explain."), id="prediction")
    body = _answer(service, shown.record) if shown.record is not None else note(f"Request {shown.request_id}, row {shown.row}, from the log.")  # fmt: skip
    tabs = "".join(_tab(service.name, shown, kind) for kind in KINDS)
    return section("Prediction", f'{body}<nav class="tabs" aria-label="Why">{tabs}</nav><div class="why" role="region" tabindex="0" aria-label="Explanation" aria-live="polite">{shown.why}</div>', id="prediction")  # fmt: skip


def _answer(service: LiveService, record: LogRecord) -> str:
    states = {int(status): status.name.lower().replace("_", " ") for status in Status}
    statuses: dict[str, int] = msgspec.msgpack.decode(msgspec.msgpack.encode(record.statuses))
    inputs = [(n, spoken(v), states.get(statuses.get(n, 0), "")) for n, v in vector_of(record).items()]
    told = {
        "answered by": record.answered_by or record.release,
        "arms": ", ".join(f"{name}: {arm}" for name, arm in record.arms.items()),
        "degraded": sections.marked(record.degraded),
        "request": f"{record.request_id}, row {record.row}",
        "asked about": from_micros(record.event_time).isoformat(timespec="seconds"),
    }
    share = record.output if service.release.task == "classification" else None
    bar = "" if share is None else f'<div class="bar" aria-hidden="true"><svg viewBox="0 0 100 1" preserveAspectRatio="none"><rect width="{100 * share:.2f}" height="1" fill="var(--accent)"/></svg></div>'  # fmt: skip
    given = table(("input", "value", "status"), inputs, name="What the model was given")
    return f'<p class="big">{safe(_speaker(service)(record))}</p>{bar}{facts(told)}<details><summary>What the model was given</summary>{given}</details>'


def _why(made: Explanation) -> str:
    """Return an explanation as a picture or a rule; Shapley values as a table too, for who cannot see the picture."""
    if not isinstance(made, Shapley):
        return made._repr_html_()
    rows = [(c.feature, spoken(c.value), _added(c.contribution)) for c in made.contributions]
    values = table(("input", "value", "adds"), rows, name="Contributions")
    return f"{made._repr_html_()}<details><summary>As a table</summary>{values}</details>"


def _added(amount: Output) -> str:
    return ", ".join(f"{one:+.4g}" for one in (amount if isinstance(amount, list) else [amount]))


def _tab(service: str, shown: _Shown, kind: str) -> str:
    query = urlencode({"request": shown.request_id, "row": shown.row, "kind": kind})
    here = ' aria-current="true"' if kind == shown.kind else ""
    return f'<a href="{escape(f"/ui/{service}?{query}#prediction")}"{here}>{_WORDS[kind]}</a>'


def _pending(service: str, shown: _Shown, times: int) -> _Shown:
    query = {"request": shown.request_id, "row": shown.row, "kind": shown.kind, "again": times + 1}
    way = f"/ui/{service}?{urlencode(query)}#prediction"
    why = f'<p role="status">The explanation is being made. {link("Look again", way)}</p>'
    return msgspec.structs.replace(shown, why=why, again=way if times < _TIMES else "")


def _speaker(service: LiveService) -> Any:
    release = service.release

    def said(record: LogRecord) -> str:
        value = record.output
        if value is None:
            return ""
        if release.classes:
            return release.classes[int(value)] if 0 <= value < len(release.classes) else f"{value:g}"
        return f"{value:.1%}" if release.task == "classification" else f"{value:,.6g}"

    return said


def _lead(service: LiveService) -> str:
    release = service.release
    what = {"classification": "The probability of class 1", "regression": "A number"}.get(release.task, "One of " + ", ".join(release.classes))  # fmt: skip
    way = link(release.id, f"/ui/releases/{release.id}")
    return f"{escape(what)}, by release {way}. For programs: <code>POST /v1/{service.name}/predict</code>"


def _unseen() -> str:
    step = "What was predicted is shown to keys with the scope explain: windrow keys create NAME --scope metrics --scope explain"  # fmt: skip
    return section("Latest predictions", note(step), id="latest", wide=True)


def _of(text: bytes, *, most: int) -> dict[str, str]:
    try:
        found = parse_qs(text.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=most, errors="replace")
    except ValueError:
        step = "load the page again"
        raise RequestError(400, "too-many-fields", "There are more fields than the form has", where="body", next_step=step) from None  # fmt: skip
    return {name: values[0] for name, values in found.items()}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise RequestError(400, "no-row", "The row is no number from 0 on", where="query", next_step="ask for row=0")
    return int(text)
