"""Answers of any length to bodies of any length: rows are read, predicted, logged and answered a chunk at a time.

What holds for one prediction holds for each row: the same plane, the same log before the answer, the same problems. A row that
cannot be answered gets a line that says why, and the stream goes on. What concerns all rows (a store that is away, a key
that was revoked, a service that is being stopped) ends it, with a line that says so. A client has to read while it sends:
nothing is kept for later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from windrow.errors import RefusedError, RequestError
from windrow.serving.admission import Admission
from windrow.serving.answers import as_problem
from windrow.serving.forms import ARROW, NDJSON, Answered, Failed, Form
from windrow.serving.guard import GRANT, Guard
from windrow.serving.keyring import Grant
from windrow.serving.lines import Lines
from windrow.serving.live import LiveService, LiveServices
from windrow.serving.plane import Ask, Plane
from windrow.serving.requests import Rows

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST = 32  # rows between two looks at what else there is to do: about 1 ms
TURNS = 3  # of the event loop, in between: a prediction takes that many
STREAMS = 8
STALL_SECONDS, LOOK_SECONDS = 30.0, 0.5

_ENDING = (401, 403, 429, 503)  # not the row's fault: the next one would be told the same
_clock = time.perf_counter_ns
_log = logging.getLogger("windrow.serving")


class _Said(msgspec.Struct, gc=False):
    """The plane's answer, with each prediction as it is."""

    request_id: str
    release: str
    now: str
    predictions: list[msgspec.Raw]


_read_said = msgspec.json.Decoder(_Said).decode


class Bulk:
    """Streams the answers to one long request after another.

    Parameters
    ----------
    services, plane, guard, admission
        Of the worker.
    """

    def __init__(self, services: LiveServices, plane: Plane, guard: Guard, admission: Admission) -> None:
        self._services, self._plane, self._guard, self._admission = services, plane, guard, admission
        self._one_chunk = asyncio.Lock()  # of all streams: others wait for one chunk, however many streams there are
        self._streams = 0

    async def answer(self, name: str, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer the rows of one request while they arrive.

        Raises
        ------
        RequestError
            Before the answer begins: 404 for no such service, 415 for another form, 429 for too many streams.
        """
        self._services.service(name)
        form = await _form(scope["headers"])
        if self._streams >= STREAMS:
            raise _too_many()
        self._streams += 1
        self._admission.in_flight += 1
        try:
            await self._streamed(_Stream(name, form, scope[GRANT], send), receive)
        except _HungUpError:
            pass  # what was logged stays logged
        finally:
            self._streams -= 1
            self._admission.in_flight -= 1

    async def _streamed(self, stream: _Stream, receive: Receive) -> None:
        form = stream.form
        try:
            async for piece in _pieces(receive, self._admission):
                await stream.begin()
                form.feed(piece)
                await self._answer_all(stream)
            form.finish()
            await self._answer_all(stream)
        except _HungUpError:
            raise
        except Exception as error:  # noqa: BLE001 - the answer has begun: its last line is where a problem can be told
            await stream.begin()
            await stream.send(form.tell([self._ended(stream, error)]))
        await stream.end()

    async def _answer_all(self, stream: _Stream) -> None:
        while rows := stream.form.take(MOST):
            if self._admission.draining:
                raise self._admission.refusal()
            await self._pay(stream.grant)
            async with self._one_chunk:
                told = await self._chunk(stream, rows)
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            await stream.send(stream.form.tell(told))
            stream.next = rows[-1][0] + 1

    async def _pay(self, grant: Grant) -> None:
        """Take one request from the key's rate for each chunk; who has used it up is answered more slowly."""
        if not self._guard.insecure and self._guard.keyring.valid(grant.id) is None:
            raise RefusedError(401, "no-key", "The access key is not valid any more", next_step="use another key")
        while wait := grant.spend(time.monotonic_ns()):
            await asyncio.sleep(wait / 1e9)

    async def _chunk(self, stream: _Stream, rows: Sequence[tuple[int, Any]]) -> list[Answered | Failed]:
        begun, service = _clock(), self._services.service(stream.name)
        good: list[tuple[int, Rows]] = []
        failed: list[Failed] = []
        for line, row in rows:
            try:
                good.append((line, stream.form.read(service.reader, row)))
            except RequestError as error:
                failed.append(self._failed(stream.name, line, error))
        answered = await self._asked(service, good, begun) if good else []
        return sorted([*answered, *failed], key=lambda one: one.line) if failed else answered

    async def _asked(
        self, service: LiveService, good: Sequence[tuple[int, Rows]], begun: int
    ) -> list[Answered | Failed]:
        rows = Rows([one.values[0] for _, one in good], [one.times[0] for _, one in good])
        try:
            answers = await self._plane.answer([Ask(self._plane.new_id(), service, rows, begun, _clock())])
        except RequestError as error:
            if error.status in _ENDING:
                raise
            if len(good) == 1:
                return [self._failed(service.name, good[0][0], error)]
            half = len(good) // 2  # one of them is wrong: find it, and answer the others
            return [*await self._asked(service, good[:half], begun), *await self._asked(service, good[half:], begun)]
        said = _read_said(answers[0])
        id, release, now = said.request_id, said.release, said.now
        return [
            Answered(line, id, row, release, now, prediction)
            for row, ((line, _), prediction) in enumerate(zip(good, said.predictions, strict=True))
        ]

    def _failed(self, name: str, line: int, error: RequestError) -> Failed:
        request_id = self._plane.new_id()
        self._plane.failure(name, error, request_id=request_id)
        return Failed(line, request_id, error)

    def _ended(self, stream: _Stream, error: Exception) -> Failed:
        told, request_id = as_problem(error), self._plane.new_id()
        if told is not error:
            _log.error("request %s failed", request_id, exc_info=error)
        return Failed(stream.next, request_id, told, ended=True)


class _HungUpError(Exception):
    """The client is gone."""


class _Stream:
    """One request that is being answered: `next` is the first row without an answer."""

    def __init__(self, name: str, form: Form, grant: Grant, send: Send) -> None:
        self.name, self.form, self.grant, self._send = name, form, grant, send
        self.next = 0
        self._begun = False

    async def begin(self) -> None:
        """Send the head; not before something came, because a client may wait to be told to go on."""
        if not self._begun:
            self._begun = True
            headers = [(b"content-type", self.form.kind)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, data: bytes) -> None:
        """Send a part of the answer, as soon as the client takes it."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Send the end of the answer."""
        await self._send({"type": "http.response.body", "body": self.form.end()})


async def _pieces(receive: Receive, admission: Admission) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await _next(receive, admission)
        if message["type"] == "http.disconnect":
            raise _HungUpError
        more = message.get("more_body", False)
        yield message.get("body", b"")


async def _next(receive: Receive, admission: Admission) -> Message:
    """Return what comes next; a client that sends nothing must not hold up a worker that is to end."""
    end = time.monotonic() + STALL_SECONDS
    while time.monotonic() < end:
        if admission.draining:
            raise admission.refusal()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return await receive()
    what = f"Nothing has arrived for {STALL_SECONDS:g} s"
    raise RequestError(408, "slow-body", what, next_step="send the rest in another request")


async def _form(headers: Sequence[tuple[bytes, bytes]]) -> Form:
    kind = NDJSON
    for name, value in headers:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            step = "send it without the header content-encoding"
            raise RequestError(415, "compressed", "The body is compressed", where="headers", next_step=step)
    if kind == NDJSON:
        return Lines()
    if kind == ARROW:
        return await asyncio.to_thread(_arrow)
    forms = f"{NDJSON.decode()} or {ARROW.decode()}"
    what, step = f"The content-type of the body is not {forms}", "send one row per line, as application/x-ndjson"
    raise RequestError(415, "not-a-stream", what, where="headers", next_step=step)


def _arrow() -> Form:
    # Half a second and 60 MB that a worker without such requests is spared; and an image may not have it.
    try:
        from windrow.serving.arrow import Batches
    except ImportError:
        what, step = "This service is installed without pyarrow", "send application/x-ndjson, or install pyarrow there"
        raise RequestError(415, "no-arrow", what, where="headers", next_step=step) from None
    return Batches()


def _too_many() -> RequestError:
    what, step = f"{STREAMS} streams are being answered already", "try again when one of them has ended"
    return RequestError(429, "too-many-streams", what, next_step=step)
