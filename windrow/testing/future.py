"""The law that nothing known later changes what is said of a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from windrow.clock import from_micros
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.schema import KNOWN_AT, SYSTEM_COLUMNS
from windrow.testing.answers import answers, plain_rows
from windrow.testing.given import Rows, Subject, tables_of

if TYPE_CHECKING:
    import pyarrow as pa


def no_look_ahead(subject: Subject, **rows: Rows) -> None:
    """Prove that nothing known after a time changes a feature at that time.

    For each time in the rows, every row that was not known yet is left out, and then replaced by
    other values: what the group (or view) says about that time and before must stay as it was.

    Parameters
    ----------
    subject
        A group of any kind (Ibis, SQL, DataFrame, aggregate), or a view with all groups below it; rows of
        external groups are given under the group's name.
    **rows
        Source or group name -> rows, as for `features_of`; for a view also the rows of its spine.

    Raises
    ------
    AssertionError
        Naming the feature, the time and both values.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", share=payments.amount / payments.amount.max())
    >>> spend.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"))(spend)
    >>> no_look_ahead(group, payments=[{"card_id": 1, "amount": a, "ts": a} for a in (1, 2)])
    Traceback (most recent call last):
    AssertionError: 'share' of 'spend' reads the future: at 1970-01-01T00:00:00.000001+00:00 ...
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = tables_of(subject, rows)
    known = sorted({k for table in tables.values() for k in table.column(KNOWN_AT).cast("int64").to_pylist()})
    truth, fixed = plain_rows(answers(subject, tables)), _fixed(subject)
    for moment in known:
        now = pa.scalar(moment, pa.timestamp("us", "UTC"))
        before = [row for row in truth if row[KNOWN_AT] <= moment]
        for future in (_without, _other):
            changed = {n: future(t, pc.greater(t.column(KNOWN_AT), now), fixed) for n, t in tables.items()}
            after = [r for r in plain_rows(answers(subject, changed, asked=tables)) if r[KNOWN_AT] <= moment]
            _compare(subject.name, before, after)


def _without(table: pa.Table, later: pa.ChunkedArray, fixed: Collection[str]) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.invert(later))


def _other(table: pa.Table, later: pa.ChunkedArray, fixed: Collection[str]) -> pa.Table:
    """Give the later rows other values; whom they are about and when stays, so that they still matter."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {name: table.column(name) for name in table.column_names}
    changed = {name: pc.if_else(later, _changed(v), v) for name, v in columns.items() if name not in fixed}
    return pa.table(columns | changed)


def _changed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        return pc.add(pc.multiply(values, pa.scalar(-3.0, values.type)), pa.scalar(1e6, values.type))
    if pa.types.is_integer(values.type):
        # Stays inside the dtype, whatever the value.
        return pc.bit_wise_xor(values, pa.scalar(0x5A5A5A, values.type))
    if pa.types.is_boolean(values.type):
        return pc.invert(values)
    if pa.types.is_string(values.type):
        return pc.binary_join_element_wise(values, pa.scalar("later"), "~")
    return values


def _fixed(subject: Subject) -> set[str]:
    """Return the columns that say whom a row is about."""
    if isinstance(subject, FeatureView):
        keys = {key for lookup in subject.contract.lookups for key in (*lookup.keys, *lookup.fields)}
        fixed = keys.union(*(_fixed(group) for group in subject.groups))
        return fixed | ({subject.spine.id} if isinstance(subject.spine, Source) and subject.spine.id else set())
    below = (_fixed(i) if isinstance(i, FeatureGroup) else {i.id} - {None} for i in subject.inputs.values())
    found: set[str] = set().union(*below)  # type: ignore[arg-type]  # ids that are None are left out
    return found | {*subject.entity.key_names, *SYSTEM_COLUMNS}


def _compare(name: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
    for old, new in zip(before, after, strict=False):
        for column, value in old.items():
            if value != new[column]:
                moment = from_micros(old["event_time"]).isoformat()
                raise AssertionError(
                    f"{column!r} of {name!r} reads the future: at {moment} it is {value!r}, but {new[column]!r} when later rows differ"
                )
    if len(before) != len(after):
        raise AssertionError(
            f"{name!r} reads the future: it has {len(before)} rows, but {len(after)} when later rows differ"
        )
