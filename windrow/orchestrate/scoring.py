"""Batch scoring: the spine rows of a stretch of time, their vectors, the live release's answers."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from windrow.models.service import PredictionService
from windrow.orchestrate.releases import live_bundle
from windrow.orchestrate.resources import Stores
from windrow.schema import EVENT_TIME, KNOWN_AT

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.bundle import Bundle
    from windrow.stores.sinks import SinkWrite

PREDICTION, RELEASE = "prediction", "release"


class Scored(NamedTuple):
    """What one scoring run wrote; `fingerprint` changes with the rows and their answers."""

    rows: "pa.Table"
    release: str
    writes: "list[SinkWrite]"
    fingerprint: str


def score(service: PredictionService, stores: Stores, *, span: tuple[int, int] | None, now: int) -> Scored:
    """Score the rows of `span` (or the newest row of each key) and write them to every sink.

    Parameters
    ----------
    span
        Start (included) and end (excluded) in UTC microseconds; a sink's rows of that time are
        replaced. None: the newest row of each key, and a sink's whole table is replaced.
    now
        The clock's now; no later row is scored.

    Raises
    ------
    NotFoundError
        If the service has no release yet.
    """
    from windrow.models.content import content_hash
    from windrow.stores.sinks import write_sink

    assert service.batch is not None
    bundle = live_bundle(service, stores)
    spine = newest_rows(service, stores, now=now) if span is None else day_rows(service, stores, span, now=now)
    answered = predict(service, stores, bundle, spine)
    rows = _with_known_at(answered, now)
    home = stores.settings.home
    writes = [write_sink(s, service.name, rows, lake=stores.lake, home=home, day=span) for s in service.batch.sinks]
    # The same answers given again, later, are the same data: the hash leaves out when they were given.
    return Scored(rows, bundle.id, writes, content_hash(answered)[:16])


def day_rows(service: PredictionService, stores: Stores, span: tuple[int, int], *, now: int) -> "pa.Table":
    """Return the spine rows of `span` up to and with `now`."""
    from windrow.models.spine import spine_rows
    from windrow.stores.engine import engine

    return spine_rows(service, stores.lake, engine(), start=span[0], end=min(span[1], now + 1), now=now)


def newest_rows(service: PredictionService, stores: Stores, *, now: int) -> "pa.Table":
    """Return the newest spine row of everybody that predictions are about."""
    from windrow.models.spine import entity_fields, spine_rows
    from windrow.stores.engine import engine

    rows = spine_rows(service, stores.lake, engine(), now=now)
    fields = entity_fields(service)
    return rows.take(last_of_each(rows, fields)) if fields else rows


def last_of_each(rows: "pa.Table", fields: list[str]) -> "pa.Array":
    """Return the positions of each key's last row, in order; `rows` are ordered by time.

    Examples
    --------
    >>> import pyarrow as pa
    >>> last_of_each(pa.table({"id": [1, 2, 1]}), ["id"]).to_pylist()
    [1, 2]
    """
    import pyarrow as pa

    placed = rows.select(fields).append_column("place", pa.array(np.arange(rows.num_rows)))
    last = placed.group_by(fields).aggregate([("place", "max")])
    return pa.array(np.sort(last.column("place_max").to_numpy()))


def predict(service: PredictionService, stores: Stores, bundle: "Bundle", spine: "pa.Table") -> "pa.Table":
    """Return the spine rows with ``prediction`` (float64) and ``release``, in the spine's order."""
    import pyarrow as pa

    from windrow.features.join import view_frame
    from windrow.models.dataset import frame_of
    from windrow.stores.engine import engine

    tables = {group.table_name: stores.lake.table(group.key) for group in service.view.groups}
    framed = view_frame(engine(), bundle.contract, spine, tables, functions=bundle.functions)
    answers = bundle.predict(frame_of(framed, bundle.contract)) if spine.num_rows else np.empty(0)
    rows = spine.append_column(PREDICTION, pa.array(answers, pa.float64()))
    return rows.append_column(RELEASE, pa.array([bundle.id] * rows.num_rows, pa.string()))


def _with_known_at(rows: "pa.Table", now: int) -> "pa.Table":
    import pyarrow as pa

    known = pa.repeat(pa.scalar(now, pa.int64()), rows.num_rows).cast(pa.timestamp("us", "UTC"))
    return rows.add_column(rows.column_names.index(EVENT_TIME) + 1, KNOWN_AT, known)
