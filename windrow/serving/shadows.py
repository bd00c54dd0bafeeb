"""Releases that are asked what others answer, after the answer has left, and of whom only the log hears.

A shadow under the contract of the release that answered gets the very vector that was served. One under another
contract reads its features some milliseconds later, for the time that the request asked about: what was written to its
groups in between is after that time, and then it has no answer (`asks-about-the-past`), never one from the future.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from windrow.serving.answers import as_problem, place_of
from windrow.serving.batch import Batch, Scored, asked
from windrow.serving.dispatcher import SHADOW, Route
from windrow.serving.live import LiveService
from windrow.stores.log import LogRecord

MOST_ROWS = 2000
"""That wait: beyond it rows are dropped, and counted."""
DELAY = 0.002  # seconds: the answers of this turn of the event loop are on their way by then

_log = logging.getLogger("windrow.serving")


class _Job(msgspec.Struct, frozen=True, gc=False):
    batch: Batch
    scored: Scored


class Shadows:
    """Asks shadows one after the other, requests that come in first; what they say goes to the log.

    Parameters
    ----------
    append
        Writes records to the prediction log.

    Attributes
    ----------
    counts
        (service, release, what became of it) -> rows: ``logged``, ``failed``, ``dropped``.
    """

    def __init__(self, append: Callable[[Sequence[LogRecord]], None]) -> None:
        self._append = append
        self._jobs: deque[_Job] = deque()
        self._rows = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.counts: Counter[tuple[str, str, str]] = Counter()

    @property
    def waiting(self) -> int:
        """How many rows wait for their shadows."""
        return self._rows

    def offer(self, batch: Batch, scored: Scored) -> None:
        """Take the rows of an answered part, if a shadow listens to any; never raises, never waits."""
        routes = scored.part.routes
        if routes is None or not any(route.shadows for route in routes):
            return
        if self._rows + len(routes) > MOST_ROWS:
            for shadow, places in _listening(routes):
                self.counts[batch.service.name, shadow.release.id, "dropped"] += len(places)
            return
        self._rows += len(routes)
        self._jobs.append(_Job(batch, scored))
        self._wake()

    async def drained(self) -> None:
        """Return when nobody waits any more."""
        while self._jobs or self._task is not None:
            await asyncio.sleep(DELAY)

    def close(self) -> None:
        """Drop what waits, and count it."""
        while self._jobs:
            job = self._jobs.popleft()
            for shadow, places in _listening(job.scored.part.routes or ()):
                self.counts[job.batch.service.name, shadow.release.id, "dropped"] += len(places)
        self._rows = 0

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the first request, or that of another server in this process
            self._loop, self._task = loop, None
        if self._task is None:
            self._task = loop.create_task(self._work())

    async def _work(self) -> None:
        try:
            await asyncio.sleep(DELAY)
            while self._jobs:
                job = self._jobs.popleft()
                for shadow, places in _listening(job.scored.part.routes or ()):
                    await self._ask(shadow, job, places)
                    await asyncio.sleep(0)  # requests first
                self._rows -= len(job.scored.part.places)
        finally:
            self._task = None

    async def _ask(self, shadow: LiveService, job: _Job, places: Sequence[int]) -> None:
        told, records = (job.batch.service.name, shadow.release.id), _silent(shadow, job, places)
        become = "logged"
        try:
            await _answered(shadow, job, places, records)
        except Exception as error:  # noqa: BLE001 - whatever a shadow does, nobody but the log is told
            become, problem = "failed", as_problem(error)
            for record in records:
                record.status, record.error = problem.status, problem.kind
            _log.warning("shadow %s has no answer: %s", shadow.release.id, error)
        try:
            self._append(records)
        except Exception:  # noqa: BLE001 - the answers were logged; that a shadow's cannot be is counted
            become = "failed"
            _log.exception("shadow %s cannot be logged", shadow.release.id)
        self.counts[*told, become] += len(records)


async def _answered(shadow: LiveService, job: _Job, places: Sequence[int], records: Sequence[LogRecord]) -> None:
    """Put the shadow's vectors and outputs into the records."""
    batch, part = job.batch, job.scored.part
    if part.service.inputs == shadow.inputs and not job.scored.answers.stored:
        vectors = job.scored.answers.vectors.take(places)
    else:
        rows = [part.places[at] for at in places]
        vectors = shadow.transformer.vectors([batch.values[i] for i in rows], [batch.times[i] for i in rows])
    outputs = await shadow.predictor.predict(vectors)
    for at, record in enumerate(records):
        record.vector = shadow.recorder.vector(vectors.lists[at], finite=vectors.finite[at])
        record.statuses = shadow.recorder.statuses(vectors.statuses[at])
        record.output = place_of(outputs[at])


def _listening(routes: Sequence[Route[LiveService]]) -> Iterator[tuple[LiveService, list[int]]]:
    """Yield each shadow with the rows it is asked about."""
    found: dict[int, tuple[LiveService, list[int]]] = {}
    for at, route in enumerate(routes):
        for shadow, _ in route.shadows:
            found.setdefault(id(shadow), (shadow, []))[1].append(at)
    yield from found.values()


def _silent(shadow: LiveService, job: _Job, places: Sequence[int]) -> list[LogRecord]:
    """Return the shadow's records before it has said anything."""
    part, received = job.scored.part, time.time_ns() // 1000
    routes = part.routes or []
    made = []
    for at in places:
        record = asked(job.batch, part.places[at], received=received)
        record.kind, record.release = SHADOW, shadow.release.id
        record.arms = dict.fromkeys(next(who for one, who in routes[at].shadows if one is shadow), SHADOW)
        made.append(record)
    return made
