"""Where a contract's look-ups find their rows: in the lake, or read in place in another system."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from windrow.features.group import FeatureGroup
from windrow.stores.external import ExternalTable

if TYPE_CHECKING:
    from windrow.features.contract import Lookup
    from windrow.features.join import Table
    from windrow.features.place import External
    from windrow.features.source import Source
    from windrow.stores.lake import Lake


def group_tables(lookups: Iterable[Lookup], lake: Lake) -> dict[str, Table]:
    """Return group with version -> its rows, for `windrow.features.join.view_frame`.

    Examples
    --------
    >>> from windrow.features.contract import Lookup
    >>> from windrow.stores.lake import Lake
    >>> group_tables([Lookup("card_v1", "", {}, {}, {})], Lake("/tmp/lake"))
    {'card_v1': LakeTable('/tmp/lake/features/card_v1')}
    """
    return {lookup.group: _table(lake_key(lookup), lookup.external, lake) for lookup in lookups}


def table_of(owner: Source | FeatureGroup, lake: Lake) -> Table:
    """Return the rows of a source or group, wherever they are."""
    return _table(owner.key, owner.external if isinstance(owner, FeatureGroup) else None, lake)


def lake_key(lookup: Lookup) -> str:
    """Return the key of the table that a look-up reads: of aggregates, that of the events, which stay where they are.

    Examples
    --------
    >>> from windrow.features.contract import Lookup
    >>> lake_key(Lookup("card_v1", "", {}, {}, {}))
    'features/card_v1'
    """
    return lookup.aggregate.source if lookup.aggregate else f"features/{lookup.group}"


def _table(key: str, external: External | None, lake: Lake) -> Table:
    return lake.table(key) if external is None else ExternalTable(key, external)
