"""From another system's table to the online store: the newest known row of each key in use, and of no other.

The table may be changed in place, so what it says now is what is put online: a corrected value replaces the old
one though its times are the same, and an entity whose row is gone there is gone here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from windrow.errors import DeclarationError
from windrow.features.group import FeatureGroup
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.engine import engine
from windrow.stores.external import ExternalTable
from windrow.stores.online.load import attempt
from windrow.stores.online.store import TXN_ROWS, Key, OnlineStore, Row
from windrow.stores.reached import Published

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.online.transaction import Transaction

_TIMES = (EVENT_TIME, KNOWN_AT, SEQ)


def publish_in_place(group: FeatureGroup, online: OnlineStore, now: int, *, keys: pa.Table) -> Published:
    """Bring the newest known row of each of `keys` online, and take away those that have none any more.

    Parameters
    ----------
    group
        An external group.
    online
        Opened for writing.
    now
        UTC microseconds; a row is visible from ``max(event_time, known_at)`` on.
    keys
        The entities in use: columns named as the entity's keys.

    Returns
    -------
    Published
        A second run over an unchanged table writes 0 entities.

    Raises
    ------
    WindrowError
        If the table cannot be read; what is online stays as it was.
    """
    if group.external is None:
        raise DeclarationError(f"group {group.name!r} is no external group", next_step="use publish_online")
    found = dict(_newest(group, now, keys.drop_null()))
    wanted = _keys(keys.drop_null(), group.entity.key_names)
    written = 0
    for start in range(0, len(wanted), TXN_ROWS):
        written += _put(group, online, wanted[start : start + TXN_ROWS], found)
    return Published(len(found), written, online.count(group.table_name), len(found))


def _put(group: FeatureGroup, online: OnlineStore, wanted: Sequence[Key], found: dict[Key, Row]) -> int:
    name = group.table_name

    def work(txn: Transaction) -> int:
        txn.declare(name, list(group.features))
        written = 0
        for key, stored in zip(wanted, txn.read([(name, key) for key in wanted]), strict=True):
            row = found.get(key)
            if row is None:
                written += txn.delete(name, key) if stored is not None else 0
            elif stored is None or (stored[:2], stored.values) != (row[:2], row.values):
                txn.set(name, key, row)
                written += 1
        return written

    return attempt(online, work)


def _newest(group: FeatureGroup, now: int, keys: pa.Table) -> Iterator[tuple[Key, Row]]:
    """Yield the newest row of each key that was known by now; of several, the last one stands."""
    import pyarrow as pa
    import pyarrow.compute as pc

    assert group.external is not None
    names, table = list(group.entity.key_names), ExternalTable(group.key, group.external)
    moment = pa.scalar(now, pa.timestamp("us", "UTC"))
    spine = keys.append_column(EVENT_TIME, pa.chunked_array([pa.repeat(moment, keys.num_rows)]))
    rows = _of_keys(table.asked(spine, {name: name for name in names}).scan(engine()), keys, names)
    known = pc.and_(pc.less_equal(rows[EVENT_TIME], moment), pc.less_equal(rows[KNOWN_AT], moment))
    ordered = rows.filter(known).sort_by([(name, "ascending") for name in _TIMES])
    columns = [_plain(ordered.column(name)) for name in (*names, *_TIMES, *group.features)]
    for row in zip(*columns, strict=True):
        event_time, known_at, seq, *values = row[len(names) :]
        yield row[: len(names)], Row(event_time, known_at, seq, tuple(values))


def _of_keys(rows: Any, keys: pa.Table, names: Sequence[str]) -> pa.Table:
    import ibis

    made: pa.Table = engine().to_pyarrow(rows.semi_join(ibis.memtable(keys.select(names)), names) if names else rows)
    return made


def _keys(keys: pa.Table, names: Sequence[str]) -> list[Key]:
    if not names:
        return [()]
    return list(dict.fromkeys(zip(*(keys.column(name).to_pylist() for name in names), strict=True)))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values
