"""From a few appended rows to the online store, without asking the engine: what a stream brings, look after look."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from windrow.features.group import FeatureGroup
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.commits import Point
from windrow.stores.lake import LakeTable
from windrow.stores.online.batch import pack_batch
from windrow.stores.online.load import attempt
from windrow.stores.online.store import TXN_ROWS, OnlineStore
from windrow.stores.reached import MIXED, Published, Reached, fresh_files, keep

if TYPE_CHECKING:
    import pyarrow as pa

_TIMES = (EVENT_TIME, KNOWN_AT, SEQ)


def publish_appended(
    group: FeatureGroup, table: LakeTable, online: OnlineStore, *, before: Reached, at: Point, now: int
) -> Published | None:
    """Bring the rows that were appended since the last run online, where nothing else can have changed.

    Parameters
    ----------
    before, at
        Up to where the last run came, and the version that the table has now.
    now
        UTC microseconds; rows that become visible later are left to the run of that time.

    Returns
    -------
    Published or None
        None where other rows may have become visible, were changed or removed, or are many: ask the engine then.
    """
    files = fresh_files(table, before, at=at, now=now)
    if not files:
        return None if files is None else Published(0, 0, online.count(group.table_name), 0)
    read = read_appended(files, [*group.entity.key_names, *_TIMES, *group.features], before=before, now=now)
    if read is None:
        return None
    newest = _newest(group, read.visible)
    packed = [pack_batch(group.table_name, b, len(group.entity.key_names)) for b in newest.to_batches() if b.num_rows]
    written = online.write_packed(group.table_name, list(group.features), packed)
    attempt(online, lambda txn: keep(txn, group, read.reached(before, at=at, now=now)))
    return Published(read.visible.num_rows, written, online.count(group.table_name), newest.num_rows)


class Appended(NamedTuple):
    """Rows of new files: those that are visible, the sequence numbers of all, and when the next one becomes visible."""

    visible: pa.Table
    seqs: list[int]
    due: int

    def reached(self, before: Reached, *, at: Point, now: int) -> Reached:
        """Return up to where a run came that began at `before` and read these rows."""
        mixed = before.mixed + sum(seq % MIXED for seq in self.seqs)
        seq = max([before.seq, *self.seqs])
        rows = before.rows + len(self.seqs)
        return msgspec.structs.replace(before, seq=seq, now=now, rows=rows, mixed=mixed, at=at, due=self.due)


def read_appended(files: list[str], columns: list[str], *, before: Reached, now: int) -> Appended | None:
    """Return the rows of new files; None where they are many or a file is gone."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        if sum(pq.read_metadata(file).num_rows for file in files) > TXN_ROWS:
            return None
        rows = pq.read_table(files, columns=list(dict.fromkeys(columns)), memory_map=False)
    except FileNotFoundError:
        return None
    eff = pc.max_element_wise(rows[EVENT_TIME].cast("int64"), rows[KNOWN_AT].cast("int64"))
    later = eff.filter(pc.greater(eff, now))
    due = min([before.due, *later.to_pylist()])
    return Appended(rows.filter(pc.less_equal(eff, now)), rows[SEQ].to_pylist(), due)


def _newest(group: FeatureGroup, rows: pa.Table) -> pa.Table:
    """Return the newest row of each key, in the order of the keys."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = list(group.entity.key_names)
    ordered = rows.sort_by([(name, "ascending") for name in (*keys, *_TIMES)])
    ordered = ordered.select([*keys, *_TIMES, *group.features]).combine_chunks()
    last = np.zeros(ordered.num_rows, bool)
    last[-1:] = True
    for key in keys:
        column = ordered.column(key)
        last[:-1] |= pc.not_equal(column.slice(1), column.slice(0, max(0, len(column) - 1))).to_numpy()
    return ordered.filter(pa.array(last)).combine_chunks()
