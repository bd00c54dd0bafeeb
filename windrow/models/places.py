"""Where an entity's key stands, read off the declarations: under its own names, in roles, and where groups take it from."""

from __future__ import annotations

from collections.abc import Iterable

from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.group import FeatureGroup
from windrow.features.lineage import lineage
from windrow.models.precomputed import group_of
from windrow.models.service import PredictionService
from windrow.schema import Entity
from windrow.stores.forgetting.forget import Places


def entity(name: str, groups: Iterable[FeatureGroup]) -> Entity:
    """Return the entity that groups are declared for by this name.

    Raises
    ------
    UnknownNameError
        If there is none.
    DeclarationError
        If two of one name have other keys.
    """
    known = {group.entity for group in groups}
    found = [one for one in known if one.name == name]
    if not found:
        raise UnknownNameError("entity", name, sorted({one.name for one in known}), where="the project")
    if len(found) > 1:
        keys = " and ".join(sorted(str({k.name: k.dtype for k in one.keys}) for one in found))
        raise DeclarationError(
            f"entity {name!r} is declared twice, with keys {keys}", next_step="declare it once, and import it"
        )
    return found[0]


def places(entity: Entity, services: Iterable[PredictionService], groups: Iterable[FeatureGroup]) -> Places:
    """Return where the key of an entity may stand, besides columns that are called as the key is.

    Parameters
    ----------
    services
        Of the project: in which request fields their views look the entity up.
    groups
        Every group of the project: those kept by the entity, and the columns that its key is taken from.

    Examples
    --------
    >>> from windrow import Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card": "int64", "eur": "float64"})
    >>> def spend(payments):
    ...     return payments.select("eur", card_id=payments.card)
    >>> spend.__globals__["payments"] = payments
    >>> card = Entity("card", card_id="int64")
    >>> places(card, [], [feature_group(card)(spend)]).tables
    {'sources/payments': [('card',)]}
    """
    own, services = [group for group in groups if group.entity == entity], list(services)
    tables = _taken_from(entity, own)
    served: dict[str, list[tuple[str, ...]]] = {}
    for service in services:
        names = {group.table_name for group in own}
        contract = service.view.contract
        fields = [tuple(k.keys.values()) for k in contract.lookups if k.group in names and not k.stored]
        served[service.name] = list(dict.fromkeys(f for f in fields if f))
        spine = getattr(service.view.spine, "key", None)
        if spine:
            tables.setdefault(spine, []).extend(served[service.name])
    found = {key: list(dict.fromkeys(chosen)) for key, chosen in tables.items()}
    stored = [group_of(service.name) for service in services if served[service.name]]
    return Places(entity, found, served, [*(group.table_name for group in own), *stored])


def _taken_from(entity: Entity, groups: Iterable[FeatureGroup]) -> dict[str, list[tuple[str, ...]]]:
    """Return the columns that become the key, table by table; of a key of several parts nobody can tell which is which."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for group in groups:
        reads = () if len(entity.keys) > 1 or getattr(group, "external", None) else lineage(group).rows
        for read in sorted((r.table, r.column) for r in reads if r.kind == "key"):
            found.setdefault(read[0], []).append((read[1],))
    return found
