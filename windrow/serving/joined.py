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
    joins
        Whether a body follows the head: none does in an answer to HEAD.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport, *, joins: bool) -> None:
        self._transport = transport
        self._head: bytes | None = None if joins else b""

    def write(self, data: bytes) -> None:
        """Write `data`; a head waits for what follows it, unless it only asks for the body of the request."""
        if self._head is None and not data.startswith(_CONTINUE):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        """Write what waits, and close."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection ends."""
        return self._transport.is_closing()
