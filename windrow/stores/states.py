"""The states of an aggregate group from the stored events: what the online store has after a stream brought them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.features.aggregate import AggregateGroup
from windrow.features.tiles import Tiles
from windrow.features.traces import Event
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.commits import Point, point_of
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.online.store import Key, OnlineStore, Row
from windrow.stores.publish import batches, publish_states
from windrow.stores.reached import (
    Published,
    Reached,
    fresh_files,
    keep,
    news,
    reach_of,
    reached_by,
    stands,
    visible,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

    from windrow.stores.ingest.replay import Replay
    from windrow.stores.online.transaction import Transaction


def states(group: AggregateGroup, rows: ir.Table) -> Iterator[tuple[Key, Row]]:
    """Yield each entity in the order of its key, with its state after all of `rows`.

    Parameters
    ----------
    rows
        The source's rows that are known, as an expression of the engine, with both times and ``_seq``; of those with one id the first known counts.

    Yields
    ------
    tuple
        The key, and a row whose one value is what `windrow.features.tiles.Tiles.append` makes of the events.
    """
    tiles, keys = Tiles(group.spec), len(group.spec.keys)
    key: Key | None = None
    held: list[Event] = []
    for batch in batches(_ordered(group, rows)):
        for values in zip(*(_plain(column) for column in batch.columns), strict=True):
            if values[:keys] != key:
                if key is not None:
                    yield key, _row(tiles, held)
                key, held = values[:keys], []
            event_time, known_at, id_ = values[keys : keys + 3]
            held.append(Event(event_time, known_at, id_, values[keys + 3 :]))
    if key is not None:
        yield key, _row(tiles, held)


def publish_aggregates(
    group: AggregateGroup,
    lake: Lake,
    online: OnlineStore,
    now: int,
    *,
    folder: Path | None = None,
) -> Published:
    """Make every entity's state anew from the events that are known at `now`, and show them all at once.

    Parameters
    ----------
    now
        UTC microseconds: an event that is known later is left to a later run.
    folder
        Where accepted events stand in segments: what comes while this runs is not lost.

    Returns
    -------
    Published
        A run that finds no new event reads and writes nothing.

    Raises
    ------
    NotFoundError
        If the source was never materialised.
    """
    table = lake.table(group.source.key)
    before, at = reached_by(group, online), point_of(table)
    if before is not None and _nothing_new(table, before, at=at, now=now):
        return Published(0, 0, online.count(group.table_name), 0)
    after = reach_of(table, now, at)
    replay, until = _replay(group, lake, folder), now
    rows = table.scan(engine(), as_of=None if replay is None else replay.seq)
    if replay is not None:
        until = replay.until(now)
        replay.remember(online, now=now)

    def finish(txn: Transaction) -> None:
        if replay is not None:
            replay(txn)
        keep(txn, group, after)

    made = publish_states(group, online, states(group, visible(rows, until)), before=finish)
    return made._replace(rows_read=visible(rows, until).count().to_pyarrow().as_py())


def _nothing_new(table: LakeTable, before: Reached, *, at: Point, now: int) -> bool:
    if fresh_files(table, before, at=at, now=now) == []:
        return True
    if not stands(table, before):
        return False
    return not news(visible(table.scan(engine()), now), before).count().to_pyarrow().as_py()


def _replay(group: AggregateGroup, lake: Lake, folder: Path | None) -> Replay | None:
    from windrow.stores.ingest.catalogue import stream_of_source
    from windrow.stores.ingest.replay import Replay

    stream = stream_of_source(group.source, {group.table_name: group.spec})
    if stream is None or folder is None:
        return None
    return Replay(stream, group.table_name, lake, folder)


def _ordered(group: AggregateGroup, rows: ir.Table) -> ir.Table:
    """Each id once, ordered by key and by when it was known: as a stream brings them, so that little is kept apart."""
    import ibis

    spec = group.spec
    rows = rows.filter([rows[key].notnull() for key in spec.keys]) if spec.keys else rows
    rows = rows.mutate(windrow_eff=ibis.greatest(rows[EVENT_TIME], rows[KNOWN_AT]))
    if spec.id:
        order = [rows.windrow_eff, rows[EVENT_TIME], rows[SEQ]]
        rank = ibis.row_number().over(group_by=spec.id, order_by=order)
        rows = rows.mutate(windrow_rank=rank).filter((ibis._.windrow_rank == 0) | rows[spec.id].isnull())
    id = rows[spec.id] if spec.id else ibis.null("int64")  # noqa: A001 - the field's own word
    values = {f"windrow_value_{i}": rows[name] for i, name in enumerate(spec.columns)}
    ordered = rows.order_by([*spec.keys, "windrow_eff"])
    return ordered.select(
        *spec.keys, windrow_event=rows[EVENT_TIME], windrow_known=rows[KNOWN_AT], windrow_id=id, **values
    )


def _plain(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values


def _row(tiles: Tiles, events: list[Event]) -> Row:
    state = tiles.append(None, events)
    event_time, known_at = max((event.event_time, event.known_at) for event in events)
    return Row(event_time, known_at, 0, (state,))
