"""Batch scoring: the spine rows of a stretch of time, their vectors, the live release's answers."""

import hashlib
from collections.abc import Sequence
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
    from windrow.stores.sinks import write_sink

    assert service.batch is not None
    bundle = live_bundle(service, stores)
    spine = _spine(service, stores, span, now)
    rows = predict(service, stores, bundle, spine)
    home = stores.settings.home
    writes = [write_sink(s, service.name, rows, lake=stores.lake, home=home, day=span) for s in service.batch.sinks]
    return Scored(rows, bundle.id, writes, _content(rows))


def predict(service: PredictionService, stores: Stores, bundle: "Bundle", spine: "pa.Table") -> "pa.Table":
    """Return the spine rows with ``prediction`` (float64) and ``release``, in the spine's order."""
    import pyarrow as pa

    from windrow.features.arrow import to_numpy
    from windrow.features.contract import canonical
    from windrow.features.join import view_frame
    from windrow.stores.engine import engine

    contract = bundle.contract
    tables = {group.table_name: stores.lake.table(group.key) for group in service.view.groups}
    framed = view_frame(engine(), contract, spine, tables, functions=bundle.functions)
    values = {field.name: to_numpy(framed.column(field.name), field.dtype) for field in contract.features}
    answers = bundle.predict(canonical(contract, values)) if spine.num_rows else np.empty(0)
    rows = spine.select([f.name for f in service.view.spine.spine_fields] + [EVENT_TIME, KNOWN_AT])
    rows = rows.append_column(PREDICTION, pa.array(answers, pa.float64()))
    return rows.append_column(RELEASE, pa.array([bundle.id] * rows.num_rows, pa.string()))


def _spine(service: PredictionService, stores: Stores, span: tuple[int, int] | None, now: int) -> "pa.Table":
    from windrow.models.dataset import spine_rows
    from windrow.stores.engine import engine

    if span is None:
        rows = spine_rows(service, stores.lake, engine(), now=now)
        return newest(rows, keys=_keys(service))
    # The end of a day is not part of it; what the clock has not reached yet is not there to be scored.
    return spine_rows(service, stores.lake, engine(), start=span[0], end=min(span[1] - 1, now), now=now)


def newest(rows: "pa.Table", *, keys: Sequence[str]) -> "pa.Table":
    """Return the newest row of each key, in the order of `rows`; of equal times the later row.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"id": [1, 2, 1], "event_time": [5, 6, 7]})
    >>> newest(rows, keys=["id"]).to_pydict()
    {'id': [2, 1], 'event_time': [6, 7]}
    """
    import pyarrow as pa

    if not keys:
        return rows
    places = pa.array(np.arange(rows.num_rows))
    ordered = rows.append_column("_place", places).sort_by([(EVENT_TIME, "ascending"), ("_place", "ascending")])
    kept = ordered.group_by(list(keys), use_threads=False).aggregate([("_place", "last")])
    return rows.take(pa.array(np.sort(kept.column("_place_last").to_numpy())))


def _keys(service: PredictionService) -> list[str]:
    """Request fields that find an entity: together they name what a prediction is about."""
    lookups = service.view.contract.lookups
    return list(dict.fromkeys(field for lookup in lookups for field in lookup.keys.values()))


def _content(rows: "pa.Table") -> str:
    import pyarrow as pa

    answers = rows.drop_columns([KNOWN_AT]).combine_chunks()  # the same answers given again are the same data
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answers.schema) as stream:
        stream.write_table(answers)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:16]
