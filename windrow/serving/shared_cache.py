"""Outputs kept on a Redis server for all workers. One that does not answer at once is left alone: its outputs are made."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from windrow.serving.answers import Output
from windrow.serving.breaker import THRESHOLD, Breaker
from windrow.stores.redis_server import redis_client

SECONDS = 0.02  # that the worker, and so all its requests, waits for it
_decode = msgspec.msgpack.Decoder(float | list[float]).decode
_log = logging.getLogger("windrow.serving")


class RedisOutputs:
    """Outputs by the digest of their packed key.

    Parameters
    ----------
    url
        ``redis://[:password@]host:port/db`` or ``unix://[:password@]/path?db=N``; the server need not be there yet.

    Attributes
    ----------
    breaker
        Counts its failures; while it is open, nothing is asked.
    """

    def __init__(self, url: str) -> None:
        self._client, place = redis_client(
            url, variable="WINDROW_CACHE", socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=None,
            health_check_interval=0,
        )  # fmt: skip
        import redis

        self._start, self.breaker = place.key("windrow", ":cache:").encode(), Breaker()
        self._failures, self._slow = (redis.RedisError, OSError), redis.TimeoutError

    def get(self, keys: Sequence[bytes]) -> list[Output | None]:
        """Return what is kept under each key, None where nothing is or nobody answers."""
        found = self._asked(lambda: self._client.mget([self._place(key) for key in keys]))
        return [_read(raw) for raw in found] if found else [None] * len(keys)

    def put(self, keys: Sequence[bytes], outputs: Sequence[Output], *, seconds: float) -> None:
        """Keep outputs for some time."""
        pipe = self._client.pipeline(transaction=False)
        for key, output in zip(keys, outputs, strict=True):
            pipe.set(self._place(key), msgspec.msgpack.encode(output), px=max(1, round(seconds * 1000)))
        self._asked(pipe.execute)

    def _place(self, key: bytes) -> bytes:
        return self._start + hashlib.sha256(key).digest()  # short, and nothing of a request can be read from it

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """Return what the server says, None where it says nothing in time."""
        if self.breaker.failures and not self.breaker.allows():
            return None
        try:
            found = ask()
        except self._failures as error:
            self.breaker.failed(times=THRESHOLD if isinstance(error, self._slow) else 1)
            if self.breaker.failures == THRESHOLD:
                _log.warning("the cache of outputs does not answer: %s", type(error).__name__)
            return None
        if self.breaker.failures:
            self.breaker.succeeded()
        return found


def _read(raw: bytes | None) -> Output | None:
    if raw is None:
        return None
    try:
        found: Output = _decode(raw)
    except msgspec.MsgspecError:  # written by somebody else: it is made again
        return None
    return found
