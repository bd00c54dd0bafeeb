"""Where a service's features come from, and which of them can be acted on: read off its declarations for its releases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from windrow.features.contract import Frame
from windrow.features.lineage import contract_lineage, lineage, origins
from windrow.features.source import Source
from windrow.models.background import Background, sampled

if TYPE_CHECKING:
    from windrow.features.group import FeatureGroup
    from windrow.models.service import PredictionService


def background_of(service: PredictionService, frame: Frame) -> bytes:
    """Return the file of a release.

    Parameters
    ----------
    service
        Its view says what features are made of; `Online.immutable` what cannot be acted on.
    frame
        Rows of the training split in canonical form.
    """
    contract = service.view.contract
    keys = {name for lookup in contract.lookups for name in lookup.keys.values()}
    fixed = keys | set(service.online.immutable if service.online else ())
    immutable = [name for name in contract.feature_names if name in fixed]
    return msgspec.json.encode(Background(rows=sampled(frame), origins=source_columns(service), immutable=immutable))


def source_columns(service: PredictionService) -> dict[str, list[str]]:
    """Return feature -> the columns of sources that its value is computed from, through every group between."""
    spine = service.view.spine
    groups = _groups(service.view.groups)
    made = contract_lineage(service.view.contract, spine if isinstance(spine, Source) else None)
    found = {}
    for feature, reads in made.items():
        columns = {c for table, column in origins(reads) for c in _traced(table, column, groups)}
        found[feature] = sorted(f"{table.removeprefix('sources/')}.{column}" for table, column in columns)
    return found


def _traced(table: str, column: str, groups: dict[str, FeatureGroup]) -> set[tuple[str, str]]:
    group = groups.get(table)
    if group is None:
        return {(table, column)}
    made = lineage(group)
    reads = origins(made.features.get(column, made.rows)) or origins(made.rows)
    return {found for key, name in reads for found in _traced(key, name, groups)}


def _groups(groups: Iterable[FeatureGroup]) -> dict[str, FeatureGroup]:
    found: dict[str, FeatureGroup] = {}
    for group in groups:
        below = [item for item in group.inputs.values() if not isinstance(item, Source)]
        found |= {group.key: group} | _groups(below)
    return found
