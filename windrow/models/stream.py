"""Scoring on a stream: each spine row once, as soon as it is due, appended to a table of its own.

What was said stays said: a correction that arrives later changes the features of that time, not the answer given
then. So the table can be read as a stream, and a run that is repeated or killed neither doubles nor loses a row.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from windrow.clock import duration
from windrow.features.aggregate import AggregateGroup
from windrow.features.source import Every, Source
from windrow.models.keys import entity_fields
from windrow.models.scoring import answered
from windrow.models.spine import moment, spine_rows, visible
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.difference import missing

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.features.group import Selection
    from windrow.models.bundle import Bundle
    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake, LakeTable

_DUE = "windrow_due"


def stream_key(service: PredictionService) -> str:
    """Return the key of the table that the stream's answers are appended to."""
    return f"stream/{service.name}"


def score_stream(service: PredictionService, bundle: Bundle, lake: Lake, con: BaseBackend, *, now: int) -> pa.Table:
    """Score every row that is due and has no answer yet; append the answers in one commit.

    Parameters
    ----------
    service
        Declares `stream`.
    bundle
        The release that answers.
    now
        UTC microseconds: what is due by then is scored, from what was known at each row's own time. The first
        run looks back by the declared `lookback`, the later ones by as much from the newest answer.

    Returns
    -------
    pyarrow.Table
        The rows that were appended, as `windrow.models.scoring.score` makes them; a second run appends none.
    """
    assert service.stream is not None
    table, back = lake.table(stream_key(service)), duration(service.stream.lookback)
    # Two runs at once would both find the row without an answer.
    with table.locked():
        newest = table.stats().last if table.exists else None
        start = (now if newest is None else min(now, newest)) - back
        rows = _unanswered(service, due_rows(service, lake, con, start=start, now=now), table, con)
        made = answered(bundle, lake, con, rows, now=now)
        if made.num_rows or not table.exists:
            table.append(made)
    return made


def due_rows(service: PredictionService, lake: Lake, con: BaseBackend, *, start: int, now: int) -> pa.Table:
    """Return the spine rows that became due after `start` and by `now`, oldest first.

    A source's rows are due at their event time. Of a clock, the first tick at which an event of a feature group
    can be seen is due, for the event's key: each event makes one tick due, and no correction makes another.

    Returns
    -------
    pyarrow.Table
        The spine's fields and ``event_time`` (timestamp[us, UTC]).
    """
    spine = service.view.spine
    stored = [] if isinstance(spine, Source) else _stored(service)
    if isinstance(spine, Source) or not stored:
        return spine_rows(service, lake, con, start=start + 1, end=now + 1, now=now)
    return _ticks(spine, [_first_seen(s, lake, con, start=start, now=now) for s in stored], start=start, now=now)


def _stored(service: PredictionService) -> list[Selection]:
    """Return the parts of the view that have rows of their own for exactly the clock's keys."""
    wanted = set(entity_fields(service))
    mine = [s for s in service.view.selections if set(s.keys) == wanted]
    return [s for s in mine if not isinstance(s.group, AggregateGroup)]


def _first_seen(selection: Selection, lake: Lake, con: BaseBackend, *, start: int, now: int) -> pa.Table:
    """Return the keys, under the spine's names, and when each event of the group could first be seen."""
    import ibis

    rows = visible(selection.group, lake, con, now=now)
    # An event older than that was seen before, or comes too late for an answer; its corrections make nothing due.
    rows = rows.filter(rows[EVENT_TIME] > moment(start))
    eff = ibis.greatest(rows[EVENT_TIME], rows[KNOWN_AT])
    names = dict(zip(map(str, selection.keys), selection.group.entity.key_names, strict=True))
    keyed = rows.select(**{field: rows[key] for field, key in names.items()}, at=rows[EVENT_TIME], **{_DUE: eff})
    first: ir.Table = keyed.group_by([*names, "at"]).agg(**{_DUE: keyed[_DUE].min()})
    return first.drop("at").to_pyarrow()


def _ticks(every: Every, seen: list[pa.Table], *, start: int, now: int) -> pa.Table:
    import pyarrow as pa

    keys = list(every.entity.key_names)
    rows = pa.concat_tables(table.select([*keys, _DUE]) for table in seen)
    timestamp = pa.timestamp("us", "UTC")
    eff = rows[_DUE].cast(timestamp).cast("int64").to_numpy()
    tick = -(-(eff - every.offset) // every.interval) * every.interval + every.offset
    rows = rows.select(keys).append_column(EVENT_TIME, pa.array(tick).cast(timestamp))
    rows = rows.filter(pa.array((tick > start) & (tick <= now)))
    order = [(name, "ascending") for name in (EVENT_TIME, *keys)]
    made: pa.Table = rows.group_by([*keys, EVENT_TIME]).aggregate([]).sort_by(order)
    return made


def _unanswered(service: PredictionService, rows: pa.Table, table: LakeTable, con: BaseBackend) -> pa.Table:
    if not (table.exists and rows.num_rows):
        return rows
    import pyarrow as pa

    spine, stored = service.view.spine, table.scan(con)
    names = [spine.id] if isinstance(spine, Source) and spine.id else rows.column_names
    # Without an id, equal rows of a source are different events.
    every = isinstance(spine, Source) and not spine.id
    left = Counter(_tuples(missing(rows.select(names), stored.select(names), every=every)))
    kept = []
    for number, row in enumerate(_tuples(rows.select(names))):
        if left[row] > 0:
            left[row] -= 1
            kept.append(number)
    return rows.take(pa.array(kept, pa.int64()))


def _tuples(rows: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
