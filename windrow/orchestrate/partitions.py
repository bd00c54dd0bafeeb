"""Daily partitions by the service's clock: from the first full day with features to the clock's day."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from windrow.clock import SECOND, Clock, duration, from_micros
from windrow.features.source import Source
from windrow.models.service import PredictionService
from windrow.orchestrate.factories import all_sources

if TYPE_CHECKING:
    from windrow.stores.metadata import Span

DAY = duration("1d")
_FORMAT = "%Y-%m-%d"
# Before the first source is there, there is no day to score: an empty set, not a guessed one.
# (Not 1970: Dagster takes an end at 0 for no end.)
_NO_DAYS = ("2000-01-01", "2000-01-01")


def day_partitions(
    service: PredictionService, spans: "Mapping[str, Span]", clock: Clock
) -> dg.DailyPartitionsDefinition | None:
    """Return the days on which `service` has rows to score, or None if it is not scored by day.

    Parameters
    ----------
    spans
        Source name -> its first and last event time and its latest known time; missing sources make
        the set empty.
    clock
        With the ``real`` clock the set grows with the wall clock; otherwise it ends with the clock's day.
    """
    if service.batch is None or service.batch.rows != "day":
        return None
    if any(source.name not in spans for source in service.sources):
        return dg.DailyPartitionsDefinition(start_date=_NO_DAYS[0], end_date=_NO_DAYS[1])
    start = first_full_day(first_with_features(service, spans))
    if clock.kind == "real":
        return dg.DailyPartitionsDefinition(start_date=day_name(start), end_offset=1)
    now = clock.now(lambda: max(spans[source.name].known for source in service.sources))
    # The end is exclusive for Dagster; the clock's own day belongs to the set.
    end = max(start, last_moment(service, spans, now) // DAY * DAY + DAY)
    return dg.DailyPartitionsDefinition(start_date=day_name(start), end_date=day_name(end))


def first_with_features(service: PredictionService, spans: "Mapping[str, Span]") -> int:
    """Return the first moment at which every group has at least one row that was known."""
    read = [source for group in service.view.groups for source in all_sources(group)]
    moments = [spans[source.name].first + source.delay for source in read]
    if isinstance(service.view.spine, Source):
        moments.append(spans[service.view.spine.name].first)
    return max(moments, default=0)


def last_moment(service: PredictionService, spans: "Mapping[str, Span]", now: int) -> int:
    """Return the last moment that can have a row: now for a clock, the last event for a source."""
    spine = service.view.spine
    return min(now, spans[spine.name].last) if isinstance(spine, Source) else now


def first_full_day(moment: int) -> int:
    """Return the first midnight (UTC microseconds) at or after `moment`.

    Examples
    --------
    >>> first_full_day(1) == first_full_day(DAY) == DAY
    True
    """
    return -(-moment // DAY) * DAY


def day_name(micros: int) -> str:
    """Return the partition key of the day that holds `micros`.

    Examples
    --------
    >>> day_name(DAY + 5)
    '1970-01-02'
    """
    return from_micros(micros).strftime(_FORMAT)


def day_start(key: str) -> int:
    """Return the first microsecond of a partition.

    Examples
    --------
    >>> day_start("1970-01-02") == DAY
    True
    """
    return int(datetime.strptime(key, _FORMAT).replace(tzinfo=UTC).timestamp()) * SECOND
