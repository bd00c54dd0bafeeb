"""Batch scoring: the answers of a release for many spine rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import MISSING_TEXT, Frame
from windrow.features.source import Every
from windrow.models.bundle import Bundle
from windrow.models.dataset import frame_of
from windrow.models.keys import entity_fields
from windrow.models.runtime import single
from windrow.models.spine import spine_rows
from windrow.schema import EVENT_TIME, KNOWN_AT, Status

if TYPE_CHECKING:
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake

PREDICTION, RELEASE, STATUS = "prediction", "release", "status"
PROBABILITY = "probability_"  # and the class, where there are three or more: then the prediction is a class's place


def score(
    service: PredictionService, bundle: Bundle, lake: Lake, con: BaseBackend, *, start: int, end: int, now: int
) -> pa.Table:
    """Return the answers for every spine row in [start, end), none later than `now`.

    Parameters
    ----------
    bundle
        Its own contract decides which groups are read and how; the service only says which rows.
    start, end, now
        UTC microseconds.

    Returns
    -------
    pyarrow.Table
        The spine's fields, ``event_time``, ``known_at`` (`now`), ``prediction`` (float64; null where
        the model does not take the row's missing values), ``release``, and ``status`` (int8): the
        worst `Status` over the row's look-ups and inputs.
    """
    spine = spine_rows(service, lake, con, start=start, end=min(end, now + 1), now=now)
    return answered(bundle, lake, con, spine, now=now)


def score_latest(service: PredictionService, bundle: Bundle, lake: Lake, con: BaseBackend, *, now: int) -> pa.Table:
    """Return the answers for the newest spine row of each key, as `score` does."""
    spine, keys = spine_rows(service, lake, con, now=now), entity_fields(service)
    # A clock without entity asks about one thing; rows of a source that name no entity are one each.
    everybody = isinstance(service.view.spine, Every) and not keys
    newest = spine.slice(max(0, spine.num_rows - 1)) if everybody else newest_rows(spine, keys)
    return answered(bundle, lake, con, newest, now=now)


def newest_rows(spine: pa.Table, keys: list[str]) -> pa.Table:
    """Return the last row of each key; the spine is ordered by time.

    Examples
    --------
    >>> import pyarrow as pa
    >>> newest_rows(pa.table({"id": [1, 2, 1], "n": [1, 2, 3]}), ["id"])["n"].to_pylist()
    [2, 3]
    """
    import pyarrow as pa

    if not keys:
        return spine
    placed = spine.select(keys).append_column("place", pa.array(np.arange(spine.num_rows)))
    last = placed.group_by(keys).aggregate([("place", "max")])["place_max"]
    return spine.take(pa.array(np.sort(last.to_numpy())))


def answered(bundle: Bundle, lake: Lake, con: BaseBackend, spine: pa.Table, *, now: int) -> pa.Table:
    """Return `spine` with ``known_at``, ``prediction``, ``release`` and ``status``, in its order."""
    import pyarrow as pa

    from windrow.features.join import status_column, view_frame
    from windrow.stores.tables import group_tables

    contract = bundle.contract
    tables = group_tables(contract.lookups, lake)
    framed = view_frame(con, contract, spine, tables, functions=bundle.functions)
    frame = frame_of(framed, contract)
    refused = bundle.refused(frame)
    classes = bundle.release.classes
    answers = _answers(bundle, frame, refused)
    statuses = [_missing(frame), *(framed[status_column(lookup)].to_numpy() for lookup in contract.lookups)]
    known = pa.repeat(pa.scalar(now, pa.int64()), spine.num_rows).cast(pa.timestamp("us", "UTC"))
    made = spine.add_column(spine.column_names.index(EVENT_TIME) + 1, KNOWN_AT, known)
    made = made.append_column(
        PREDICTION, pa.array(single(answers), pa.float64(), mask=refused | np.isnan(single(answers)))
    )
    for place, name in enumerate(classes):
        made = made.append_column(f"{PROBABILITY}{name}", pa.array(answers[:, place], pa.float64(), mask=refused))
    made = made.append_column(RELEASE, pa.array([bundle.id] * spine.num_rows, pa.string()))
    return made.append_column(STATUS, pa.array(np.max(statuses, axis=0).astype(np.int8)))


def _answers(bundle: Bundle, frame: Frame, refused: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the answers of a frame of n rows, NaN where the model refuses the row, shape (n,) or (n, classes)."""
    if not refused.any() and len(refused):
        return bundle.predict_batch(frame)
    classes = bundle.release.classes
    answers = np.full((len(refused), len(classes)) if classes else len(refused), np.nan)
    if not refused.all():
        answers[~refused] = bundle.predict_batch({name: values[~refused] for name, values in frame.items()})
    return answers


def _missing(frame: Frame) -> NDArray[np.int8]:
    """Return `Status.NULL` where any input of the model is missing, else ``PRESENT``, shape (n,)."""
    columns = [values == MISSING_TEXT if values.dtype == object else np.isnan(values) for values in frame.values()]
    return np.where(np.any(columns, axis=0), Status.NULL, Status.PRESENT).astype(np.int8)
