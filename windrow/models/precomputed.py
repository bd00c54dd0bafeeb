"""Predictions that a batch run made, by entity key in the online store: requests find them there.

They are the newest of each entity, with the release that made them and the time they are about. A request takes
one only from the release that is live, so that a promotion or a rollback leaves none behind that is not wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from windrow.errors import DeclarationError, listed
from windrow.features.contract import Contract

COLUMNS = ("output", "release")


class Kept(NamedTuple):
    """A stored prediction: what the release said, and the time it is about, UTC microseconds."""

    output: float | list[float]
    event_time: int


def group_of(service: str) -> str:
    """Return the name under which the online store has a service's predictions.

    Examples
    --------
    >>> group_of("churn")
    'predictions/churn'
    """
    return f"predictions/{service}"


def key_fields(contract: Contract) -> tuple[str, ...]:
    """Return the request fields that name the one entity a request is about, in the order of its keys.

    Raises
    ------
    DeclarationError
        If a request says more than that, or names several entities: what else it says would not be in a prediction
        that was made before.
    """
    roles = [lookup.fields for lookup in contract.lookups if lookup.fields]
    asked = [field.name for field in contract.request]
    if not roles or set(asked) != set(roles[0]) or any(set(role) != set(roles[0]) for role in roles):
        raise DeclarationError(
            f"predictions of view {contract.view!r} cannot be made before they are asked for: a request is more than the key of one entity",
            exists=f"It gives {listed(asked)}",
            next_step="leave precomputed= out: the service then computes each answer",
        )
    return roles[0]


def packed(shares: Sequence[float]) -> bytes:
    """Return the probabilities of classes as the online store keeps them."""
    return Struct(f"<{len(shares)}d").pack(*shares)


def unpacked(output: float | bytes) -> float | list[float]:
    """Return a stored output as a model gives it: a number, or the probabilities of classes.

    Examples
    --------
    >>> unpacked(0.5), unpacked(packed([0.25, 0.75]))
    (0.5, [0.25, 0.75])
    """
    return list(Struct(f"<{len(output) // 8}d").unpack(output)) if isinstance(output, bytes) else output
