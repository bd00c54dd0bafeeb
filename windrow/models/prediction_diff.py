"""Two releases asked about the same rows: what they answer differently, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.models.keys import entity_fields
from windrow.models.scoring import PREDICTION, answered, newest_rows
from windrow.models.spine import spine_rows
from windrow.schema import EVENT_TIME

if TYPE_CHECKING:
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.bundle import Bundle
    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake

SAME = 1e-9  # answers that differ by less are the same
_SHOWN = 10
_HALF = 0.5


class PredictionDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What two releases answer differently.

    Attributes
    ----------
    before, after
        The releases.
    rows
        How many rows both were asked about.
    changed, classes
        How many answers differ; how many of these are on the other side of 0.5 (None for a regression).
    unanswered
        How many rows only one of them answers.
    mean, most
        Mean and largest absolute difference over the rows that both answer.
    largest
        The rows that differ most: keys, time, both answers and their difference.
    """

    service: str
    before: str
    after: str
    rows: int
    changed: int
    classes: int | None
    unanswered: int
    mean: float
    most: float
    largest: list[dict[str, Any]]


def prediction_diff(
    service: PredictionService,
    before: Bundle,
    after: Bundle,
    lake: Lake,
    con: BaseBackend,
    *,
    now: int,
    start: int | None,
) -> PredictionDiff:
    """Return how the answers of `after` differ from those of `before`, for rows of one lake.

    Parameters
    ----------
    start, now
        Rows from `start` to `now`, UTC microseconds; without `start` the newest row of each key.
    """
    spine = spine_rows(service, lake, con, start=start, end=now + 1, now=now)
    if start is None:
        spine = newest_rows(spine, entity_fields(service))
    answers = [answered(bundle, lake, con, spine, now=now) for bundle in (before, after)]
    ids = before.id, after.id
    return differences(service.name, ids, answers[0], answers[1], classes=service.label.binary)


def differences(
    service: str, releases: tuple[str, str], before: pa.Table, after: pa.Table, *, classes: bool
) -> PredictionDiff:
    """Compare two answers to the same rows, in the same order.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = {"card": [1, 2], "event_time": pa.array([0, 0], pa.timestamp("us", "UTC"))}
    >>> old, new = (pa.table({**rows, "prediction": made}) for made in ([0.4, 0.9], [0.6, 0.9]))
    >>> found = differences("fraud", ("fraud-1", "fraud-2"), old, new, classes=True)
    >>> found.changed, found.classes, found.largest[0]["card"], round(found.most, 6)
    (1, 1, 1, 0.2)
    """
    old, new = _answers(before), _answers(after)
    apart = np.abs(new - old)
    both = ~np.isnan(apart)
    unanswered = int((np.isnan(old) != np.isnan(new)).sum())
    changed = both & (apart > SAME)
    crossed = int((both & ((old >= _HALF) != (new >= _HALF))).sum())
    return PredictionDiff(
        service=service, before=releases[0], after=releases[1], rows=len(old), changed=int(changed.sum()) + unanswered,
        classes=crossed if classes else None, unanswered=unanswered,
        mean=float(apart[both].mean()) if both.any() else 0.0, most=float(apart[both].max()) if both.any() else 0.0,
        largest=_largest(before, old, new, changed),
    )  # fmt: skip


def _answers(rows: pa.Table) -> NDArray[np.float64]:
    from windrow.features.arrow import to_numpy

    found: NDArray[np.float64] = to_numpy(rows[PREDICTION], "float64")
    return found


def _largest(
    rows: pa.Table, old: NDArray[np.float64], new: NDArray[np.float64], changed: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    places = np.flatnonzero(changed)
    places = places[np.argsort(-np.abs(new - old)[places], kind="stable")][:_SHOWN]
    named = [name for name in rows.column_names[: rows.column_names.index(EVENT_TIME) + 1]]
    facts = rows.select(named).take(places).to_pylist()
    return [
        {**fact, "before": float(old[at]), "after": float(new[at]), "difference": float(new[at] - old[at])}
        for fact, at in zip(facts, places, strict=True)
    ]
