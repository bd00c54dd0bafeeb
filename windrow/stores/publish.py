"""From stored rows to the online store: the newest visible row of every entity.

Up to where a group was published, by write order (``_seq``) and by time, stands in the online store itself, so
that a run reads only what is new to it: rows written since, and rows whose time has come since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from windrow.errors import StoreError
from windrow.features.aggregate import AggregateGroup
from windrow.features.ahead import ahead
from windrow.features.group import FeatureGroup
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.commits import point_of
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.online.batch import pack_batch
from windrow.stores.online.load import attempt
from windrow.stores.online.rows import Packed
from windrow.stores.online.store import TXN_ROWS, Key, OnlineStore, Row
from windrow.stores.publish_appended import publish_appended
from windrow.stores.reached import Published, Reached, keep, news, reach_of, reached_by, stands, visible
from windrow.stores.tables import table_of

if TYPE_CHECKING:
    from pathlib import Path

    import ibis.expr.types as ir
    import pyarrow as pa

    from windrow.stores.online.transaction import Transaction

_TIMES = (EVENT_TIME, KNOWN_AT, SEQ)
_BATCH = TXN_ROWS // 2048 * 2048  # the engine hands out whole vectors of 2,048 rows


def publish_online(
    group: FeatureGroup,
    lake: Lake,
    online: OnlineStore,
    now: int,
    *,
    keys: pa.Table | None = None,
    folder: Path | None = None,
) -> Published:
    """Bring the newest visible row of every entity to the online store.

    The first time, rows are loaded beside and appear all at once; later, row by row.

    Parameters
    ----------
    group
        A materialised group, or an external one; of aggregates the states are made anew from the source's rows.
    online
        Opened for writing.
    now
        UTC microseconds. A row is visible from ``max(event_time, known_at)`` on, never before; among
        the visible ones of a key the greatest by (event_time, known_at, _seq) wins.
    keys
        Publish these entities only (columns: the entity's keys): for an external group those in use. All their
        rows are read, each time.
    folder
        Where accepted events stand in segments (``ingest`` in the home): states are made anew without losing those
        that come meanwhile.

    Returns
    -------
    Published
        A second run reads and writes nothing.

    Raises
    ------
    NotFoundError
        If the group was never materialised.
    StoreError
        If the entities that reached the store are not those that were read.
    """
    if isinstance(group, AggregateGroup):
        from windrow.stores.states import publish_aggregates

        return publish_aggregates(group, lake, online, now, folder=folder)
    table = table_of(group, lake)
    if keys is not None or not isinstance(table, LakeTable):
        rows = visible(table.scan(engine()), now)
        return _update(group, online, rows if keys is None else _of_keys(rows, keys))
    before, at = reached_by(group, online), point_of(table)
    made = None if before is None else publish_appended(group, table, online, before=before, at=at, now=now)
    if made is not None:
        return made
    reached = reach_of(table, now, at)
    rows = visible(table.scan(engine()), now)
    if before is None:
        return _first(group, online, rows, reached)
    if stands(table, before):
        rows = news(rows, before)
        _take_back(group, table, online, before=before, now=now)
    made = _update(group, online, rows)
    attempt(online, lambda txn: keep(txn, group, reached))
    return made


def publish_states(
    group: FeatureGroup,
    online: OnlineStore,
    states: Iterable[tuple[Key, Row]],
    *,
    columns: tuple[str, ...] = ("state",),
    before: Callable[[Transaction], object] | None = None,
) -> Published:
    """Replace what is online of an aggregate group by `states`, all at once.

    Parameters
    ----------
    states
        Each entity once: its key, and a row whose only value is the state.
    before
        Called in the transaction that switches: adds the events that came while the states were made.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.schema import Entity
    >>> from windrow.stores.online.store import open_online
    >>> class Spend: table_name = "spend_v1"
    >>> store = open_online(f"lmdb://{mkdtemp()}/online", write=True)
    >>> publish_states(Spend, store, [((7,), Row(10, 10, 0, (b"state",)))])
    Published(rows_read=1, entities_written=1, entities=1, entities_read=1)
    """
    with online.bulk(group.table_name, columns) as load:
        load.write(states)
        loaded = load.switch(before)
    return Published(loaded.rows, loaded.rows, loaded.entities, loaded.rows)


def _of_keys(rows: ir.Table, keys: pa.Table) -> ir.Table:
    import ibis

    return rows.semi_join(ibis.memtable(keys), keys.column_names)


def _first(group: FeatureGroup, online: OnlineStore, rows: ir.Table, reached: Reached) -> Published:
    name = group.table_name
    with online.bulk(name, list(group.features)) as load:
        # Rows that streams wrote before are newer than any table: they stay. From now on they go to both.
        if not online.count(name):
            read, entities = _counted(group, rows)
            _check(group, entities, load.write_packed(_packed(group, rows, unique=read == entities) if read else ()))
            loaded = load.switch(lambda txn: keep(txn, group, reached))
            return Published(read, loaded.rows, loaded.entities, entities)
    made = _update(group, online, rows)
    attempt(online, lambda txn: keep(txn, group, reached))
    return made


def _update(group: FeatureGroup, online: OnlineStore, rows: ir.Table) -> Published:
    read, entities = _counted(group, rows)
    given: list[int] = []

    def counted() -> Iterator[Packed]:
        for batch in _packed(group, rows, unique=read == entities):
            given.append(len(batch.keys))
            yield batch

    written = online.write_packed(group.table_name, list(group.features), counted() if read else ())
    _check(group, entities, sum(given))
    return Published(read, written, online.count(group.table_name), entities)


def _check(group: FeatureGroup, entities: int, given: int) -> None:
    if given != entities:
        raise StoreError(
            f"group {group.table_name!r}: rows of {entities} entities were read, of {given} reached the online store",
            next_step="run it again: the rows were changed while they were read",
        )


def _counted(group: FeatureGroup, rows: ir.Table) -> tuple[int, int]:
    """Return how many rows there are, and of how many entities."""
    read = rows.count().to_pyarrow().as_py()
    keys = list(group.entity.key_names)
    if not keys or not read:
        return read, min(read, 1)
    return read, rows.select(keys).distinct().count().to_pyarrow().as_py()


def _packed(group: FeatureGroup, rows: ir.Table, *, unique: bool) -> Iterator[Packed]:
    """Return the newest row of each entity, packed ahead of what stores them: an ordered load is several times faster."""
    keys = list(group.entity.key_names)
    chosen = (rows if unique else newest(rows, keys)).select(*keys, *_TIMES, *group.features)
    streamed = batches(chosen.order_by(_stored_order(chosen, keys) or list(_TIMES)))  # the engine is this thread's
    packed = (pack_batch(group.table_name, batch, len(keys)) for batch in streamed)
    return ahead(packed if unique else _without_twins(packed))


def _stored_order(rows: ir.Table, keys: list[str]) -> list[Any]:
    # As packed keys compare: short texts before long ones.
    lengths = {key: [rows[key].length()] if rows[key].type().is_string() else [] for key in keys}
    return [part for key in keys for part in (*lengths[key], rows[key])]


def _without_twins(batches: Iterable[Packed]) -> Iterator[Packed]:
    # One append may hold the same row twice: with all times equal, either is the newest.
    last: bytes | None = None
    for types, keys, rows in batches:
        kept = {key: row for key, row in zip(keys, rows, strict=True) if key != last}
        if kept:
            last = keys[-1]
            yield Packed(types, list(kept), list(kept.values()))


def batches(rows: ir.Table) -> Iterable[pa.RecordBatch]:
    """Stream an expression of the engine."""
    import ibis.expr.operations as ops

    if rows.op().find(ops.InMemoryTable):  # few rows, which only Ibis itself can show to the engine
        held: list[pa.RecordBatch] = rows.to_pyarrow().to_batches(TXN_ROWS)
        return held
    # Ibis streams by a way that DuckDB has deprecated.
    reader: Iterator[pa.RecordBatch] = engine().raw_sql(engine().compile(rows)).to_arrow_reader(_BATCH)
    return reader


def newest(rows: ir.Table, keys: list[str]) -> ir.Table:
    """Return the row of each key that is the greatest by (event_time, known_at, _seq)."""
    import ibis

    # Ranked without the features, of which there may be many, and these are fetched for the winners only.
    thin = rows.select(*keys, *_TIMES)
    rank = ibis.row_number().over(group_by=keys, order_by=[thin[name].desc() for name in _TIMES])
    winners = thin.mutate(windrow_rank=rank).filter(ibis._.windrow_rank == 0).drop("windrow_rank")
    return rows.semi_join(winners, [*keys, *_TIMES])


def _take_back(group: FeatureGroup, table: LakeTable, online: OnlineStore, *, before: Reached, now: int) -> None:
    """Put right the entities whose rows were deleted since the last run: an older row is in force again, or none."""
    changed = table.changes_since(engine(), before.seq)
    removed = changed.filter(changed["_removed"])
    keys, name = list(group.entity.key_names), group.table_name
    gone = removed.select(*keys, EVENT_TIME, KNOWN_AT).distinct().to_pyarrow()
    if not gone.num_rows:
        return
    left = (
        _of_keys(visible(table.scan(engine()), now), gone.select(keys)) if keys else visible(table.scan(engine()), now)
    )
    ages: dict[Key, set[tuple[int, int]]] = {}
    for key, age in _keys_and_ages(gone, len(keys)):
        ages.setdefault(key, set()).add(age)
    rows = dict(_rows(newest(left, keys).select(*keys, *_TIMES, *group.features).to_pyarrow(), len(keys)))

    def work(txn: Transaction) -> None:
        for key, own in ages.items():
            stored = txn.get(name, key)
            if stored is not None and stored[:2] in own:
                if key in rows:
                    txn.set(name, key, rows[key])
                else:
                    txn.delete(name, key)

    attempt(online, work)


def _keys_and_ages(gone: pa.Table, keys: int) -> Iterator[tuple[Key, tuple[int, int]]]:
    for row in zip(*(_plain(column) for column in gone.columns), strict=True):
        yield row[:keys], row[keys:]


def _rows(table: pa.Table, keys: int) -> Iterator[tuple[Key, Row]]:
    for row in zip(*(_plain(column) for column in table.columns), strict=True):
        event_time, known_at, seq = row[keys : keys + 3]
        yield row[:keys], Row(event_time, known_at, seq, row[keys + 3 :])


def _plain(column: Any) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values
