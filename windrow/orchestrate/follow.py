"""Following a stream: features of what came in, then the answers that are due, until somebody says stop."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from windrow.discover import groups
from windrow.errors import DeclarationError
from windrow.features.aggregate import AggregateGroup
from windrow.features.group import FeatureGroup
from windrow.models.service import PredictionService
from windrow.orchestrate.releases import live_bundle
from windrow.orchestrate.resources import Stores

if TYPE_CHECKING:
    import pyarrow as pa

PAUSE = 1.0  # seconds between two looks


class Followed(NamedTuple):
    """What one look found: feature rows that were new, and the answers that were due."""

    features: int
    answers: "pa.Table"


def follow(
    service: PredictionService,
    stores: Stores,
    *,
    stop: Callable[[], bool],
    told: Callable[[Followed], None] = lambda seen: None,
    pause: float = PAUSE,
) -> None:
    """Look again and again, until `stop` says so.

    Parameters
    ----------
    service
        Declares `stream`.
    told
        Called after each look that answered something.
    pause
        Seconds between two looks.

    Raises
    ------
    DeclarationError
        If the service declares no stream.
    NotFoundError
        If it has no release, or its sources were never read.
    """
    while not stop():
        seen = look(service, stores)
        if seen.answers.num_rows:
            told(seen)
        time.sleep(pause)


def look(service: PredictionService, stores: Stores) -> Followed:
    """Make features of the rows that came in, publish them, and answer what is due by now."""
    from windrow.models.stream import score_stream
    from windrow.stores.engine import engine

    if service.stream is None:
        raise DeclarationError(
            f"service {service.name!r} declares no stream", next_step="write stream=Stream() in its PredictionService"
        )
    # The time is read first: what comes in while features are made is for the next look.
    now, bundle = stores.now(service.sources), live_bundle(service, stores)
    made = sum(_made(group, stores, now=now) for group in groups([service]) if _stored(group))
    return Followed(made, score_stream(service, bundle, stores.lake, engine(), now=now))


def _stored(group: FeatureGroup) -> bool:
    return not isinstance(group, AggregateGroup) and group.external is None


def _made(group: FeatureGroup, stores: Stores, *, now: int) -> int:
    from windrow.stores.materialize import materialize_group
    from windrow.stores.online.store import open_online
    from windrow.stores.publish import publish_online

    written = materialize_group(group, stores.lake, stores.metadata).rows_written
    if group.online and written:
        with open_online(stores.settings.online, write=True) as online:
            publish_online(group, stores.lake, online, now)
    return written
