"""Whom a spine row is about, and by which of its fields a label is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windrow.errors import DeclarationError, listed
from windrow.features.source import Every

if TYPE_CHECKING:
    from windrow.models.service import PredictionService


def entity_fields(service: PredictionService) -> list[str]:
    """Return the spine's fields that say whom a row is about.

    A clock's are the keys of its entity; a source's are the fields by which its features are looked up.
    """
    spine, contract = service.view.spine, service.view.contract
    if isinstance(spine, Every):
        return list(spine.entity.key_names)
    return list(dict.fromkeys(name for lookup in contract.lookups for name in lookup.fields))


def label_keys(service: PredictionService) -> list[str]:
    """Return the columns by which the label's source is matched with the spine.

    Raises
    ------
    DeclarationError
        If the label's source has none of the spine's keys.
    """
    label = service.label
    if label.on is not None:
        return [label.on]
    if isinstance(service.view.spine, Every) and not entity_fields(service):
        return []  # what is asked about everybody is answered by any row of its time
    wanted = [name for name in entity_fields(service) if name in label.columns]
    # A value belongs to one entity, so it is found by all of its keys; an event may concern a part of them.
    if not wanted or (label.how == "value" and len(wanted) < len(entity_fields(service))):
        raise DeclarationError(
            f"the label of service {service.name!r} cannot be matched with its spine: source {label.source.name!r} lacks its keys",
            exists=f"The spine's keys are {listed(entity_fields(service))}, the label has {listed(label.columns)}",
            next_step="give the label's source the keys of the spine's entity",
        )
    return wanted
