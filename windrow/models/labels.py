"""Labels of spine rows: known, not mature yet, or unknown for good; never negative before their time.

A label is final when it matures: what becomes known of it later changes nothing, so that the figures of a closed
period stay as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from windrow.features.arrow import registered
from windrow.features.label import Label
from windrow.features.source import Source
from windrow.models.keys import label_keys
from windrow.models.spine import known_rows, newest
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake

LABEL, STATE = "label", "label_state"
KNOWN, IMMATURE, UNKNOWN = "known", "immature", "unknown"
_ROW, _AT, _DUE, _NEXT = "windrow_row", "windrow_at", "windrow_due", "windrow_next"
_VALUE, _FOUND = "windrow_value", "windrow_found"


def label_rows(
    service: PredictionService, lake: Lake, con: BaseBackend, spine: pa.Table, *, now: int, as_of: int | None = None
) -> pa.Table:
    """Return the spine's rows, in their order, with their labels.

    Parameters
    ----------
    spine
        The spine's fields and ``event_time``.
    now
        UTC microseconds. A row is immature while ``event_time + matures_after > now``, whatever is
        known of it already: taking early positives only would teach that the newest rows are positive.
    as_of
        Only what was written up to this ``_seq``.

    Returns
    -------
    pyarrow.Table
        `spine`, then ``label`` (float64, null unless known) and ``label_state``: ``known``,
        ``immature``, or ``unknown`` (mature, and nothing says what came of it).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = _found(service, lake, con, spine, now=now, as_of=as_of)
    mature = pc.less_equal(pc.add(_micros(spine), service.label.matures_after), now)
    known = pc.and_(mature, found.is_valid())
    state = pc.if_else(mature, pc.if_else(found.is_valid(), KNOWN, UNKNOWN), IMMATURE)
    label = pc.if_else(known, found, pa.scalar(None, pa.float64()))
    return spine.append_column(LABEL, label).append_column(STATE, state)


def _found(
    service: PredictionService, lake: Lake, con: BaseBackend, spine: pa.Table, *, now: int, as_of: int | None
) -> pa.ChunkedArray:
    """Return what is known of each row's outcome, mature or not; null where nothing is."""
    import ibis
    import pyarrow as pa
    import pyarrow.compute as pc

    label, keys = service.label, label_keys(service)
    events = known_rows(label.source, lake, con, now=now, as_of=as_of)
    target = pc.add(_micros(spine), label.window).cast(pa.timestamp("us", "UTC"))
    due = pc.add(_micros(spine), label.matures_after).cast(pa.timestamp("us", "UTC"))
    asked = pa.table({**{k: spine[k] for k in keys}, EVENT_TIME: spine[EVENT_TIME], _AT: target, _DUE: due})
    asked = asked.append_column(_ROW, pa.array(np.arange(spine.num_rows)))
    with registered(con, asked) as table:
        made = _MATCHES[label.how](label, table, events, keys)
        value = made[_VALUE].cast("float64")
        if label.absent is not None:
            value = ibis.cases((made[_FOUND].isnull(), ibis.literal(float(label.absent))), else_=value)
        found = made.select(made[_ROW], **{_VALUE: value}).order_by(_ROW).to_pyarrow()[_VALUE].cast(pa.float64())
    return pc.if_else(_complete(spine, keys), found, pa.scalar(None, pa.float64()))


def _joined(label: Label, asked: ir.Table, events: ir.Table, keys: list[str]) -> ir.Table:
    """Match by id what was known of it when the row's label matured, the newest of it."""
    told = events.select(*keys, EVENT_TIME, KNOWN_AT, SEQ, **_outcome(label, events))
    renamed = told.rename({f"windrow_{name}": name for name in (*keys, EVENT_TIME)})
    same = [asked[k] == renamed[f"windrow_{k}"] for k in keys]
    pairs = asked.join(renamed, [*same, renamed[KNOWN_AT] <= asked[_DUE]])
    wanted = pairs.select(_ROW, KNOWN_AT, SEQ, _VALUE, _FOUND, **{EVENT_TIME: pairs[f"windrow_{EVENT_TIME}"]})
    return _matched(asked, newest(wanted, [_ROW]).select(_ROW, _VALUE, _FOUND), [_ROW])


def _value(label: Label, asked: ir.Table, events: ir.Table, keys: list[str]) -> ir.Table:
    one = newest(_in_time(label, events), [*keys, EVENT_TIME])
    return _matched(asked, one.select(*keys, **{_AT: one[EVENT_TIME]}, **_outcome(label, one)), [*keys, _AT])


def _in_time(label: Label, events: ir.Table) -> ir.Table:
    """Keep what became known no later after it happened than the label waits, and of each id the newest of that."""
    import ibis

    margin = ibis.interval(microseconds=label.matures_after - label.window)
    kept = events.filter(events[KNOWN_AT] <= events[EVENT_TIME] + margin)
    event_id = label.source.id if isinstance(label.source, Source) else None
    return newest(kept, [event_id]) if event_id else kept


def _within(label: Label, asked: ir.Table, events: ir.Table, keys: list[str]) -> ir.Table:
    """Find the first event after each row; it counts if it is not later than the end of the window."""
    import ibis

    events = _in_time(label, events)
    later = events.select(*(events[k].name(f"windrow_{k}") for k in keys), **{_NEXT: events[EVENT_TIME]}).distinct()
    same = [asked[k] == later[f"windrow_{k}"] for k in keys]
    pairs = asked.asof_join(later, on=asked[EVENT_TIME] < later[_NEXT], predicates=same)
    inside = ibis.ifelse(pairs[_NEXT] <= pairs[_AT], 1.0, ibis.null("float64"))
    return pairs.select(pairs[_ROW], **{_VALUE: inside, _FOUND: inside})


def _outcome(label: Label, rows: ir.Table) -> dict[str, Any]:
    import ibis

    if label.classes:
        places = [(name, ibis.literal(float(place))) for place, name in enumerate(label.classes)]
        value = rows[label.column].cases(*places, else_=ibis.null("float64"))
    else:
        value = ibis.literal(1.0) if label.column is None else rows[label.column].cast("float64")
    return {_VALUE: value, _FOUND: ibis.literal(1.0)}


def _matched(asked: ir.Table, outcomes: ir.Table, keys: list[str]) -> ir.Table:
    renamed = outcomes.rename({f"windrow_key_{k}": k for k in keys})
    pairs = asked.left_join(renamed, [asked[k] == renamed[f"windrow_key_{k}"] for k in keys])
    return pairs.select(_ROW, _VALUE, _FOUND)


def _complete(spine: pa.Table, keys: list[str]) -> Any:
    """Whether a row has all keys; without them nothing can be looked up, and absence says nothing."""
    import pyarrow.compute as pc

    complete = spine[EVENT_TIME].is_valid()
    for key in keys:
        complete = pc.and_(complete, spine[key].is_valid())
    return complete


def _micros(spine: pa.Table) -> Any:
    return spine[EVENT_TIME].cast("int64")


_MATCHES = {"joined": _joined, "within": _within, "value": _value}
