"""Hours that pass: features become visible online tick by tick, and each tick is asked about when it comes.

This is how the demo proves the one rule on a clock-driven service: what was served hour after hour must
equal what the point-in-time join says afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.clock import from_micros
from windrow.features.source import Every
from windrow.schema import EVENT_TIME
from windrow.stores.online import open_online
from windrow.stores.publish import publish_online

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.group import FeatureGroup
    from windrow.models.service import PredictionService
    from windrow.orchestrate.resources import Stores
    from windrow.settings import Settings
    from windrow.stores.lake import Lake
    from windrow.stores.online import OnlineStore
    from windrow.traffic import Answer, Sender


def past_ticks(every: Every, *, until: int, count: int) -> list[int]:
    """Return the last `count` ticks up to `until`, oldest first, UTC microseconds.

    Examples
    --------
    >>> from windrow.schema import Entity
    >>> [t // 3_600_000_000 for t in past_ticks(Every("1h", Entity("a", a="string")), until=36_000_000_001, count=3)]
    [8, 9, 10]
    """
    last = until // every.interval
    return [n * every.interval for n in range(last - count + 1, last + 1)]


def fresh_online(settings: Settings, name: str) -> Settings:
    """Return the settings with an empty online store of its own; the project's one is left as it is."""
    folder: Path = settings.home / name
    rmtree(folder, ignore_errors=True)
    return msgspec.structs.replace(settings, online=f"lmdb://{folder}")


def publish_until(groups: Sequence[FeatureGroup], lake: Lake, online: OnlineStore, now: int) -> None:
    """Bring what is visible at `now` to the online store."""
    for group in groups:
        publish_online(group, lake, online, now)


def live_through(
    service: PredictionService, stores: Stores, sender: Sender, *, online: str, ticks: Sequence[int]
) -> tuple[pa.Table, list[Answer]]:
    """Let the hours of `ticks` pass: publish what became visible since the last one, then ask about every key.

    Parameters
    ----------
    service
        Its spine is a clock.
    online
        URL of the store that the running service reads; what is visible before the first tick is in it.

    Returns
    -------
    pyarrow.Table, list of Answer
        The spine rows that were asked about, and what was answered, in the same order.
    """
    asked: list[dict[str, Any]] = []
    answers: list[Answer] = []
    keys = _keys(service, stores, ticks[-1])
    with open_online(online, write=True) as store:
        before: int | None = None
        for tick in ticks:
            for group in service.view.groups:
                publish_online(group, stores.lake, store, tick, since=before)
            before = tick
            asked += [{**key, EVENT_TIME: from_micros(tick)} for key in keys]
            answers += [sender.predict(service.name, _request(key, tick)) for key in keys]
    return _table(service, asked), answers


def _request(key: dict[str, Any], tick: int) -> dict[str, Any]:
    return {**key, EVENT_TIME: from_micros(tick).isoformat()}


def _keys(service: PredictionService, stores: Stores, now: int) -> list[dict[str, Any]]:
    from windrow.models.keys import entity_fields
    from windrow.models.spine import seen_keys
    from windrow.stores.engine import engine

    seen = seen_keys(service, stores.lake, engine(), now=now, as_of=None)
    found: list[dict[str, Any]] = seen.select(entity_fields(service)).to_pylist()
    return found


def _table(service: PredictionService, rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    from windrow.features.arrow import arrow_type

    fields = {f.name: arrow_type(f.dtype) for f in service.view.spine.spine_fields}
    return pa.Table.from_pylist(rows, pa.schema({**fields, EVENT_TIME: arrow_type("timestamp")}))
