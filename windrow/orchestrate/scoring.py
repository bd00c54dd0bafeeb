"""Batch scoring into sinks: the live release's answers for a stretch of time, or for the newest rows."""

from typing import TYPE_CHECKING, NamedTuple

from windrow.models.service import PredictionService
from windrow.orchestrate.releases import live_bundle
from windrow.orchestrate.resources import Stores
from windrow.schema import KNOWN_AT

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.stores.sinks import SinkWrite


class Scored(NamedTuple):
    """What one scoring run wrote; `fingerprint` changes with the rows and their answers, `left_out` are sinks and why."""

    rows: "pa.Table"
    release: str
    writes: "list[SinkWrite]"
    left_out: dict[str, str]
    fingerprint: str


def score_to_sinks(service: PredictionService, stores: Stores, *, span: tuple[int, int] | None, now: int) -> Scored:
    """Score the rows of `span` (or the newest row of each key) and write them to every sink.

    Where the service declares `precomputed`, the online store gets the newest prediction of each entity after that.

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
    SettingsError
        If a sink that is not optional has no address; nothing is scored then.
    """
    from windrow.models.content import content_hash
    from windrow.models.publishing import publish_predictions
    from windrow.models.scoring import score, score_latest
    from windrow.stores.engine import engine
    from windrow.stores.online.store import open_online
    from windrow.stores.sinks import absent, require, write_sink

    assert service.batch is not None
    settings = stores.settings
    for sink in service.batch.sinks:
        require(sink, settings)
    left_out = {sink: why for sink in service.batch.optional_sinks if (why := absent(sink, settings))}
    bundle, lake = live_bundle(service, stores), stores.lake
    if span is None:
        rows = score_latest(service, bundle, lake, engine(), now=now)
    else:
        rows = score(service, bundle, lake, engine(), start=span[0], end=span[1], now=now)
    there = [sink for sink in service.batch.every_sink if sink not in left_out]
    writes = [write_sink(sink, service.name, rows, lake=lake, settings=settings, day=span) for sink in there]
    if service.online is not None and service.online.precomputed is not None:
        with open_online(settings.online, write=True) as online:
            publish_predictions(service.name, bundle.contract, rows, online)
    # The same answers given again, later, are the same data: the hash leaves out when they were given.
    return Scored(rows, bundle.id, writes, left_out, content_hash(rows.drop_columns([KNOWN_AT]))[:16])
