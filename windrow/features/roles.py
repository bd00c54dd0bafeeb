"""Roles: the same group read for different entities, whose keys may be found through yet another group.

A role is a group with where each of its keys comes from: a request field, or a feature of another role.
Two selections of one role are one look-up; what only a function or a key reads is selected under a name of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from windrow.errors import DeclarationError
from windrow.features.group import FeatureGroup, Selection

if TYPE_CHECKING:
    from windrow.features.on_demand import OnDemandFeature
    from windrow.features.source import Column, Every, Source


class Role(NamedTuple):
    """A group, and per key a request field or the feature that holds it."""

    group: FeatureGroup
    keys: tuple[str | Through, ...]

    @property
    def prefix(self) -> str:
        """What its hidden values are called by: ``<group>.``, or ``<keys>.<group>.`` where the keys are others."""
        names = [key if isinstance(key, str) else key.role.prefix + key.name for key in self.keys]
        renamed = tuple(names) != self.group.entity.key_names
        return "".join(f"{name}." for name in [*(names if renamed else []), self.group.name])


class Through(NamedTuple):
    """One feature of a role."""

    role: Role
    name: str


def role(selection: Selection, spine: Source | Every) -> Role:
    """Return the role of a selection in a view on `spine`."""
    return Role(selection.group, tuple(k if isinstance(k, str) else _part(k, spine) for k in selection.keys))


def through(column: Column, spine: Source | Every) -> Through:
    """Return the feature that a column of a group, or of a group in a role, stands for."""
    owner = column.owner.all if isinstance(column.owner, FeatureGroup) else column.owner
    return Through(role(owner, spine), column.name)


def hidden(chosen: Sequence[Selection], computed: Sequence[OnDemandFeature], spine: Source | Every) -> list[Selection]:
    """Return selections of the features that are read and not chosen: by on-demand functions, and as keys."""
    shown = {Through(role(s, spine), name) for s in chosen for name in s.names}
    columns = [c for f in computed for c in f.inputs.values() if isinstance(c.owner, FeatureGroup | Selection)]
    read = [through(column, spine) for column in columns]
    roles = [*(role(s, spine) for s in chosen), *(feature.role for feature in read)]
    wanted: dict[Role, list[str]] = {}
    for feature in [*read, *(key for one in roles for key in _keys(one))]:
        if feature not in shown and feature.name not in wanted.setdefault(feature.role, []):
            wanted[feature.role].append(feature.name)
    return [_selection(one, names) for one, names in wanted.items() if names]


def value_of(feature: Through, selections: Sequence[Selection], spine: Source | Every) -> str:
    """Return the value of a view that `feature` is, among all that `selections` give."""
    found = [s for s in selections if feature.name in s.names and role(s, spine) == feature.role]
    return found[0].prefix + feature.name


def _part(key: Column, spine: Source | Every) -> str | Through:
    if key.owner is spine:
        return key.name
    if isinstance(key.owner, FeatureGroup | Selection):
        return through(key, spine)
    raise DeclarationError(
        f"{key!r} cannot be the key of a group: it is neither a column of the spine {spine.name!r} nor a feature of a group",
        next_step=f"name a column of {spine.name!r}, or a feature such as card_profile.region_id",
    )


def _keys(one: Role) -> list[Through]:
    """The features through which a role's keys are found, and theirs."""
    direct = [key for key in one.keys if isinstance(key, Through)]
    return [*direct, *(found for key in direct for found in _keys(key.role))]


def _selection(one: Role, names: list[str]) -> Selection:
    keys = tuple(k if isinstance(k, str) else _selection(k.role, [k.name]).column(k.name) for k in one.keys)
    return Selection(one.group, tuple(names), keys, one.prefix)
