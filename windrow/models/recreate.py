"""Making a training dataset again from what the tables hold of its time, and saying what differs, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from windrow.errors import DataError
from windrow.models.content import content_hash
from windrow.models.dataset import SPLIT, TrainingDataset, past_rows, split_rows
from windrow.models.service import PredictionService
from windrow.stores.forgetting.tombstones import Tombstone, tombstones
from windrow.stores.tables import lake_key

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.lake import Lake
    from windrow.stores.metadata import Metadata


class Recreated(msgspec.Struct, frozen=True, kw_only=True):
    """A training dataset that was made again.

    Attributes
    ----------
    same
        Whether it has the content hash of the first time.
    rows
        How many it has now.
    forgotten
        Rows of the first time that are gone because their entity was forgotten.
    changed
        Other rows that differ in a value: aggregates over events that are gone.
    added
        Rows that the first one did not have.
    unexplained
        Rows that differ although no entity was forgotten since.
    tombstones
        Hashes of the entities that were forgotten since.
    """

    dataset: str
    same: bool
    rows: int
    forgotten: int = 0
    changed: int = 0
    added: int = 0
    unexplained: int = 0
    tombstones: list[str] = []

    @property
    def passed(self) -> bool:
        """Whether it is the same, or what differs is explained by forgotten entities."""
        return self.same or bool(self.tombstones)

    def __str__(self) -> str:
        if self.same:
            return f"dataset {self.dataset} is the same: {self.rows} rows"
        parts = {
            "forgotten": self.forgotten,
            "changed": self.changed,
            "added": self.added,
            "unexplained": self.unexplained,
        }
        told = ", ".join(f"{count} {name}" for name, count in parts.items() if count)
        whose = f"; {len(self.tombstones)} entities were forgotten since" if self.tombstones else ""
        return f"dataset {self.dataset} differs in {told or 'the order of its rows'}{whose}"


def recreate(dataset: TrainingDataset, service: PredictionService, lake: Lake, metadata: Metadata) -> Recreated:
    """Make a dataset again as of its ``_seq`` and compare it with the first one.

    Parameters
    ----------
    dataset
        Of kind ``view``: built from tables, which keep every row of every time.
    service
        The one that it was built for, with the view of that time.

    Raises
    ------
    DataError
        If the dataset was built from the prediction log, or the view is another one by now.
    NotFoundError
        If a table is gone.
    """
    from windrow.stores.engine import engine

    _check(dataset, service)
    rows, _ = past_rows(service, lake, engine(), now=dataset.now, as_of=dataset.seq)
    made, _, _ = split_rows(service, rows, dataset.kind)
    if content_hash(made) == dataset.content_hash:
        return Recreated(dataset=dataset.id, same=True, rows=made.num_rows)
    return _compared(dataset, made, [stone for stone in tombstones(metadata) if _concerns(stone, service)])


def _check(dataset: TrainingDataset, service: PredictionService) -> None:
    if dataset.kind != "view":
        raise DataError(
            f"dataset {dataset.id!r} was built from the prediction log, which only grows",
            next_step=f"build {dataset.service}/training_dataset again",
        )
    if service.view.contract.fingerprint != dataset.view_fingerprint:
        raise DataError(
            f"dataset {dataset.id!r} was built for another view than service {service.name!r} declares now",
            next_step="check out the commit that declared it, then recreate it there",
        )


def _concerns(stone: Tombstone, service: PredictionService) -> bool:
    """Whether anything of a forgotten entity was in the tables or datasets of a service."""
    spine = getattr(service.view.spine, "key", "")
    read = {spine, service.label.source.key, *(lake_key(lookup) for lookup in service.view.contract.lookups)}
    return any(place in read or place.startswith(f"datasets/{service.name}/") for place in stone.rows)


def _compared(dataset: TrainingDataset, made: pa.Table, stones: list[Tombstone]) -> Recreated:
    gone = sum(stone.rows.get(f"datasets/{dataset.service}/{dataset.id}", 0) for stone in stones)
    left = _stored(dataset)
    missing, new = _difference(left, made), _difference(made, left)
    # A row with another value is missing once and new once.
    changed = min(missing, new)
    explained = bool(stones)
    return Recreated(
        dataset=dataset.id, same=False, rows=made.num_rows, forgotten=gone, changed=changed if explained else 0,
        added=new - changed if explained else 0, unexplained=0 if explained else max(missing, new),
        tombstones=[stone.hash for stone in stones],
    )  # fmt: skip


def _stored(dataset: TrainingDataset) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(dataset.path, memory_map=False)


def _difference(left: pa.Table, right: pa.Table) -> int:
    """Return how many rows of `left` are not in `right`; equal rows count one by one, splits do not count."""
    from windrow.stores.difference import missing

    # A split at random may send a row elsewhere when others are gone.
    names = [name for name in right.column_names if name != SPLIT and name in left.column_names]
    import ibis

    return int(missing(left.select(names), ibis.memtable(right.select(names)), every=True).num_rows)
