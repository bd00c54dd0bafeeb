"""From segments to the online store: each accepted event once, with the position in one and the same transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from windrow.clock import duration
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.events import Batch, Parked, Position, Tail, listing, park, parked
from windrow.stores.ingest.fold import Unfit, declare, fold, put
from windrow.stores.ingest.judge import Event, failed_checks, judge
from windrow.stores.ingest.marks import Marks
from windrow.stores.online.load import attempt
from windrow.stores.online.store import OnlineStore
from windrow.stores.online.transaction import Transaction
from windrow.stores.segments import SegmentId

ROWS = 5_000  # of one transaction, or one frame that has more: readers of a Redis store wait for no longer one
_PRUNE = duration("1h")
_LOG = logging.getLogger("windrow.applier")

_Frames = list[tuple[Position, Batch | None]]


class Streams(Protocol):
    """Which streams are declared, and what is now for them."""

    def find(self, name: str) -> Stream | None:
        """Return the stream of a name, or None where nothing has it."""
        ...

    def heard(self, known: Mapping[str, int]) -> None:
        """Learn the latest known time of sources, before anybody can see it online."""
        ...

    def now(self) -> int | None:
        """Return the time after which nothing is shown yet, or None where there is no such time."""
        ...


class Later(Protocol):
    """Keeps what may be shown only at a later time."""

    def keep(self, worker: str, events: Sequence[Event]) -> None:
        """Keep events until their time comes; those kept already change nothing."""
        ...

    def due(self, now: int, limit: int) -> list[tuple[str, Event]]:
        """Return (worker, event) whose time has come."""
        ...

    def done(self, items: Sequence[tuple[str, Event]]) -> None:
        """Forget what is online now."""
        ...

    def restart(self, positions: Callable[[str], Position]) -> None:
        """Forget events behind the position of their worker: they are read again."""
        ...


class Applied(NamedTuple):
    """What one step did, in rows: read from segments, now online, held back until their time, parked."""

    read: int = 0
    online: int = 0
    later: int = 0
    parked: int = 0


class OnlineApplier:
    """Applies what stands in segments to the online store; one process per host at a time.

    Parameters
    ----------
    marks
        Say where this home's applier stands.
    folder
        Folder of all segments.
    online
        Opened for writing.
    streams
        Which names are declared.
    later
        Where events are kept that may not be shown yet.
    """

    def __init__(self, marks: Marks, folder: Path, online: OnlineStore, *, streams: Streams, later: Later) -> None:
        self._folder, self._online, self._streams, self._later = folder, online, streams, later
        self._tails: dict[str, Tail] = {}
        self._declared: set[tuple[str, tuple[str, ...]]] = set()
        self._pruned = 0
        self._marks = marks
        later.restart(lambda worker: marks.position(online, worker))

    def step(self) -> Applied:
        """Apply what is there, at most `ROWS` of each worker; return what was done.

        Raises
        ------
        WindrowError
            If a store cannot be used; nothing is lost, the next step tries again.
        """
        total = self._due(self._streams.now())
        found = listing(self._folder)
        for worker, own in groupby(found, key=lambda segment: segment.worker):
            total += self._worker(worker, list(own))
        gone = self._tails.keys() - {segment.worker for segment in found}
        for worker in gone:
            self._tails.pop(worker).close()
        return Applied(*map(sum, zip(*total, strict=True))) if total else Applied()

    def close(self) -> None:
        """Give the files back."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()

    def _worker(self, worker: str, own: Sequence[SegmentId]) -> list[Applied]:
        tail = self._tails.get(worker)
        if tail is None:
            tail = self._tails[worker] = Tail(self._folder, worker, self._marks.position(self._online, worker))
        before = tail.position
        frames = _some(tail, own)
        if tail.position == before:
            return []
        try:
            # Asked for when the events are here: what was accepted is known by now.
            now = self._streams.now()
            return [*self._due(now), self._apply(worker, frames, tail.position, now=now)]
        except BaseException:  # whatever it was, what was read and not applied is read again
            self._tails.pop(worker).close()
            raise

    def _apply(self, worker: str, frames: _Frames, after: Position, *, now: int | None) -> Applied:
        events, bad = self._judged(worker, frames)
        self._streams.heard(_known(events))
        later = [e for e in events if now is not None and max(e.event_time, e.known_at) > now]
        ready = [e for e in events if now is None or max(e.event_time, e.known_at) <= now]
        self._later.keep(worker, later)
        marks = {**self._marks.moved(worker, after, (batch for _, batch in frames)), **self._marks.showing(now)}
        online, unfit = self._commit(worker, ready, marks)
        rows = sum(len(batch.rows) for _, batch in frames if batch)
        return Applied(rows, online, len(later), bad + unfit)

    def _judged(self, worker: str, frames: _Frames) -> tuple[list[Event], int]:
        """Return the rows that can be applied; the others are parked before anything of them is lost."""
        events, bad = list[Event](), dict[int, list[Parked]]()
        for (number, offset), batch in frames:
            if batch is None:
                _LOG.error("a frame of segment %s-%d cannot be read", worker, number)
                continue
            found, wrong = judge(batch, self._streams.find(batch.name), (number, offset))
            events += found
            bad.setdefault(number, []).extend(wrong)
        events, failed = _checked(events)
        for event, reason in failed:
            bad.setdefault(event.number, []).append(Parked(event.offset, event.row, reason))
        before = {n: parked(self._folder, SegmentId(worker, n)) for n in {e.number for e in events} | set(bad)}
        for number, rows in bad.items():
            park(self._folder, SegmentId(worker, number), [r for r in rows if (r.offset, r.row) not in before[number]])
        # What was parked before this process died stays parked.
        kept = [e for e in events if (e.offset, e.row) not in before[e.number]]
        return kept, sum(map(len, bad.values())) + len(events) - len(kept)

    def _commit(self, worker: str, events: list[Event], marks: Mapping[str, bytes]) -> tuple[int, int]:
        """Apply events and move the marks, all or nothing; return how many rows are online, and how many were parked."""
        unfit = 0
        while True:
            try:
                self._declare(events)
                return attempt(self._online, partial(_write, events=events, marks=marks)), unfit
            except Unfit as error:
                for segment, rows in error.parked(worker).items():
                    park(self._folder, segment, rows)
                    unfit += len(rows)
                events = [event for event in events if event not in error.events]

    def _declare(self, events: Iterable[Event]) -> None:
        for stream in {event.stream.name: event.stream for event in events}.values():
            reason = declare(self._online, stream, self._declared)
            if reason:
                raise Unfit([event for event in events if event.stream.name == stream.name], reason)

    def _due(self, now: int | None) -> list[Applied]:
        """Apply what was held back and whose time has come."""
        done = list[Applied]()
        if now is None:
            return done
        while items := self._later.due(now, ROWS):
            for worker, group in groupby(items, key=lambda item: item[0]):
                # An event of a later time was judged when it came; what cannot be applied now is told and dropped.
                self._commit_due(worker, [event for _, event in group], now)
            self._later.done(items)
            done.append(Applied(online=len(items)))
        self._prune(now)
        return done

    def _commit_due(self, worker: str, events: list[Event], now: int) -> None:
        def work(txn: Transaction) -> int:
            # They leave the other store after this transaction: if the process dies between, they come again.
            names = [f"{self._marks.home}-{worker}-{e.number}-{e.offset}-{e.row}" for e in events]
            fresh = [e for e, id_ in zip(events, names, strict=True) if not txn.seen(_LATER, id_, now + _PRUNE)]
            return _write(txn, fresh, self._marks.showing(now))

        try:
            self._declare(events)
            attempt(self._online, work)
        except Unfit as error:
            _LOG.error("%d events that were held back cannot be applied: %s", len(error.events), error.reason)
            self._commit_due(worker, [event for event in events if event not in error.events], now)

    def _prune(self, now: int) -> None:
        if now < self._pruned + _PRUNE:
            return
        self._pruned = now
        for name in {_LATER, *(stream for stream, _ in self._declared)}:
            while attempt(self._online, partial(Transaction.prune, name=name, now=now)):
                pass


_LATER = "ingest-later"


def _some(tail: Tail, own: Sequence[SegmentId]) -> _Frames:
    frames, rows = list[tuple[Position, Batch | None]](), 0
    for place, batch in tail.read(own):
        frames.append((place, batch))
        rows += len(batch.rows) if batch else 0
        if rows >= ROWS:
            break
    return frames


def _known(events: Sequence[Event]) -> dict[str, int]:
    known: dict[str, int] = {}
    for event in events:
        latest = max(event.event_time, event.known_at)
        for source in event.stream.sources:
            known[source] = max(known.get(source, latest), latest)
    return known


def _checked(events: list[Event]) -> tuple[list[Event], list[tuple[Event, str]]]:
    """Split off the rows that fail their group's own checks."""
    failed: list[tuple[Event, str]] = []
    for stream in {e.stream.name: e.stream for e in events if e.stream.checks}.values():
        own = [event for event in events if event.stream.name == stream.name]
        failed += [(own[place], reason) for place, reason in failed_checks(own).items()]
    if not failed:
        return events, []
    wrong = {(event.number, event.offset, event.row) for event, _ in failed}
    return [e for e in events if (e.number, e.offset, e.row) not in wrong], failed


def _write(txn: Transaction, events: Sequence[Event], marks: Mapping[str, Any]) -> int:
    written = 0
    for stream in {event.stream.name: event.stream for event in events}.values():
        own = [event for event in events if event.stream.name == stream.name]
        written += put(txn, own) if stream.kind == "group" else fold(txn, own)
    for name, value in marks.items():
        txn.set_mark(name, value)
    return written
