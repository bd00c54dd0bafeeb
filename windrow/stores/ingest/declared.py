"""What the applier knows of the project: which streams there are, what time it is for them, and what they hold by now."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from windrow.clock import Clock
from windrow.stores.ingest.catalogue import Stream, recorded
from windrow.stores.metadata import Metadata, Span

if TYPE_CHECKING:
    from windrow.stores.ingest.lake import Committed

_SETTLES = 0.15  # seconds until every worker has read the new time: three of its polls
_SPAN_SECONDS = 60.0


class Declared:
    """The streams of one home, read again when the metadata change.

    Parameters
    ----------
    metadata
        Holds the catalogue and the spans of the sources.
    clock
        What now is. With ``data`` it is the latest known time, which events move on; then nothing is held back.
    """

    def __init__(self, metadata: Metadata, clock: Clock) -> None:
        self._metadata, self.clock = metadata, clock
        self._streams: dict[str, Stream] = {}
        self._seen: int | None = None
        self._waiting: dict[str, tuple[str, Span]] = {}
        self._told: dict[str, float] = {}
        self._lock = threading.RLock()  # the lake's thread and the online one ask alike

    def find(self, name: str) -> Stream | None:
        """Return the stream of a name, or None where nothing has it."""
        with self._lock:
            counter = self._metadata.change_counter()
            if counter != self._seen or name not in self._streams:
                self._streams = recorded(self._metadata)
                self._seen = counter
            return self._streams.get(name)

    def names(self) -> list[str]:
        """Return the names that events can be sent to."""
        self.find("")
        return sorted(self._streams)

    def arrival(self, stream: Stream) -> int:
        """Return when an event of a stream that comes now can be known, UTC microseconds of the clock."""
        if self.clock.kind != "data":
            return self.clock.now(lambda: 0)
        spans = self._metadata.spans()
        return max((spans[name].known for name in stream.sources if name in spans), default=0)

    def now(self) -> int | None:
        """Return UTC microseconds, or None with the clock ``data``."""
        return None if self.clock.kind == "data" else self.clock.now(lambda: 0)

    def heard(self, known: Mapping[str, int]) -> None:
        """Move the clock ``data`` on before events can be seen: a request asks about now, and never about the past."""
        if self.clock.kind != "data" or not known:
            return
        with self._lock:
            spans = self._metadata.spans()
            ahead = {name: time for name, time in known.items() if name not in spans or spans[name].known < time}
            for name, latest in ahead.items():
                self._record(name, spans.get(name), Span(latest, latest, latest, 0))
        if ahead:
            time.sleep(_SETTLES)

    def committed(self, made: Sequence[Committed]) -> None:
        """Remember what the sources hold now; at most once a minute each, because every record is a row for ever."""
        with self._lock:
            for one in made:
                if one.stream.kind == "source" and one.rows:
                    name, added = one.stream.name, Span(one.first, one.last, one.known, one.rows)
                    self._waiting[name] = one.stream.key, merged(self._waiting.get(name, ("", None))[1], added)
            self._write(only_due=True)

    def close(self) -> None:
        """Write what was not written yet."""
        with self._lock:
            self._write(only_due=False)

    def _write(self, *, only_due: bool) -> None:
        now = time.monotonic()
        due = [n for n in self._waiting if not only_due or now >= self._told.get(n, -math.inf) + _SPAN_SECONDS]
        spans = self._metadata.spans() if due else {}
        for name in due:
            key, added = self._waiting.pop(name)
            self._record(name, spans.get(name), added)
            self._metadata.record_definition(streamed(key), "streamed", {"streamed": True})
            self._told[name] = now

    def _record(self, name: str, before: Span | None, added: Span) -> None:
        self._metadata.record_span(name, **merged(before, added)._asdict())


def merged(before: Span | None, added: Span) -> Span:
    """Return the span of both.

    Examples
    --------
    >>> merged(Span(5, 9, 9, 3), Span(2, 7, 12, 1))
    Span(first=2, last=9, known=12, rows=4)
    """
    if before is None:
        return added
    first, last = min(before.first, added.first), max(before.last, added.last)
    return Span(first, last, max(before.known, added.known), before.rows + added.rows)


def streamed(key: str) -> str:
    """Return the name under which the metadata say that a table of the lake has rows that came as events."""
    return f"{key}/streamed"
