"""What a view said over a stretch of time, and what it says now, straight from the project's tables.

from windrow import history, latest

history(view, "2026-01-01", "2026-02-01")     one row per change of any feature of each entity
latest(view)                                  one row per entity
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from windrow.clock import parse_time, to_micros
from windrow.errors import DeclarationError
from windrow.features.kinds import check_kind
from windrow.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.join import Table
    from windrow.features.view import FeatureView

Moment = str | datetime | int


def history(
    view: FeatureView,
    start: Moment,
    end: Moment,
    keys: pa.Table | Sequence[Mapping[str, Any]] | None = None,
    *,
    settings: Settings | None = None,
) -> pa.Table:
    """Return one row per change of any feature in a stretch of time.

    Parameters
    ----------
    view
        Its groups must be materialised; no spine is read.
    start, end
        ISO text with zone (or a date), aware datetimes or UTC microseconds, both included.
    keys
        Whom to ask about, such as ``[{"card_id": 7}]``; default: every entity seen by `end`.
    settings
        Where the tables are (default: as the environment says).

    Returns
    -------
    pyarrow.Table
        By entity, then time: the key fields, ``event_time`` of the change, the features as stored, and per group
        ``<group>__event_time`` and ``<group>__status``. A row that repeats the values is no change; a value that
        expires is one. Raw values of requests, and on-demand features that read them, are left out.

    Raises
    ------
    DeclarationError
        If `end` is before `start`, or the view's groups have different keys and `keys` is not given.
    NotFoundError
        If a group was never materialised.
    TimeError
        If a time has no zone.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import pyarrow as pa
    >>> from windrow import Entity, FeatureView, Source, feature_group
    >>> from windrow.stores.lake import Lake
    >>> from windrow.testing import times
    >>> cards = Source("cards", event_time="ts", columns={"card": "int64", "limit": "int64"})
    >>> def profile(cards):
    ...     return cards.select("card", "limit")
    >>> profile.__globals__["cards"] = cards
    >>> view = FeatureView("fraud", spine=cards, features=[feature_group(Entity("card", card="int64"))(profile)])
    >>> at = times("2026-01-01", "2026-01-02", "2026-01-03")
    >>> rows = pa.table({"card": [1, 1, 1], "limit": [10, 10, 20], "event_time": at, "known_at": at})
    >>> settings = Settings.read({"WINDROW_HOME": mkdtemp()})
    >>> _ = Lake(settings.lake).table("features/profile_v1").append(rows)
    >>> history(view, "2026-01-01", "2026-12-31", settings=settings).select(["card", "limit"]).to_pylist()
    [{'card': 1, 'limit': 10}, {'card': 1, 'limit': 20}]
    >>> latest(view, settings=settings)["limit"].to_pylist()
    [20]
    """
    from windrow.features.history import view_history
    from windrow.stores.engine import engine

    span = _micros(start), _micros(end)
    if span[0] > span[1]:
        raise DeclarationError("The history would end before it starts", next_step="swap start and end")
    tables, functions = _tables(_checked(view), settings), _functions(view)
    return view_history(engine(), view.contract, tables, span=span, functions=functions, keys=keys)


def latest(
    view: FeatureView,
    now: Moment | None = None,
    keys: pa.Table | Sequence[Mapping[str, Any]] | None = None,
    *,
    settings: Settings | None = None,
) -> pa.Table:
    """Return one row per entity: what the view says of it now.

    Parameters
    ----------
    view, keys, settings
        As for `history`.
    now
        The time to ask about; default: the settings' clock, which is the newest time in the view's groups where
        the clock is ``data``.

    Returns
    -------
    pyarrow.Table
        By entity, with the columns of `history`; ``event_time`` is `now`.
    """
    from windrow.features.history import view_latest
    from windrow.stores.engine import engine

    settings = settings or Settings.read()
    tables = _tables(_checked(view), settings)
    at = settings.clock.now(lambda: _newest(tables)) if now is None else _micros(now)
    return view_latest(engine(), view.contract, tables, now=at, functions=_functions(view), keys=keys)


def _checked(view: FeatureView) -> FeatureView:
    from windrow.features.view import FeatureView

    check_kind(
        view, FeatureView, where="the view of a history", example="history(view, start, end), with a FeatureView"
    )
    return view


def _tables(view: FeatureView, settings: Settings | None) -> dict[str, Table]:
    from windrow.stores.lake import Lake
    from windrow.stores.tables import group_tables

    return group_tables(view.contract.lookups, Lake((settings or Settings.read()).lake))


def _functions(view: FeatureView) -> dict[str, Any]:
    return {feature.function.__name__: feature.function for feature in view.on_demand}


def _newest(tables: Mapping[str, Table]) -> int:
    """The newest time at which anything became known."""
    import ibis

    from windrow.stores.engine import engine

    found = [
        engine().to_pyarrow(ibis.greatest(t.event_time.max(), t.known_at.max()))
        for t in (table.scan(engine()) for table in tables.values())
    ]
    return max((moment.value for moment in found if moment.is_valid), default=0)


def _micros(moment: Moment) -> int:
    if isinstance(moment, str):
        return parse_time(moment)
    return to_micros(moment) if isinstance(moment, datetime) else int(moment)
