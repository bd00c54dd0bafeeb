"""From stored rows to the online store: the newest visible row of every entity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.clock import from_micros
from windrow.features.group import FeatureGroup, ibis_dtype
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.online import Key, OnlineStore, Row

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa


class Published(NamedTuple):
    """What one run of the online materialisation did: rows visible by then, entities changed, entities there."""

    rows_read: int
    entities_written: int
    entities: int


def publish_online(
    group: FeatureGroup, lake: Lake, online: OnlineStore, now: int, *, since: int | None = None
) -> Published:
    """Bring the newest visible row of every entity to the online store.

    Parameters
    ----------
    group
        A materialised group.
    online
        Opened for writing.
    now
        UTC microseconds. A row is visible from ``max(event_time, known_at)`` on, never before; among
        the visible ones of a key the greatest by (event_time, known_at, _seq) wins.
    since
        Only rows that became visible after this time are read: what an earlier call with it as its
        `now` left to do, as long as nothing was written to the group in between.

    Returns
    -------
    Published
        A second run writes 0 entities.

    Raises
    ------
    NotFoundError
        If the group was never materialised.
    """
    rows = lake.table(group.key).scan(engine())
    moment = _literal_time(now)
    visible = rows.filter((rows[EVENT_TIME] <= moment) & (rows[KNOWN_AT] <= moment))
    if since is not None:
        before = _literal_time(since)
        visible = visible.filter((visible[EVENT_TIME] > before) | (visible[KNOWN_AT] > before))
    written = online.write(group.table_name, list(group.features), _online_rows(group, visible))
    return Published(visible.count().to_pyarrow().as_py(), written, online.count(group.table_name))


def _literal_time(micros: int) -> Any:
    import ibis

    return ibis.literal(from_micros(micros), type=ibis_dtype("timestamp"))


def _online_rows(group: FeatureGroup, visible: ir.Table) -> Iterator[tuple[Key, Row]]:
    import ibis

    keys, times = list(group.entity.key_names), [EVENT_TIME, KNOWN_AT, SEQ]
    newest = ibis.row_number().over(group_by=keys, order_by=[visible[name].desc() for name in times])
    ranked = visible.mutate(windrow_rank=newest).filter(ibis._.windrow_rank == 0)
    # Sorted, because an ordered load into the online store is several times faster.
    chosen = ranked.select(*keys, *times, *group.features).order_by(keys)
    for batch in chosen.to_pyarrow().to_batches():
        yield from _batch_rows(batch, len(keys))


def _batch_rows(batch: pa.RecordBatch, keys: int) -> Iterator[tuple[Key, Row]]:
    import pyarrow as pa

    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in batch.columns]
    for row in zip(*(column.to_pylist() for column in columns), strict=True):
        event_time, known_at, seq = row[keys : keys + 3]
        yield row[:keys], Row(event_time, known_at, seq, row[keys + 3 :])
