"""Batch scoring: the spine rows of a stretch of time, their vectors, the live release's answers."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from windrow.models.service import PredictionService
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
