"""How long a connection may keep the server waiting: uvicorn's own HTTP protocol, with an end to its patience.

uvicorn bounds only the pause between two requests. A head that never ends, the rest of a body that was refused already and
an answer that nobody reads would each be waited for without end, and a head may be of any length.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from windrow.errors import RequestError
from windrow.serving.answers import problem
from windrow.serving.joined import JoinedTransport

HEAD_SECONDS = 5.0  # for a head to arrive, and for what still comes of a body after its answer
READ_SECONDS = 30.0  # for a client to take any of its answer: it may be writing to a slow disk
LOOK_SECONDS = 1.0
MAX_HEAD = 1 << 16

_STATUS_LINES = {400: b"HTTP/1.1 400 Bad Request\r\n", 431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n"}


def limit_patience() -> None:
    """Make the uvicorn that BentoML starts in this process use `PatientProtocol`: BentoML hands no such option on."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{PatientProtocol.__name__}"


class PatientProtocol(HttpToolsProtocol):
    """One connection that is looked at every second, and closed if it has waited for the same thing too long.

    Requests pay for none of it but the count of a head that comes in pieces.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        # uvicorn asks for handlers alone, makes a line of each request, and finds only then that nobody reads it.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._head = 0
        self._awaited: tuple[Any, ...] | None = None
        self._since = 0.0
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; a head without end is refused with 431."""
        self._head += len(data)
        super().data_received(data)
        if not self._in_head():
            self._head = 0
        elif self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(_head_too_large())

    def on_headers_complete(self) -> None:
        """Begin a request; a head that is too large and came at once is refused too."""
        if self._head > MAX_HEAD and len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > MAX_HEAD:
            raise _head_too_large()  # the parser tells `send_400_response` that something went wrong, not what
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        joined = JoinedTransport(cycle.transport, self.loop)
        cycle.transport = joined  # type: ignore[assignment]  # all that a cycle uses of one
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Say in our own form that this is not HTTP; where an answer has begun, only its end can say so."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        if self._head > MAX_HEAD and self._in_head():
            self._refuse(_head_too_large())
            return
        step = "send HTTP/1.1: one content-length or whole chunks, and an address and headers of legal characters"
        self._refuse(RequestError(400, "not-http", "The request is not valid HTTP", next_step=step))

    def _refuse(self, error: RequestError) -> None:
        body = problem(error, "")
        head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(_STATUS_LINES[error.status] + head + body)
        self.transport.close()

    def _in_head(self) -> bool:
        # Every head has a scope of its own, which its cycle takes over: after an answer the rest of a body may still come.
        return self.cycle is None or self.cycle.scope is not self.scope

    def _look(self) -> None:
        now, (awaited, seconds) = self.loop.time(), self._waits()
        if awaited is None or awaited != self._awaited:
            self._awaited, self._since = awaited, now
        elif now - self._since >= seconds:
            self.transport.abort()
            return
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def _waits(self) -> tuple[tuple[Any, ...] | None, float]:
        """Return what this connection waits for, if it is the client's turn; and how long it may."""
        if self.transport.get_write_buffer_size():
            return ("reader", self.transport.get_write_buffer_size()), READ_SECONDS
        if self.transport.is_closing():
            return ("end",), HEAD_SECONDS
        answered = self.cycle is None or self.cycle.response_complete
        # Between two requests uvicorn keeps a timer of its own.
        if answered and self.timeout_keep_alive_task is None:
            return ("head", self.cycle), HEAD_SECONDS
        return None, 0.0


def _head_too_large() -> RequestError:
    what, step = "The address and the headers are larger than 64 KiB", "send what is long in the body"
    return RequestError(431, "head-too-large", what, where="headers", next_step=step)
