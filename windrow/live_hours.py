"""Hours that pass: features become visible online tick by tick, and each tick is asked about when it comes.

This is how the demo proves the one rule on a clock-driven service: what was served hour after hour must
equal what the point-in-time join says afterwards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import msgspec

from windrow.clock import from_micros
from windrow.features.aggregate import AggregateGroup
from windrow.features.source import Every
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.engine import engine
from windrow.stores.online.store import Row, open_online
from windrow.stores.publish import publish_online

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.group import FeatureGroup
    from windrow.models.service import PredictionService
    from windrow.orchestrate.resources import Stores
    from windrow.settings import Settings
    from windrow.stores.lake import Lake
    from windrow.stores.online.store import Key, OnlineStore
    from windrow.traffic import Answer, Sender

_EFF = "windrow_eff"


def past_ticks(every: Every, *, until: int, count: int) -> list[int]:
    """Return the last `count` ticks up to `until`, oldest first, UTC microseconds.

    Examples
    --------
    >>> from windrow.schema import Entity
    >>> [t // 3_600_000_000 for t in past_ticks(Every("1h", Entity("a", a="string")), until=36_000_000_001, count=3)]
    [8, 9, 10]
    """
    last = every.first(until + 1) - every.interval
    return [last - n * every.interval for n in range(count - 1, -1, -1)]


def fresh_online(settings: Settings, name: str) -> Settings:
    """Return the settings with an empty online store of its own; the project's one is left as it is."""
    folder: Path = settings.home / name
    rmtree(folder, ignore_errors=True)
    return msgspec.structs.replace(settings, online=f"lmdb://{folder}")


def publish_until(groups: Sequence[FeatureGroup], lake: Lake, online: OnlineStore, now: int) -> None:
    """Bring what is visible at `now` to the online store."""
    for group in groups:
        publish_online(group, lake, online, now)


class Tape:
    """The rows of a group in the order in which they become visible, to be played into an online store.

    A stream brings rows online in the same way; `publish_online` asks the lake each time what is new, which
    costs too much for hundreds of hours that pass in seconds.
    """

    def __init__(self, group: FeatureGroup, lake: Lake, *, after: int, until: int) -> None:
        import ibis

        rows = lake.table(group.key).scan(engine())
        eff = ibis.greatest(rows[EVENT_TIME], rows[KNOWN_AT])
        keys, times = list(group.entity.key_names), [EVENT_TIME, KNOWN_AT, SEQ]
        chosen = rows.mutate(**{_EFF: eff}).select(_EFF, *keys, *times, *group.features)
        made = chosen.order_by(_EFF).to_pyarrow()
        self._group, self._keys = group, len(keys)
        self._rows = [row for row in _plain_rows(made) if after < row[0] <= until]
        self._at = 0

    def play(self, store: OnlineStore, until: int) -> None:
        """Write what became visible since the last time, up to `until`."""
        end = bisect_right(self._rows, until, lo=self._at, key=lambda row: int(row[0]))
        store.write(self._group.table_name, list(self._group.features), map(self._row, self._rows[self._at : end]))
        self._at = end

    def _row(self, row: tuple[Any, ...]) -> tuple[Key, Row]:
        first = 1 + self._keys
        event_time, known_at, seq = row[first : first + 3]
        return row[1:first], Row(event_time, known_at, seq, row[first + 3 :])


def _plain_rows(rows: pa.Table) -> list[tuple[Any, ...]]:
    import pyarrow as pa

    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in rows.columns]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


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
        stored = [g for g in service.view.groups if not isinstance(g, AggregateGroup) and g.external is None]
        others = [g for g in service.view.groups if g not in stored]
        tapes = [Tape(group, stores.lake, after=ticks[0], until=ticks[-1]) for group in stored]
        for tick in ticks:
            for tape in tapes:
                tape.play(store, tick)
            publish_until(others, stores.lake, store, tick)
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
