"""The HTTP interface, as ASGI middleware that answers everything itself: routes, bodies, problems, nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, MutableMapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from windrow.errors import RefusedError, RequestError
from windrow.serving import pages
from windrow.serving.answers import HTML, Reply, as_problem, encode, problem
from windrow.serving.explaining import answering
from windrow.serving.guard import GRANT, LOGIN, LOGOUT, READY, require
from windrow.serving.lineage_page import lineage_page
from windrow.serving.openapi import openapi
from windrow.serving.requests import MAX_BODY
from windrow.serving.sign_in import FORM, for_people
from windrow.serving.ui.look import problem_page
from windrow.serving.ui.page import Ui
from windrow.serving.worker import Worker

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DEADLINE = 0.8  # seconds for a body to arrive: before BentoML's own time-out answers in our place
_DIGITS = 20  # of an announced length
_PLAIN = (b"", b"identity")

_ACTIONS = ("predict", "outcomes")
_JSON, _PROBLEM = b"application/json", b"application/problem+json"
_SOON = b"1"  # seconds after which a request may be tried again
_CARDS = "/ui/releases/"
_log = logging.getLogger("windrow.serving")


class _GoneError(Exception):
    """The client hung up before its body was here."""


class WindrowMiddleware:
    """Answers every HTTP request; other scopes (the lifespan) go to the app inside.

    Parameters
    ----------
    app
        What is inside, such as BentoML's own application.
    worker
        Whose services are asked.
    """

    def __init__(self, app: App, *, worker: Worker) -> None:
        self._app, self._worker = app, worker
        self._client: Any = None
        self._ui = Ui(worker)
        self._pages: dict[str, Callable[[], Reply]] = {
            "/healthz": lambda: Reply(200, b'{"status":"alive"}'),
            "/livez": lambda: Reply(200, b'{"status":"alive"}'),
            "/metrics": lambda: Reply(200, worker.measured(), CONTENT_TYPE_LATEST.encode()),
            "/v1/openapi.json": self._openapi,
            "/docs.json": self._openapi,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            self._step_out(scope)
            await self._app(scope, receive, send)
            return
        try:
            reply = await self._reply(scope, receive, send)
        except _GoneError:
            return
        if reply is None:
            return
        headers = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body))]
        if reply.allow:
            headers.append((b"allow", reply.allow))
        if reply.retry_after:
            headers.append((b"retry-after", reply.retry_after))
        headers += reply.more
        if self._worker.admission.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _step_out(self, scope: Scope) -> None:
        # BentoML puts tracing and a timer per request around every middleware, for the endpoints inside.
        # We answer everything and have a deadline of our own, so when the server starts we move outside of them.
        server: Any = scope.get("app")
        inside = getattr(server, "middleware_stack", None)
        if scope["type"] == "lifespan" and inside is not None:
            server.middleware_stack = WindrowMiddleware(inside, worker=self._worker)
            self._worker.admission.drain_on_terminate()

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """Return what to send, or None where it was sent already."""
        try:
            self._worker.guard.admit(scope)  # before the body is read: who may not ask has no need to send one
        except RequestError as error:
            return self._refused(error, scope)
        path, method = scope["path"], scope["method"]
        parts = path.split("/")[2:]  # the path of `OPTIONS *` has not even one
        if path.startswith("/v1/") and path not in self._pages:
            if len(parts) == 2 and parts[0] == "ingest":
                post = method == "POST"
                return await self._ingested(parts[1], scope, receive) if post else self._not_allowed(b"POST")
            if len(parts) == 2 and parts[1] in _ACTIONS:
                post = method == "POST"
                return await self._posted(parts[0], parts[1], scope, receive) if post else self._not_allowed(b"POST")
            if len(parts) == 2 and parts[1] == "batch":
                post = method == "POST"
                return await self._streamed(parts[0], scope, receive, send) if post else self._not_allowed(b"POST")
            if len(parts) == 1 and parts[0]:
                return self._read(method, lambda: self._describe(parts[0]))
            if len(parts) == 3 and parts[0] == "requests" and parts[2] == "explanation":
                get = method in ("GET", "HEAD")
                return await self._explained(parts[1], scope) if get else self._not_allowed(b"GET, HEAD")
        return await self._page(path, scope, receive)

    async def _page(self, path: str, scope: Scope, receive: Receive) -> Reply:
        method, people = scope["method"], for_people(scope)
        if path in (LOGIN, LOGOUT):
            return await self._signing(path, scope, receive)
        if path.startswith("/ui/reports/") and method in ("GET", "HEAD"):
            return await asyncio.to_thread(self._read, method, lambda: self._report(path), people=people)
        if path.startswith(_CARDS):
            id = path.removeprefix(_CARDS)
            return await asyncio.to_thread(self._read, method, lambda: self._card(id), people=people)
        if path == "/ui/lineage":
            asked = scope.get("query_string", b"")
            return await asyncio.to_thread(self._read, method, lambda: self._lineage(asked), people=people)
        if path == READY:
            told = GRANT in scope
            await self._worker.rehearse()
            return self._read(method, lambda: Reply(200, encode(pages.readiness(self._worker, detailed=told))))
        if path in ("/", "/ui"):
            return self._read(method, lambda: self._ui.index(scope))
        if path.startswith("/ui/") and path.count("/") == 2 and path != "/ui/":
            return await self._service_page(path.removeprefix("/ui/"), scope, receive)
        page = self._pages.get(path)
        return self._read(method, page) if page else self._read("GET", _nothing_here, people=people)

    async def _service_page(self, name: str, scope: Scope, receive: Receive) -> Reply:
        method = scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            return self._not_allowed(b"GET, HEAD, POST")
        try:
            if method == "POST":
                return await self._ui.tried(name, scope, await read_body(scope, receive, kind=FORM))
            return await self._ui.shown(name, scope)
        except _GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - as for predictions, in words for people
            request_id = self._worker.plane.new_id()
            told = _told(error, request_id)
            return problem_page(told) if for_people(scope) else _unanswered(told, request_id)

    async def _posted(self, name: str, action: str, scope: Scope, receive: Receive) -> Reply:
        begin, worker = time.perf_counter(), self._worker
        kinds: tuple[str, ...] = ()
        request_id, admission = worker.plane.new_id(), worker.admission
        if admission.full:
            return self._turned_away(name, action, request_id)
        admission.in_flight += 1
        spans = worker.plane.spans
        if spans is not None:
            spans.come(request_id, scope["headers"])
        try:
            body = await read_body(scope, receive)
            kinds = _kinds(scope) if action == "predict" else ()
            if kinds:
                reply = await self._predicted(name, body, request_id=request_id, kinds=kinds)
            else:
                reply = Reply(200, await self._call(action, scope)(name, body, request_id=request_id))
        except _GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the caller gets a problem and the log a record
            reply = self._failed(name, error, request_id)
        finally:
            admission.in_flight -= 1
            if spans is not None:
                spans.gone(request_id)
        # Latencies of predictions are not those of explanations.
        self._observe(name, "explain" if kinds else action, reply.status, time.perf_counter() - begin, request_id)
        return reply

    def _observe(self, name: str, route: str, status: int, seconds: float, request_id: str) -> None:
        worker = self._worker
        service = worker.live.services.get(name)
        known, budget = ("", None) if service is None else (name, service.release.p99_ms)
        worker.metrics.observe(known, route, status, seconds)
        worker.notes.take(request_id, known, route, status, seconds, budget_ms=budget if route == "predict" else None)

    async def _predicted(self, name: str, body: bytes, *, request_id: str, kinds: tuple[str, ...]) -> Reply:
        worker, begun = self._worker, time.monotonic()
        return _maybe_later(
            await answering.predict(
                worker.plane, worker.explainer, name, body, request_id=request_id, kinds=kinds,
                services=worker.live.services, begun=begun,
            )
        )  # fmt: skip

    async def _explained(self, asked: str, scope: Scope) -> Reply:
        worker, begun = self._worker, time.monotonic()
        begin, query = time.perf_counter(), scope.get("query_string", b"")
        try:
            said = await answering.logged(worker.explainer, asked, query, worker.live.services, begun=begun)
            reply = _maybe_later(said)
        except Exception as error:  # noqa: BLE001 - as for predictions: a problem, and the traceback in our own log
            request_id = worker.plane.new_id()
            told = _told(error, request_id)
            reply = _unanswered(told, request_id)
        worker.metrics.observe("", "explanation", reply.status, time.perf_counter() - begin)
        return reply

    async def _streamed(self, name: str, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        begin, worker, reply = time.perf_counter(), self._worker, None
        if worker.admission.full:
            return self._turned_away(name, "batch", worker.plane.new_id())
        try:
            answering.refuse_kinds(scope.get("query_string", b""))
            await worker.bulk.answer(name, scope, receive, send)
        except RequestError as error:  # before the answer began: later ones are told in the stream
            reply = self._failed(name, error, worker.plane.new_id())
        known = name if name in worker.live.services else ""
        worker.metrics.observe(known, "batch", reply.status if reply else 200, time.perf_counter() - begin)
        return reply

    async def _ingested(self, name: str, scope: Scope, receive: Receive) -> Reply:
        begin, worker, retry = time.perf_counter(), self._worker, b""
        request_id = worker.plane.new_id()
        try:
            body = await read_body(scope, receive)
            reply = Reply(202, worker.ingest.accept(name, body, request_id=request_id))
        except _GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - as for predictions: a problem, and the traceback in our own log
            told = _told(error, request_id)
            retry = b"%d" % worker.retry_after if told.status in (429, 503) else b""
            reply = Reply(told.status, problem(told, request_id), _PROBLEM, retry_after=retry)
        known = name if name in worker.ingest.accepted else ""
        worker.metrics.observe(known, "ingest", reply.status, time.perf_counter() - begin)
        return reply

    def _refused(self, error: RequestError, scope: Scope) -> Reply:
        worker = self._worker
        # Counted and not logged: whoever has no key must not fill a disk.
        worker.metrics.observe("", "refused", error.status, 0.0)
        form = worker.sign_in.wanted(scope) if error.status == 401 else None
        more = error.headers if isinstance(error, RefusedError) else ()
        return form or Reply(error.status, problem(error, worker.plane.new_id()), _PROBLEM, more=more)

    async def _signing(self, path: str, scope: Scope, receive: Receive) -> Reply:
        sign_in, method = self._worker.sign_in, scope["method"]
        if method != "POST":
            return self._read(method, lambda: sign_in.page(scope)) if path == LOGIN else self._not_allowed(b"POST")
        try:
            body = await read_body(scope, receive, kind=FORM)
            return await (sign_in.enter if path == LOGIN else sign_in.leave)(scope, body)
        except _GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - as for predictions: a problem, and the traceback in our own log
            request_id = self._worker.plane.new_id()
            told = _told(error, request_id)
            return Reply(told.status, problem(told, request_id), _PROBLEM)

    def _call(self, action: str, scope: Scope) -> Callable[..., Awaitable[bytes]]:
        if action == "outcomes":
            return self._worker.plane.outcomes
        # A client that is alone gains nothing from waiting for the end of the turn.
        before, self._client = self._client, scope.get("client")
        return (self._worker.plane if before == self._client else self._worker.turn).predict

    def _failed(self, name: str, error: Exception, request_id: str) -> Reply:
        told = _told(error, request_id)
        try:
            self._worker.plane.failure(name, told, request_id=request_id)
        except Exception as second:  # noqa: BLE001 - the log is what fails here, and the caller must hear of that
            told = _told(second, request_id)
        return _unanswered(told, request_id)

    def _turned_away(self, name: str, action: str, request_id: str) -> Reply:
        # Neither read nor logged: it costs next to nothing, so that there is time for those who are answered.
        told = self._worker.admission.refusal()
        self._observe(name, action, told.status, 0.0, request_id)
        return _unanswered(told, request_id)

    def _card(self, id: str) -> Reply:
        return Reply(200, self._worker.card(id), HTML)

    def _read(self, method: str, page: Callable[[], Reply], *, people: bool = False) -> Reply:
        if method not in ("GET", "HEAD"):
            return self._not_allowed(b"GET, HEAD")
        request_id = self._worker.plane.new_id()
        try:
            return page()
        except Exception as error:  # noqa: BLE001 - as for predictions: a problem, and the traceback in our own log
            told = _told(error, request_id)
            return problem_page(told) if people else Reply(told.status, problem(told, request_id), _PROBLEM)

    def _not_allowed(self, allow: bytes) -> Reply:
        methods = allow.decode()
        error = RequestError(
            405,
            "method-not-allowed",
            f"This address answers {methods} only",
            where="method",
            next_step=f"use {methods}",
        )
        return Reply(405, problem(error, self._worker.plane.new_id()), _PROBLEM, allow)

    def _describe(self, name: str) -> Reply:
        worker = self._worker
        return Reply(200, encode(pages.describe(worker.live.service(name), worker.live, worker.plane.stages)))

    def _report(self, path: str) -> Reply:
        return Reply(200, pages.report(self._worker.reports, path), HTML)

    def _lineage(self, query: bytes) -> Reply:
        return Reply(200, lineage_page(self._worker.settings.home, query, self._worker.live), HTML)

    def _openapi(self) -> Reply:
        releases = {name: service.release for name, service in self._worker.live.services.items()}
        return Reply(200, encode(openapi(releases, self._worker.ingest.streams)))


def _kinds(scope: Scope) -> tuple[str, ...]:
    kinds = answering.asked_kinds(scope.get("query_string", b""))
    if kinds:
        require(scope[GRANT], "explain")
    return kinds


def _unanswered(told: RequestError, request_id: str) -> Reply:
    retry = _SOON if told.status in (429, 503) else b""
    return Reply(told.status, problem(told, request_id), _PROBLEM, retry_after=retry)


async def read_body(scope: Scope, receive: Receive, *, kind: bytes = _JSON) -> bytes:
    """Return the whole body.

    Raises
    ------
    RequestError
        413 for more than 1 MiB, by its announced length or while it arrives; 415 for what says that it is not
        of the `kind`; 408 if it takes too long.
    """
    _check_head(scope["headers"], kind)
    begun = receive().__await__()
    try:
        waits_for = begun.send(None)
    except StopIteration as done:
        # Most bodies come with their head: then there is nothing to wait for, and no timer to pay for.
        message = done.value
        if not message.get("more_body") and message["type"] == "http.request":
            return _checked(message.get("body", b""))
        return await _in_time(_received(receive, message))
    return await _in_time(_carried_on(begun, waits_for, receive))


def _check_head(headers: Iterable[tuple[bytes, bytes]], kind: bytes) -> None:
    for name, value in headers:
        # Counted before it is read: Python refuses to read a number of thousands of digits.
        if name == b"content-length" and (len(value) > _DIGITS or not value.isdigit() or int(value) > MAX_BODY):
            raise _too_large()
        if name == b"content-encoding" and value.strip().lower() not in _PLAIN:
            raise RequestError(
                415,
                "compressed",
                "The body is compressed",
                where="headers",
                next_step="send it without the header content-encoding, as plain JSON",
            )
        if name == b"content-type" and value != kind and value.partition(b";")[0].strip().lower() != kind:
            raise RequestError(
                415,
                "not-json" if kind is _JSON else "not-a-form",
                f"The content-type of the body is not {kind.decode()}",
                where="headers",
                next_step=f"send the header content-type: {kind.decode()}",
            )


async def _in_time(body: Coroutine[Any, Any, bytes]) -> bytes:
    try:
        async with asyncio.timeout(DEADLINE):
            return await body
    except TimeoutError:
        raise RequestError(
            408,
            "slow-body",
            f"The body did not arrive within {DEADLINE:g} s",
            next_step="send it faster, or in smaller requests",
        ) from None


async def _carried_on(begun: Generator[Any, None, Message], waits_for: Any, receive: Receive) -> bytes:
    return await _received(receive, await _Rest(begun, waits_for))


class _Rest:
    """What is left of an await that has begun and waits for something."""

    def __init__(self, begun: Generator[Any, None, Message], waits_for: Any) -> None:
        self._begun, self._waits_for = begun, waits_for

    def __await__(self) -> Generator[Any, None, Message]:
        try:
            yield self._waits_for
        except BaseException as error:
            self._begun.throw(error)
            raise
        return (yield from self._begun)


async def _received(receive: Receive, message: Message) -> bytes:
    chunks, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise _GoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise _too_large()
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()


def _checked(body: bytes) -> bytes:
    if len(body) > MAX_BODY:
        raise _too_large()
    return body


def _told(error: Exception, request_id: str) -> RequestError:
    told = as_problem(error)
    if told is not error:
        _log.error("request %s failed", request_id, exc_info=error)
    return told


def _maybe_later(said: answering.Said) -> Reply:
    later = b"%d" % answering.RETRY_AFTER if said.status == 202 else b""
    return Reply(said.status, said.body, retry_after=later)


def _too_large() -> RequestError:
    return RequestError(
        413, "body-too-large", "The body is larger than 1 MiB", where="body", next_step="send fewer rows in one request"
    )


def _nothing_here() -> Reply:
    raise RequestError(
        404,
        "no-page",
        "There is nothing at this address",
        where="path",
        next_step="see / for the services and /v1/openapi.json for their interface",
    )
