"""A quick look for the future: one cut through real rows, where `no_look_ahead` proves a law on few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from windrow.clock import from_micros
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.difference import changed
from windrow.testing.answers import group_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.group import FeatureGroup

ROWS = 20_000  # of each source: enough for any window to reach over the cut


class LookAhead(NamedTuple):
    """A feature that was another one before later rows were there."""

    feature: str
    at: str


def look_ahead(group: FeatureGroup, tables: Mapping[str, pa.Table]) -> LookAhead | None:
    """Return a feature of `group` whose past changes when later rows come in, or None.

    The rows are cut in the middle of the times at which they became known. What the group says of the time
    before the cut must be the same with the rows after it and without them.

    Parameters
    ----------
    tables
        Source name -> its rows, with ``event_time`` and ``known_at``.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from windrow import Entity, Source, feature_group
    >>> from windrow.testing import times
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", share=payments.amount / payments.amount.max())
    >>> spend.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"))(spend)
    >>> at = times(*range(4))
    >>> rows = pa.table({"card_id": [1] * 4, "amount": [1.0, 2.0, 3.0, 4.0], "ts": at, "event_time": at, "known_at": at})
    >>> look_ahead(group, {"payments": rows}).feature
    'share'
    """
    import ibis

    moment = _middle(tables)
    early = {name: _until(table, moment) for name, table in tables.items()}
    before, after = group_rows(group, early), group_rows(group, tables)
    identity = [*group.entity.key_names, EVENT_TIME, KNOWN_AT]
    other = changed(_until(before, moment), ibis.memtable(_until(after, moment)), identity=identity)
    return _first(group, other, after) if other.num_rows else None


def newest_rows(table: pa.Table, rows: int = ROWS) -> pa.Table:
    """Return the rows that became known last, at most `rows` of them."""
    import pyarrow as pa

    known = table.column(KNOWN_AT).cast("int64").to_numpy()
    return table.take(pa.array(np.sort(np.argsort(known, kind="stable")[-rows:])))


def _middle(tables: Mapping[str, pa.Table]) -> int:
    known = [table.column(KNOWN_AT).cast("int64").to_numpy() for table in tables.values()]
    return int(np.median(np.concatenate(known))) if known else 0


def _until(table: pa.Table, moment: int) -> pa.Table:
    import pyarrow as pa

    known = table.column(KNOWN_AT).cast("int64").to_numpy()
    return table.filter(pa.array(known <= moment))


def _first(group: FeatureGroup, other: pa.Table, after: pa.Table) -> LookAhead:
    """Return the first feature that differs between a row and the same row with the future around it."""
    identity = [*group.entity.key_names, EVENT_TIME, KNOWN_AT]
    first = other.sort_by([(name, "ascending") for name in reversed(identity)]).slice(0, 1)
    row = first.to_pylist()[0]
    same = [r for r in after.to_pylist() if all(r[name] == row[name] for name in identity)]
    names = [n for n in group.features if not same or row[n] != same[0][n]]
    moment = from_micros(first.column(EVENT_TIME).cast("int64")[0].as_py()).isoformat()
    return LookAhead(names[0] if names else next(iter(group.features)), moment)
