"""Training rows from the prediction log: the vectors as they were served, with what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from windrow.errors import NotFoundError
from windrow.features.arrow import arrow_type
from windrow.models.labels import IMMATURE, KNOWN, LABEL, STATE, UNKNOWN, label_rows
from windrow.schema import EVENT_TIME

if TYPE_CHECKING:
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog


def logged_rows(
    service: PredictionService, lake: Lake, log: PredictionLog, con: BaseBackend, *, now: int, vectors: bool = False
) -> pa.Table:
    """Return every logged prediction that was known by `now`, with its label.

    Parameters
    ----------
    vectors
        Leave out what was answered by a batch run's prediction, without a vector: nothing can be learned from it.

    Returns
    -------
    pyarrow.Table
        ``request_id``, ``row``, the spine's fields, ``event_time``, the view's features, then ``label``
        and ``label_state`` as `windrow.models.labels.label_rows` gives them. Oldest first.

    Raises
    ------
    NotFoundError
        If no prediction was logged.
    """
    import pyarrow.compute as pc

    from windrow.stores.log import with_vector

    logged = log.table(service.name)
    logged = with_vector(logged) if vectors else logged
    logged = logged.filter(pc.less_equal(logged[EVENT_TIME].cast("int64"), now))
    if not logged.num_rows:
        raise NotFoundError(
            f"service {service.name!r} has no logged prediction yet",
            next_step=f"ask it something: POST /v1/{service.name}/predict",
        )
    logged = logged.sort_by([(EVENT_TIME, "ascending"), ("request_id", "ascending"), ("row", "ascending")])
    rows = _rows(service, logged)
    return _labelled(service, lake, con, rows, posted=_posted(log, service, rows, now), now=now)


def _rows(service: PredictionService, logged: pa.Table) -> pa.Table:
    from windrow.stores.log import feature_column

    contract = service.view.contract
    requests = [msgspec.json.decode(text) for text in logged["request"].to_pylist()]
    vectors = [msgspec.json.decode(text) for text in logged["vector"].to_pylist()]
    made = logged.select(["request_id", "row", EVENT_TIME])
    for field in service.view.spine.spine_fields:
        if field.name not in contract.feature_names and field.name != EVENT_TIME:
            made = made.append_column(field.name, _column(requests, field.name, arrow_type(field.dtype)))
    for field in contract.features:
        made = made.append_column(field.name, feature_column(vectors, field))
    return made


def _column(documents: list[dict[str, Any]], name: str, dtype: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.array([document.get(name) for document in documents], dtype)


def _posted(log: PredictionLog, service: PredictionService, rows: pa.Table, now: int) -> pa.Array:
    """Return the outcome that was posted for each row and known by `now`, null without one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    outcomes = log.table(service.name, kind="outcome")
    outcomes = outcomes.filter(pc.less_equal(outcomes["known_at"].cast("int64"), now))
    keys = zip(outcomes["request_id"].to_pylist(), outcomes["row"].to_pylist(), strict=True)
    found = dict(zip(keys, outcomes["outcome"].to_pylist(), strict=True))
    wanted = zip(rows["request_id"].to_pylist(), rows["row"].to_pylist(), strict=True)
    return pa.array([found.get(key) for key in wanted], pa.float64())


def _labelled(
    service: PredictionService, lake: Lake, con: BaseBackend, rows: pa.Table, *, posted: pa.Array, now: int
) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if lake.table(service.label.source.key).exists:
        told = label_rows(service, lake, con, rows, now=now)
        mature = pc.not_equal(told[STATE], IMMATURE)
        label = told[LABEL]
    else:
        mature = pc.less_equal(pc.add(rows[EVENT_TIME].cast("int64"), service.label.matures_after), now)
        label = pa.nulls(rows.num_rows, pa.float64())
    label = pc.if_else(mature, pc.coalesce(posted, label), pa.scalar(None, pa.float64()))
    state = pc.if_else(mature, pc.if_else(pc.is_valid(label), KNOWN, UNKNOWN), IMMATURE)
    return rows.append_column(LABEL, label).append_column(STATE, state)
