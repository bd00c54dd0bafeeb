"""What Python functions on DataFrames read, found by changing stored rows; remembered per definition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from windrow.errors import DeclarationError, NotFoundError, closest
from windrow.features.frames import FrameFunction
from windrow.features.group import FeatureGroup
from windrow.features.lineage import GroupLineage, lineage, of_relation, with_keys
from windrow.features.probe import SAMPLE, probe
from windrow.features.query_lineage import NOTHING, Read
from windrow.features.source import Source
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.engine import engine
from windrow.stores.materialize import read_current

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.lake import Lake
    from windrow.stores.metadata import Metadata

_ENTITIES = 10  # of which rows are taken, so that windows and lags find neighbours


class _Probed(msgspec.Struct):
    """What was found, as it is kept."""

    features: dict[str, list[Read]]
    rows: list[Read]


def opaque(group: FeatureGroup) -> bool:
    """Return whether a group is made by a function whose reads cannot be read off."""
    return isinstance(group.function, FrameFunction)


def probe_group(group: FeatureGroup, lake: Lake) -> GroupLineage:
    """Return what the function of an opaque group reads, found on at most 200 rows of each input.

    Raises
    ------
    NotFoundError
        If an input was never materialised.
    """
    assert isinstance(group.function, FrameFunction)
    tables = {name: _sample(owner, group, lake) for name, owner in group.inputs.items()}
    identity = [*group.entity.key_names, EVENT_TIME, KNOWN_AT]
    made = probe(group.function.rows, tables, identity=identity)
    # What decides which row is which is among the reads of the rows.
    made = made._replace(columns={**dict.fromkeys(identity, NOTHING), **made.columns})
    return of_relation(group, with_keys(made, {name: owner.key for name, owner in group.inputs.items()}))


def learn(group: FeatureGroup, lake: Lake, metadata: Metadata) -> GroupLineage | None:
    """Probe an opaque group once per definition, and remember the answer; None while an input has no rows.

    Raises
    ------
    DeclarationError
        If the function reads a column that its ``reads=`` does not name.
    """
    found = recall(group, metadata)
    if found is None:
        try:
            found = probe_group(group, lake)
        except NotFoundError:
            return None
        kept = _Probed({name: sorted(reads) for name, reads in found.features.items()}, sorted(found.rows))
        metadata.record_definition(_key(group), group.fingerprint, msgspec.to_builtins(kept))
    _check_declared(group, found)
    return found


def recall(group: FeatureGroup, metadata: Metadata) -> GroupLineage | None:
    """Return what was found for this definition of a group, or None."""
    kept = metadata.definition(_key(group))
    if kept is None or kept.fingerprint != group.fingerprint:
        return None
    made = msgspec.convert(kept.definition, _Probed)
    return GroupLineage({name: frozenset(reads) for name, reads in made.features.items()}, frozenset(made.rows))


def lineages(groups: Iterable[FeatureGroup], metadata: Metadata | None) -> dict[str, GroupLineage]:
    """Return the lineage of every group by key: as declared or read off, else as probed, else assumed."""
    found: dict[str, GroupLineage] = {}
    for group in groups:
        undeclared = isinstance(group.function, FrameFunction) and not group.function.reads
        probed = recall(group, metadata) if undeclared and metadata is not None else None
        found[group.key] = probed or lineage(group)
    return found


def _check_declared(group: FeatureGroup, found: GroupLineage) -> None:
    if not (isinstance(group.function, FrameFunction) and group.function.reads):
        return
    declared = lineage(group)
    for feature, reads in found.features.items():
        known = {(r.table, r.column) for r in declared.reads(feature)}
        for read in sorted(reads):
            if (read.table, read.column) not in known:
                place = f"{read.table.partition('/')[2]}.{read.column}"
                raise DeclarationError(
                    f"feature {feature!r} of group {group.name!r} changes with {place}, which its reads= does not name",
                    exists=closest(place, group.function.reads.get(feature, ())),
                    next_step=f"add {place!r} to reads=, or leave reads= out",
                )


def _sample(owner: Source | FeatureGroup, group: FeatureGroup, lake: Lake) -> pa.Table:
    rows = read_current(owner, lake, engine())
    keys = [name for name in group.entity.key_names if name in owner.fields]
    if keys:
        rows = rows.semi_join(rows.select(keys).distinct().order_by(keys).limit(_ENTITIES), keys)
    return rows.order_by([*keys, EVENT_TIME]).limit(SAMPLE).to_pyarrow()


def _key(group: FeatureGroup) -> str:
    return f"lineage/{group.table_name}"
