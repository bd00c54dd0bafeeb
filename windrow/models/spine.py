"""The rows that predictions are about: a source's own rows, or the ticks of a clock for every key seen so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from windrow.clock import from_micros
from windrow.errors import DataError, DeclarationError, listed
from windrow.features.aggregate import AggregateGroup
from windrow.features.group import FeatureGroup, ibis_dtype
from windrow.features.source import Every, Source
from windrow.models.keys import entity_fields
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.tables import table_of

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake

FIRST, LAST = "windrow_first", "windrow_last"


def spine_rows(
    service: PredictionService,
    lake: Lake,
    con: BaseBackend,
    *,
    start: int | None = None,
    end: int | None = None,
    now: int,
    as_of: int | None = None,
) -> pa.Table:
    """Return the spine of a service in a stretch of time, oldest first.

    Parameters
    ----------
    start, end
        UTC microseconds, `start` included and `end` not. Without `end`: a source's rows up to `now`;
        a clock's ticks up to the last one at which a key's groups still changed (training), else up
        to `now` (scoring asks about the present, however old the newest feature).
    now
        Nothing that was not known by then is returned.
    as_of
        Only what was written up to this ``_seq``.

    Returns
    -------
    pyarrow.Table
        The spine's fields and ``event_time`` (timestamp[us, UTC]), ordered by time and fields.
    """
    spine, fields = service.view.spine, [f.name for f in service.view.spine.spine_fields]
    if isinstance(spine, Source):
        rows = visible(spine, lake, con, now=now, as_of=as_of)
        if start is not None:
            rows = rows.filter(rows[EVENT_TIME] >= moment(start))
        if end is not None:
            rows = rows.filter(rows[EVENT_TIME] < moment(end))
        made = rows.select(*fields, EVENT_TIME).order_by([EVENT_TIME, *(f for f in fields if f != EVENT_TIME)])
        return _timed(made.to_pyarrow())
    return _ticks(service, spine, seen_keys(service, lake, con, now=now, as_of=as_of), (start, end, now))


def visible(
    table: Source | FeatureGroup, lake: Lake, con: BaseBackend, *, now: int, as_of: int | None = None
) -> ir.Table:
    """Return the rows of a source or group that were known at `now`, with ``_seq``.

    Of a source with an id, only the newest row of each id.
    """
    rows = known_rows(table, lake, con, now=now, as_of=as_of)
    if not isinstance(table, Source) or table.id is None:
        return rows
    return newest(rows, [table.id])


def known_rows(
    table: Source | FeatureGroup, lake: Lake, con: BaseBackend, *, now: int, as_of: int | None = None
) -> ir.Table:
    """Return every row of a source or group that was known at `now`, corrected ones as well."""
    rows = table_of(table, lake).scan(con, as_of=as_of)
    return rows.filter((rows[EVENT_TIME] <= moment(now)) & (rows[KNOWN_AT] <= moment(now)))


def newest(rows: ir.Table, keys: list[str]) -> ir.Table:
    """Return of each key the greatest row by (event_time, known_at, _seq)."""
    import ibis

    order = [rows[name].desc() for name in (EVENT_TIME, KNOWN_AT, SEQ)]
    rank = ibis.row_number().over(group_by=keys, order_by=order)
    return rows.mutate(windrow_rank=rank).filter(ibis._.windrow_rank == 0).drop("windrow_rank")


def moment(micros: int) -> Any:
    """Return a time as an Ibis literal."""
    import ibis

    return ibis.literal(from_micros(micros), type=ibis_dtype("timestamp"))


def seen_keys(service: PredictionService, lake: Lake, con: BaseBackend, *, now: int, as_of: int | None) -> pa.Table:
    """Return each key of a clock's entity with the first and last time its groups changed."""
    import ibis

    wanted = entity_fields(service)
    parts = [_spans(s.group, dict(zip(s.group.entity.key_names, map(str, s.keys), strict=True)), lake, con, now=now, as_of=as_of)
             for s in service.view.selections if set(s.keys) == set(wanted)]  # fmt: skip
    if not parts:
        raise DeclarationError(
            f"service {service.name!r} asks about every {listed(wanted)}, but no feature group of its view has exactly these keys",
            exists=f"Its groups: {listed(g.name for g in service.view.groups)}",
            next_step="add a feature group of that entity: its keys say whom to predict for",
        )
    every = ibis.union(*parts) if len(parts) > 1 else parts[0]
    seen = _grouped(every, wanted, **{FIRST: every[FIRST].min(), LAST: every[LAST].max()})
    return (seen.order_by(wanted) if wanted else seen).to_pyarrow()


def _spans(group: FeatureGroup, fields: dict[str, str], lake: Lake, con: BaseBackend, **when: Any) -> ir.Table:
    import ibis

    if isinstance(group, AggregateGroup):  # it has no rows: an entity is seen when an event of it is
        rows = visible(group.source, lake, con, **when)
        rows = rows.drop_null(list(group.entity.key_names)) if group.entity.key_names else rows
    else:
        rows = visible(group, lake, con, **when)
    # A row can be used from the later of its two times on.
    eff = ibis.greatest(rows[EVENT_TIME], rows[KNOWN_AT])
    keys = {field: rows[key] for key, field in fields.items()}
    found = rows.select(**keys, windrow_eff=eff)
    return _grouped(found, list(keys), **{FIRST: found.windrow_eff.min(), LAST: found.windrow_eff.max()})


def _grouped(rows: ir.Table, keys: list[str], **wanted: Any) -> ir.Table:
    """One row per key; without keys one row if there is any, and none if there is not."""
    if keys:
        return rows.group_by(keys).agg(**wanted)
    one = rows.aggregate(**wanted)
    return one.filter(one[FIRST].notnull())


def _ticks(
    service: PredictionService, every: Every, seen: pa.Table, span: tuple[int | None, int | None, int]
) -> pa.Table:
    import pyarrow as pa

    from windrow.features.join import clock_spine

    start, end, now = span
    if not seen.num_rows:
        raise DataError(
            f"service {service.name!r} has no key to predict for yet", next_step="materialize its feature groups"
        )
    timestamp = pa.timestamp("us", "UTC")
    begins, ends = (seen[name].cast(timestamp).cast("int64").to_numpy() for name in (FIRST, LAST))
    until = min(now, int(ends.max()) if end is None else end - 1)
    ticks = clock_spine(every, seen, int(begins.min()) if start is None else start, until)
    # One tick after the other, and in each the keys in their order.
    at, times = ticks[EVENT_TIME].cast("int64").to_numpy(), ticks.num_rows // seen.num_rows
    inside = at >= np.tile(begins, times)
    if end is None:
        inside &= at <= np.tile(ends, times)
    fields = list(every.entity.key_names)
    made = ticks.filter(pa.array(inside)).select([*fields, EVENT_TIME])
    return _timed(made.sort_by([(name, "ascending") for name in (EVENT_TIME, *fields)]))


def _timed(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    place = rows.schema.get_field_index(EVENT_TIME)
    times = rows.column(EVENT_TIME).cast(pa.timestamp("us", "UTC"))
    return rows.set_column(place, EVENT_TIME, times)
