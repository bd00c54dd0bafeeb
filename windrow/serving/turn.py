"""Requests that arrive in one turn of the event loop, or in the next, are answered together: one read, one model run, one write.

It is what makes many connections cheap, because most of a prediction's time is calls whose cost hardly grows with the
rows. Nobody waits for longer than it takes to look once more at the sockets, microseconds: clients that were answered
together ask again one after another, and the last of them would else be alone in a turn of its own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from windrow.serving.plane import Ask, Plane

MOST = 64  # requests in one run of the model, so that the first does not wait long for the last

_Waiting = tuple[Ask, "asyncio.Future[bytes]"]


class Turn:
    """Puts the requests of one turn together.

    Parameters
    ----------
    plane
        Answers them.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()

    async def predict(self, name: str, body: bytes, *, request_id: str) -> bytes:
        """Return the JSON answer to the rows in `body`, as `Plane.predict` does."""
        ask = self._plane.validate(name, body, request_id=request_id)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((ask, answer))
        if len(self._waiting) == 1:
            # Runs after everything that is due in this turn: until then others may join.
            task = loop.create_task(self._answer())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await answer

    async def _answer(self) -> None:
        await asyncio.sleep(0)  # one more look at who has asked: a fifth more requests a second from eight connections
        waiting, self._waiting = self._waiting, []
        by_service: dict[int, list[_Waiting]] = defaultdict(list)
        for one in waiting:
            by_service[id(one[0].service)].append(one)
        for group in by_service.values():
            for start in range(0, len(group), MOST):
                await self._together(group[start : start + MOST])

    async def _together(self, group: Sequence[_Waiting]) -> None:
        try:
            answers = await self._plane.answer([ask for ask, _ in group])
        except Exception as error:  # noqa: BLE001 - it goes to the caller whose request it is
            await self._one_by_one(group, error)
            return
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _one_by_one(self, group: Sequence[_Waiting], error: Exception) -> None:
        """Find out whose request failed: the others are answered."""
        for one in group if len(group) > 1 else ():
            await self._together([one])
        if len(group) == 1 and not group[0][1].done():
            group[0][1].set_exception(error)
