"""Up to where a group is online: by write order, by time, and by the version of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from windrow.clock import from_micros
from windrow.features.group import FeatureGroup, ibis_dtype
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.commits import Point, appended
from windrow.stores.engine import engine
from windrow.stores.lake import LakeTable
from windrow.stores.online.store import OnlineStore

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from windrow.stores.online.transaction import Transaction

MIXED = 1_000_003  # a prime: the sum of `_seq` modulo it tells tables apart that have the same number of rows
NEVER = 2**63 - 1


class Published(NamedTuple):
    """What one run of the online materialisation did.

    Attributes
    ----------
    rows_read
        Visible rows that were new to this run.
    entities_written
        Entities whose stored row changed.
    entities
        Entities that are online now.
    entities_read
        Entities that the rows were of; each was given to the store once, which is checked.
    """

    rows_read: int
    entities_written: int
    entities: int
    entities_read: int


class Reached(msgspec.Struct, frozen=True, array_like=True):
    """Up to where a group is online: rows up to `seq`, as far as they are visible at `now`.

    Attributes
    ----------
    rows, mixed
        How many rows were in force at `seq`, and the sum of their ``_seq`` modulo a prime. A commit that was under
        way when `seq` was read, and a rewrite that removed rows, change them: then everything is read again.
    at
        The version of the table then. What was only appended since is found by it, without reading the rest.
    due
        UTC microseconds: before then no row becomes visible that was there and was not; 0 where that is not known.
    """

    seq: int
    now: int
    rows: int
    mixed: int
    at: Point = Point()
    due: int = 0


def reached_by(group: FeatureGroup, online: OnlineStore) -> Reached | None:
    """Return up to where a group was published, or None if it never was."""
    raw = online.mark(_mark(group))
    return msgspec.msgpack.decode(raw, type=Reached) if raw else None


def _mark(group: FeatureGroup) -> str:
    return f"published/{group.table_name}"


def keep(txn: Transaction, group: FeatureGroup, reached: Reached) -> None:
    """Remember, in a transaction, up to where a group is online."""
    txn.set_mark(_mark(group), msgspec.msgpack.encode(reached))


def reach_of(table: LakeTable, now: int, at: Point) -> Reached:
    """Return up to where a run reads that begins now; `at` was asked for before."""
    # Taken before rows are read: what is committed in between is read now, and once more by the next run.
    seq = table.stats().seq
    return Reached(seq, now, *_told(table, seq), at, _due(table, now))


def stands(table: LakeTable, before: Reached) -> bool:
    """Return whether the table as of the last run is what it was then."""
    return _told(table, before.seq) == (before.rows, before.mixed)


def fresh_files(table: LakeTable, before: Reached, *, at: Point, now: int) -> list[str] | None:
    """Return the files whose rows are all that can be new since a run, or None where that cannot be told so simply."""
    return appended(table, before.at, at) if before.now <= now < before.due else None


def _told(table: LakeTable, seq: int) -> tuple[int, int]:
    rows = table.scan(engine(), as_of=seq)
    told = rows.aggregate(rows=rows.count(), mixed=(rows[SEQ] % MIXED).sum()).to_pyarrow().to_pylist()[0]
    return told["rows"], int(told["mixed"] or 0)


def _due(table: LakeTable, now: int) -> int:
    """Return when the next row becomes visible."""
    import ibis
    import pyarrow as pa

    rows = table.scan(engine())
    eff = ibis.greatest(rows[EVENT_TIME], rows[KNOWN_AT])
    found = rows.aggregate(due=eff.min(where=eff > _literal_time(now))).to_pyarrow()["due"].cast(pa.int64())[0].as_py()
    return NEVER if found is None else int(found)


def visible(rows: ir.Table, now: int) -> ir.Table:
    """Return the rows that have happened and are known at `now`."""
    moment = _literal_time(now)
    return rows.filter((rows[EVENT_TIME] <= moment) & (rows[KNOWN_AT] <= moment))


def news(rows: ir.Table, before: Reached) -> ir.Table:
    """Return the rows that an earlier run has not seen: written since, or visible since."""
    then = _literal_time(before.now)
    return rows.filter((rows[SEQ] > before.seq) | (rows[EVENT_TIME] > then) | (rows[KNOWN_AT] > then))


def _literal_time(micros: int) -> Any:
    import ibis

    return ibis.literal(from_micros(micros), type=ibis_dtype("timestamp"))
