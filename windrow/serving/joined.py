"""The head of an answer and the beginning of its body in one write: one system call and one packet where uvicorn makes two."""

from __future__ import annotations

import asyncio

_CONTINUE = b"HTTP/1.1 100"


class JoinedTransport:
    """What one answer is written to, in the place of its connection's transport.

    Parameters
    ----------
    transport
        That one. Nothing here knows who writes: a circle of references would have to be found by garbage collection,
        for every request.
    loop
        The event loop, at whose next turn a head is written alone if nothing followed it: a client may wait for it.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Write `data`; a head waits for what follows it in this turn, unless it only asks for the body of the request."""
        if self._head is None and not data.startswith(_CONTINUE):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection ends."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""
