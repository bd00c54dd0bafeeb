"""What a view says at given times, over a stretch of time, and now, straight from the project's tables.

from windrow import history, latest, point_in_time

point_in_time(view, spine)                    one row per row of the spine
history(view, "2026-01-01", "2026-02-01")     one row per change of any feature of each entity
latest(view)                                  one row per entity

Each takes ``to="rows.parquet"``: the rows go to this file, however many they are, instead of into memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from windrow.clock import parse_time, to_micros
from windrow.errors import DeclarationError
from windrow.features.kinds import check_kind
from windrow.settings import Settings

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

    from windrow.features.history import Question
    from windrow.features.join import Table
    from windrow.features.view import FeatureView

    Entities: TypeAlias = "pa.Table | Sequence[Mapping[str, Any]]"
    Spine: TypeAlias = "pa.Table | ir.Table | pa.RecordBatchReader"

Moment = str | datetime | int
File = str | PathLike[str]


@overload
def point_in_time(view: FeatureView, spine: Spine, *, to: None = ..., settings: Settings | None = ...) -> pa.Table: ...


@overload
def point_in_time(view: FeatureView, spine: Spine, *, to: File, settings: Settings | None = ...) -> int: ...


def point_in_time(
    view: FeatureView,
    spine: Spine,
    *,
    to: File | None = None,
    settings: Settings | None = None,
) -> pa.Table | int:
    """Return every feature of a view as it was known at each row of a spine.

    Parameters
    ----------
    view
        Its groups must be materialised.
    spine
        n rows: the request's columns, such as keys, and ``event_time`` (timestamp[us, UTC]). Of a reader of record
        batches, with `to`, one stretch after the other is in memory.
    to
        A Parquet file to write instead, in bounded memory. It appears, or takes the place of the one that is there,
        when it is whole.
    settings
        Where the tables are (default: as the environment says).

    Returns
    -------
    pyarrow.Table
        n rows in the spine's order: its columns, every feature as float32 or string as models see it (missing is
        null), and per group ``<group>__event_time`` and ``<group>__status``. With `to`: the number of rows written.

    Raises
    ------
    NotFoundError
        If a group was never materialised.
    SchemaError, TimeError, UnknownNameError
        If the spine lacks a column, has one of another type, or times without zone.
    StoreError
        If the file cannot be written, or is a folder; nothing is left behind.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import pyarrow as pa
    >>> import pyarrow.parquet as pq
    >>> from windrow import Entity, FeatureView, Source, feature_group
    >>> from windrow.stores.lake import Lake
    >>> from windrow.testing import times
    >>> cards = Source("cards", event_time="ts", columns={"card": "int64", "limit": "int64"})
    >>> def profile(cards):
    ...     return cards.select("card", "limit")
    >>> profile.__globals__["cards"] = cards
    >>> view = FeatureView("fraud", spine=cards, features=[feature_group(Entity("card", card="int64"))(profile)])
    >>> at, home = times("2026-01-01", "2026-01-03"), mkdtemp()
    >>> rows = pa.table({"card": [1, 1], "limit": [10, 20], "event_time": at, "known_at": at})
    >>> settings = Settings.read({"WINDROW_HOME": home})
    >>> _ = Lake(settings.lake).table("features/profile_v1").append(rows)
    >>> spine = pa.table({"card": [1, 1, 2], "event_time": times("2026-01-04", "2026-01-02", "2026-01-04")})
    >>> point_in_time(view, spine, settings=settings)["limit"].to_pylist()
    [20.0, 10.0, None]
    >>> point_in_time(view, spine, to=f"{home}/training.parquet", settings=settings)
    3
    >>> pq.read_table(f"{home}/training.parquet")["limit"].to_pylist()
    [20.0, 10.0, None]
    """
    import pyarrow as pa

    from windrow.features.join import view_frame
    from windrow.features.parquet import view_frame_to_parquet
    from windrow.stores.engine import engine

    tables, functions = _tables(_checked(view), settings), _functions(view)
    if to is None:
        spine = spine.read_all() if isinstance(spine, pa.RecordBatchReader) else spine
        return view_frame(engine(), view.contract, spine, tables, functions=functions)
    return view_frame_to_parquet(engine(), view.contract, spine, tables, Path(to), functions=functions)


@overload
def history(
    view: FeatureView,
    start: Moment,
    end: Moment,
    keys: Entities | None = ...,
    *,
    to: None = ...,
    settings: Settings | None = ...,
) -> pa.Table: ...


@overload
def history(
    view: FeatureView,
    start: Moment,
    end: Moment,
    keys: Entities | None = ...,
    *,
    to: File,
    settings: Settings | None = ...,
) -> int: ...


def history(
    view: FeatureView,
    start: Moment,
    end: Moment,
    keys: Entities | None = None,
    *,
    to: File | None = None,
    settings: Settings | None = None,
) -> pa.Table | int:
    """Return one row per change of any feature in a stretch of time.

    Parameters
    ----------
    view
        Its groups must be materialised; no spine is read.
    start, end
        ISO text with zone (or a date), aware datetimes or UTC microseconds, both included.
    keys
        Whom to ask about, such as ``[{"card_id": 7}]``; default: every entity seen by `end`.
    to
        A Parquet file to write instead, which appears, or takes the place of the one that is there, when it is
        whole. Memory then holds keys and times of what may have changed, but not the values.
    settings
        Where the tables are (default: as the environment says).

    Returns
    -------
    pyarrow.Table
        By entity, then time: the key fields, ``event_time`` of the change, the features as stored, and per group
        ``<group>__event_time`` and ``<group>__status``. A row that repeats the values is no change; a value that
        expires is one. Raw values of requests, and on-demand features that read them, are left out. With `to`: the
        number of rows written.

    Raises
    ------
    DeclarationError
        If `end` is before `start`, or the view's groups have different keys and `keys` is not given.
    NotFoundError
        If a group was never materialised.
    StoreError
        If the file cannot be written, or is a folder; nothing is left behind.
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
    >>> history(view, "2026-01-01", "2026-12-31", to=f"{mkdtemp()}/history.parquet", settings=settings)
    2
    >>> latest(view, settings=settings)["limit"].to_pylist()
    [20]
    """
    from windrow.features.history import ask_history
    from windrow.stores.engine import engine

    span = _micros(start), _micros(end)
    if span[0] > span[1]:
        raise DeclarationError("The history would end before it starts", next_step="swap start and end")
    tables, functions = _tables(_checked(view), settings), _functions(view)
    question = ask_history(engine(), view.contract, tables, span=span, functions=functions, keys=keys)
    return _answered(question, tables, to)


@overload
def latest(
    view: FeatureView,
    now: Moment | None = ...,
    keys: Entities | None = ...,
    *,
    to: None = ...,
    settings: Settings | None = ...,
) -> pa.Table: ...


@overload
def latest(
    view: FeatureView,
    now: Moment | None = ...,
    keys: Entities | None = ...,
    *,
    to: File,
    settings: Settings | None = ...,
) -> int: ...


def latest(
    view: FeatureView,
    now: Moment | None = None,
    keys: Entities | None = None,
    *,
    to: File | None = None,
    settings: Settings | None = None,
) -> pa.Table | int:
    """Return one row per entity: what the view says of it now.

    Parameters
    ----------
    view, keys, to, settings
        As for `history`.
    now
        The time to ask about; default: the settings' clock, which is the newest time in the view's groups where
        the clock is ``data``.

    Returns
    -------
    pyarrow.Table
        By entity, with the columns of `history`; ``event_time`` is `now`.
    """
    from windrow.features.history import ask_latest
    from windrow.stores.engine import engine

    settings = settings or Settings.read()
    tables = _tables(_checked(view), settings)
    at = settings.clock.now(lambda: _newest(tables)) if now is None else _micros(now)
    question = ask_latest(engine(), view.contract, tables, now=at, functions=_functions(view), keys=keys)
    return _answered(question, tables, to)


def _answered(question: Question, tables: Mapping[str, Table], to: File | None) -> pa.Table | int:
    from windrow.features.parquet import answer_to_parquet
    from windrow.stores.engine import engine

    if to is None:
        return question.answer(engine(), tables)
    return answer_to_parquet(engine(), question, tables, Path(to))


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
