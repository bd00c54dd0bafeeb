"""The explainer of a worker: asks the side process, waits as long as it may, and keeps what comes.

What is not there in time goes on being made; whoever has the ticket asks again. Explanations are kept for an hour and
rows for ten minutes, in memory only and without keys of anybody, so that forgetting an entity need not look here.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from functools import partial

import msgspec

from windrow.errors import RequestError
from windrow.serving.explaining.messages import Logged, Question, chosen, key_of
from windrow.serving.explaining.side import SideProcess
from windrow.serving.kept import Kept
from windrow.settings import Settings
from windrow.stores.log import LogRecord

_EXPLANATIONS, _ROWS = 2048, 1024
_HOUR, _TICKET, _FAILED = 3600.0, 600.0, 5.0  # seconds that an explanation, a row and an error are kept

_Key = bytes | tuple[str, int]


class Explainer:
    """Explanations of one worker; for the event loop's thread.

    Parameters
    ----------
    settings
        Where registry, releases and log are.
    """

    def __init__(self, settings: Settings) -> None:
        self.side = SideProcess(settings)
        self._done: Kept[bytes | RequestError] = Kept(_EXPLANATIONS)
        self._rows: Kept[list[LogRecord]] = Kept(_ROWS)
        self._coming: dict[_Key, Future[bytes]] = {}

    def remember(self, request_id: str, records: list[LogRecord]) -> None:
        """Keep the rows of a request, so that its tickets need not look into the log."""
        self._rows.put(request_id, records, seconds=_TICKET)

    async def logged(self, request_id: str, row: int, *, until: float) -> Logged | None:
        """Return a row of a request that was answered, or None if the log was not read in time.

        Raises
        ------
        RequestError
            404 for an unknown request or row, 409 for a request that failed.
        """
        records = self._rows.get(request_id)
        if records is not None:
            return chosen(records, row)
        found = await self._made((request_id, row), Question(0, "find", request_id=request_id, row=row), until)
        return None if found is None else msgspec.msgpack.decode(found, type=Logged)

    async def explanation(self, row: Logged, kind: str, *, until: float) -> bytes | None:
        """Return the JSON of an explanation, or None if it is not there in time (of `time.monotonic`).

        Raises
        ------
        RequestError
            If there is none: what the side process says, or 503.
        """
        question = Question(0, "explain", release=row.release, kind=kind, vector=row.vector)
        return await self._made(key_of(row.release, kind, row.vector), question, until)

    def close(self) -> None:
        """End the side process."""
        self.side.close()

    async def _made(self, key: _Key, question: Question, until: float) -> bytes | None:
        done = self._done.get(key)
        if done is None:
            coming = asyncio.wrap_future(self._coming.get(key) or self._asked(key, question))
            await asyncio.wait([coming], timeout=max(0.0, until - time.monotonic()))
            coming.cancel()  # this waiting only: the side process goes on
            done = self._done.get(key)
        if isinstance(done, RequestError):
            raise done
        return done

    def _asked(self, key: _Key, question: Question) -> Future[bytes]:
        coming = self._coming[key] = self.side.ask(question)
        coming.add_done_callback(partial(self._keep, key))
        return coming

    def _keep(self, key: _Key, coming: Future[bytes]) -> None:
        """Called by the thread of the side process when an answer is there."""
        error = coming.exception()
        if error is None:
            self._done.put(key, coming.result(), seconds=_HOUR if isinstance(key, bytes) else _TICKET)
        else:
            told = error if isinstance(error, RequestError) else _failed()
            # For a moment: whoever asks again with a ticket must hear of it. What took too long would do so again.
            self._done.put(key, told, seconds=_TICKET if told.status == 504 else _FAILED)
        self._coming.pop(key, None)


def _failed() -> RequestError:
    return RequestError(500, "explanation-failed", "The explanation failed", next_step="ask for another kind")
