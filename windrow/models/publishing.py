"""What a batch run predicted, on its way to the online store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from windrow.features.contract import Contract
from windrow.models.precomputed import COLUMNS, group_of, key_fields, packed
from windrow.models.scoring import PREDICTION, PROBABILITY, RELEASE
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.online.store import Key, OnlineStore, Row
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    import pyarrow as pa


def publish_predictions(service: str, contract: Contract, rows: pa.Table, store: OnlineStore) -> int:
    """Store the predictions of a batch run by key, where none that is newer is there; return how many were stored.

    Parameters
    ----------
    rows
        As `windrow.models.scoring.score` returns them. Rows that the model refused are left out.
    store
        Open for writing.

    Notes
    -----
    Newer is a later ``event_time``, then a later run: scoring an old day again changes nothing for requests.
    """
    return store.write(group_of(service), COLUMNS, _rows(contract, rows))


def _rows(contract: Contract, rows: pa.Table) -> Iterator[tuple[Key, Row]]:
    import pyarrow as pa

    there = rows.filter(rows[PREDICTION].is_valid())
    times = (there[name].cast(pa.int64()).to_pylist() for name in (EVENT_TIME, KNOWN_AT))
    keys = zip(*(there[name].to_pylist() for name in key_fields(contract)), strict=True)
    seq, releases = next_seq(), there[RELEASE].to_pylist()
    for key, event_time, known_at, output, release in zip(keys, *times, _outputs(there), releases, strict=True):
        if None not in key:
            yield key, Row(event_time, known_at, seq, (output, release))


def _outputs(rows: pa.Table) -> list[float] | list[bytes]:
    shares = [rows[name].to_pylist() for name in rows.column_names if name.startswith(PROBABILITY)]
    if not shares:
        outputs: list[float] = rows[PREDICTION].to_pylist()
        return outputs
    return [packed(line) for line in zip(*shares, strict=True)]
