"""What becomes of rows whose features are not what the release was trained for: its declared policies, applied."""

from __future__ import annotations

import math
from collections.abc import Callable

from windrow.errors import RequestError, listed
from windrow.features.contract import Contract
from windrow.models.policies import Policy
from windrow.models.release import Release
from windrow.schema import Status
from windrow.serving.vectors import AWAY, OLD, UNKNOWN, Vectors

_STEPS = {
    OLD: "run `windrow materialize GROUP`, or declare Online(expired='predict')",
    AWAY: "try again; the service's log says which store",
}
_SAID = {
    OLD: "A stored value of this entity is too old to be used (status expired)",
    AWAY: "The online store cannot be used now (status unavailable)",
}
_KINDS = {OLD: "expired", AWAY: "store-unavailable"}


Where = Callable[[int], str]
"""Says where a row stands in its request."""


def rows_for_fallback(release: Release, vectors: Vectors, where: Where) -> list[int]:
    """Return the rows that the release leaves to its fallback.

    Raises
    ------
    RequestError
        For the first row that it refuses: 404 for an unknown entity, 503 for what is too old or away.
    """
    left = []
    for row, reasons in vectors.degraded.items():
        chosen = [_policy(release, reason) for reason in reasons]
        if "refuse" in chosen:
            raise refusal(release, vectors, row, reasons[chosen.index("refuse")], where)
        if "fallback" in chosen:
            left.append(row)
    return left


def refusal(release: Release, vectors: Vectors, row: int, reason: str, where: Where) -> RequestError:
    """Return what a caller is told of a row that is refused for a reason."""
    if reason == UNKNOWN:
        return _unknown(release.contract, vectors.unknown[row][0], where(row))
    return RequestError(503, _KINDS[reason], _SAID[reason], where=where(row), next_step=_STEPS[reason])


def nothing(contract: Contract, rows: int) -> Vectors:
    """Return vectors in which nothing is known: of rows whose features could not be made."""
    names = contract.feature_names
    missing = [None if f.dtype == "string" else math.nan for f in contract.features]
    unavailable = dict.fromkeys(names, int(Status.UNAVAILABLE))
    return Vectors(names, None, None, [missing] * rows, [False] * rows, [unavailable] * rows, {})


def _policy(release: Release, reason: str) -> Policy:
    policies = release.policies
    return {UNKNOWN: release.unknown_entity, OLD: policies.expired, AWAY: policies.store_away}[reason]


def _unknown(contract: Contract, group: str, row: str) -> RequestError:
    keys = next(lk.fields for lk in contract.lookups if lk.group == group and lk.fields)
    step = f"send {listed(keys)} of an entity that was published, or declare Online(unknown_entity='predict')"
    what = f"Group {group!r} has no row for this entity (status not_found)"
    return RequestError(404, "unknown-entity", what, where=f"{row}.{keys[0]}", next_step=step)
