"""What becomes of rows whose features are not what the release was trained for: its declared policies, applied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windrow.errors import RequestError, listed
from windrow.features.contract import Contract
from windrow.models.policies import Policy
from windrow.models.release import Release
from windrow.schema import Status
from windrow.serving.transformer import AWAY, OLD, UNKNOWN, Vectors

if TYPE_CHECKING:
    pass

_STEPS = {
    OLD: "run `windrow materialize GROUP`, or declare Online(expired='predict')",
    AWAY: "try again; the service's log says which store",
}
_SAID = {
    OLD: "A stored value of this entity is too old to be used (status expired)",
    AWAY: "The online store cannot be used now (status unavailable)",
}
_KINDS = {OLD: "expired", AWAY: "store-unavailable"}


def rows_for_fallback(release: Release, vectors: Vectors) -> list[int]:
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
            raise refusal(release, vectors, row, reasons[chosen.index("refuse")])
        if "fallback" in chosen:
            left.append(row)
    return left


def refusal(release: Release, vectors: Vectors, row: int, reason: str) -> RequestError:
    """Return what a caller is told of a row that is refused for a reason."""
    if reason == UNKNOWN:
        return _unknown(release.contract, vectors, row)
    where = f"$.rows[{row}]" if len(vectors) > 1 else "$"
    return RequestError(503, _KINDS[reason], _SAID[reason], where=where, next_step=_STEPS[reason])


def only(vectors: Vectors, rows: Sequence[int]) -> Vectors:
    """Return the vectors of some rows."""
    matrix = None if vectors.matrix is None else vectors.matrix[list(rows)]
    columns = None if vectors.columns is None else {n: v[list(rows)] for n, v in vectors.columns.items()}
    lists, finite, statuses = ([kept[i] for i in rows] for kept in (vectors.lists, vectors.finite, vectors.statuses))
    return Vectors(vectors.names, matrix, columns, lists, finite, statuses, {})  # type: ignore[arg-type]


def nothing(contract: Contract, rows: int) -> Vectors:
    """Return vectors in which nothing is known: of rows whose features could not be made."""
    names = contract.feature_names
    missing = [None if f.dtype == "string" else math.nan for f in contract.features]
    unavailable = dict.fromkeys(names, int(Status.UNAVAILABLE))
    return Vectors(names, None, None, [missing] * rows, [False] * rows, [unavailable] * rows, {})


def _policy(release: Release, reason: str) -> Policy:
    policies = release.policies
    return {UNKNOWN: release.unknown_entity, OLD: policies.expired, AWAY: policies.store_away}[reason]


def _unknown(contract: Contract, vectors: Vectors, row: int) -> RequestError:
    group = vectors.unknown[row][0]
    keys = next(lk.fields for lk in contract.lookups if lk.group == group and lk.fields)
    where = f"$.rows[{row}].{keys[0]}" if len(vectors) > 1 else f"$.{keys[0]}"
    step = f"send {listed(keys)} of an entity that was published, or declare Online(unknown_entity='predict')"
    what = f"Group {group!r} has no row for this entity (status not_found)"
    return RequestError(404, "unknown-entity", what, where=where, next_step=step)
