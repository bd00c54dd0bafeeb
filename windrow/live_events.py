"""Events as they happened: each becomes known in its order, and a prediction is asked for when its row comes.

This is how the demo proves the one rule on a service whose features follow a stream: what was served between two
events must equal what the point-in-time join says afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from windrow.clock import to_micros
from windrow.errors import DeclarationError, StoreError
from windrow.features.aggregate import AggregateGroup
from windrow.live_hours import Tape
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.engine import engine
from windrow.stores.ingest.events import FOLDER, Position, listing
from windrow.stores.ingest.marks import Marks
from windrow.stores.online.store import open_online
from windrow.stores.segments import MAGIC, OPEN, SEALED

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from windrow.features.source import Source
    from windrow.models.service import PredictionService
    from windrow.orchestrate.resources import Stores
    from windrow.stores.online.store import OnlineStore
    from windrow.traffic import Sender

_PATIENCE = 60.0  # seconds until an accepted event must be online

Entity = tuple[str, tuple[Any, ...]]
"""A group's table and a key of it."""


class Event(NamedTuple):
    """One row of a source: when it was known, whose states it enters, and what is sent."""

    eff: int
    source: str
    entities: tuple[Entity, ...]
    row: dict[str, Any]


class Live:
    """Brings what a view reads online in the order in which it became known, as a running service is fed.

    Rows of groups are written; events are sent to ``/v1/ingest``, and before a row is asked about that reads what they
    enter, they are waited for.

    Parameters
    ----------
    online
        URL of the store that the running service reads; what is visible at `after` is in it.
    after, until
        UTC microseconds: what became known in between is played.

    Attributes
    ----------
    sent
        How many events were sent.
    """

    def __init__(
        self, service: PredictionService, stores: Stores, sender: Sender, *, online: str, after: int, until: int
    ) -> None:
        self._service, self._sender = service, sender
        self._folder: Path = stores.settings.folder(FOLDER)
        self._events = _events(service, stores, after=after, until=until)
        stored = [g for g in service.view.groups if not isinstance(g, AggregateGroup) and g.external is None]
        self._tapes = [Tape(group, stores.lake, after=after, until=until) for group in stored]
        self._store, self._marks = open_online(online, write=True), Marks(self._folder)
        self._reads = _reads(service)
        self._dirty: set[Entity] = set()
        self.sent = 0

    def until(self, moment: int) -> None:
        """Bring online, or send, what became known up to a moment."""
        for tape in self._tapes:
            tape.play(self._store, moment)
        while self.sent < len(self._events) and self._events[self.sent].eff <= moment:
            event = self._events[self.sent]
            self._sender.ingest(event.source, event.row)
            self._dirty.update(event.entities)
            self.sent += 1

    def settle(self, row: dict[str, Any]) -> None:
        """Wait until every event is online that enters what a row reads; most rows wait for none."""
        if self._dirty.intersection((table, tuple(row[key] for key in keys)) for table, keys in self._reads):
            self.drain()

    def drain(self) -> None:
        """Wait until every event that was sent is online.

        Raises
        ------
        StoreError
            If that takes longer than a minute.
        """
        deadline = time.monotonic() + _PATIENCE
        while not _reached(self._folder, self._marks, self._store):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"events that were accepted are not online after {_PATIENCE:g} s",
                    next_step="look into the service's log for what its applier says",
                )
            time.sleep(0.002)
        self._dirty.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()


def ask_live(service: PredictionService, rows: pa.Table, live: Live, ask: Callable[[dict[str, Any]], bool]) -> pa.Table:
    """Ask about rows of the spine, each at its own time, when everything that was known by then is online.

    Parameters
    ----------
    rows
        Of the spine, oldest first.
    ask
        Is given the body of a request; says whether to go on.

    Returns
    -------
    pyarrow.Table
        The rows that were asked about.
    """
    fields = [field.name for field in service.view.contract.request]
    asked = 0
    for row in rows.select([*fields, EVENT_TIME]).to_pylist():
        moment = row.pop(EVENT_TIME)
        live.until(to_micros(moment))
        live.settle(row)
        asked += 1
        if not ask({**row, EVENT_TIME: moment.isoformat()}):
            break
    return rows.slice(0, asked)


def _reads(service: PredictionService) -> list[tuple[str, tuple[str, ...]]]:
    """Return the aggregates of the view: their tables, and the request fields that are their keys."""
    lookups = [lookup for lookup in service.view.contract.lookups if lookup.aggregate is not None]
    return [(lookup.group, tuple(lookup.keys.values())) for lookup in lookups]


def _events(service: PredictionService, stores: Stores, *, after: int, until: int) -> list[Event]:
    groups = [group for group in service.view.groups if isinstance(group, AggregateGroup)]
    sources = dict.fromkeys(group.source for group in groups)
    for source in sources:
        if source.known_at is None:
            raise DeclarationError(
                f"the past of source {source.name!r} cannot be sent again: its events are known when they arrive",
                next_step='declare the column that says when each was known: known_at="received"',
            )
    found = [
        event
        for source in sources
        for event in _of_source(source, [g for g in groups if g.source is source], stores, after=after, until=until)
    ]
    return sorted(found, key=lambda event: event.eff)


def _of_source(
    source: Source, groups: Sequence[AggregateGroup], stores: Stores, *, after: int, until: int
) -> Iterator[Event]:
    import ibis

    from windrow.models.spine import moment, visible

    rows = visible(source, stores.lake, engine(), now=until)
    eff = ibis.greatest(rows[EVENT_TIME], rows[KNOWN_AT])
    fields = list(source.fields)
    chosen = rows.filter(eff > moment(after)).select(*fields, EVENT_TIME, KNOWN_AT)
    for row in chosen.to_pyarrow().to_pylist():
        known = max(row.pop(EVENT_TIME), row.pop(KNOWN_AT))
        entities = tuple((g.table_name, tuple(row[key] for key in g.entity.key_names)) for g in groups)
        sent = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
        yield Event(to_micros(known), source.name, entities, sent)


def _reached(folder: Path, marks: Marks, store: OnlineStore) -> bool:
    """Whether everything in the segments is online."""
    for segment in listing(folder):
        size = max((p.stat().st_size for e in (OPEN, SEALED) if (p := segment.path(folder, e)).exists()), default=0)
        if size > len(MAGIC) and marks.position(store, segment.worker) < Position(segment.number, size):
            return False
    return True
