"""Laws about what must not matter: the order of rows, other entities' rows, and having run before."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from windrow.clock import from_micros
from windrow.errors import DeclarationError
from windrow.features.aggregate import AggregateGroup
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.schema import EVENT_TIME
from windrow.testing.answers import answers, group_rows, identity, plain_rows
from windrow.testing.given import Rows, Subject, Tables, tables_of

if TYPE_CHECKING:
    import pyarrow as pa

_SHUFFLES = 5
_TOLERANCE = 1e-9  # sums in another order differ in the last digits


def order_invariant(subject: Subject, **rows: Rows) -> None:
    """Prove that the order in which rows are stored does not matter.

    Parameters
    ----------
    subject
        A group of any kind, or a view with all groups below it.
    **rows
        Source or group name -> rows, as for `features_of`.

    Raises
    ------
    AssertionError
        Naming the feature, the time and both values.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def numbered(payments):
    ...     import ibis
    ...     return payments.select("card_id", number=ibis.row_number())
    >>> numbered.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"))(numbered)
    >>> order_invariant(group, payments=[{"card_id": 1, "amount": a, "ts": a} for a in range(9)])
    Traceback (most recent call last):
    AssertionError: 'number' of 'numbered' depends on the order of rows: ...
    """
    tables = tables_of(subject, rows)
    truth, random = answers(subject, tables), np.random.default_rng(0)
    for number in range(_SHUFFLES):
        changed = {name: _shuffled(table, random if number else None) for name, table in tables.items()}
        _compare(subject, truth, answers(subject, changed, asked=tables), law="depends on the order of rows")


def partition_invariant(subject: Subject, **rows: Rows) -> None:
    """Prove that the rows of one entity do not change the features of another.

    Each entity's rows are taken alone; what the group says of it must be what it says with all others
    around. Of a view, each group is proved. Inputs without the entity's keys (a table of rates) are kept whole.

    Parameters
    ----------
    subject
        A group of any kind, or a view.
    **rows
        Source or group name -> rows of two or more entities, as for `features_of`.

    Raises
    ------
    AssertionError
        Naming the feature, the time and both values.
    DeclarationError
        If no input has the entity's keys under their own names.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> games = Source("games", event_time="day", columns={"team": "string", "won": "bool"})
    >>> def form(games):
    ...     import ibis
    ...     so_far = ibis.cumulative_window(order_by=games.day)
    ...     return games.select("team", wins=games.won.cast("int64").sum().over(so_far))
    >>> form.__globals__["games"] = games
    >>> group = feature_group(Entity("team", team="string"))(form)
    >>> partition_invariant(group, games=[{"team": t, "won": t == "A", "day": d} for d, t in enumerate("ABAB")])
    Traceback (most recent call last):
    AssertionError: 'wins' of 'form' depends on rows of other entities: ...
    """
    if isinstance(subject, FeatureView):
        for group in subject.groups:
            partition_invariant(group, **{name: rows[name] for name in rows if name in _names(group)})
        return
    tables = tables_of(subject, rows)
    keys = list(subject.entity.key_names)
    split = [name for name, table in tables.items() if set(keys) <= set(table.column_names)]
    if not split:
        raise DeclarationError(
            f"no input of {subject.name!r} has the keys {keys}",
            next_step="call the keys as the entity does in the source",
        )
    truth = answers(subject, tables)
    for entity in truth.select(keys).group_by(keys).aggregate([]).to_pylist():
        alone = {n: _of(table, entity) if n in split else table for n, table in tables.items()}
        _compare(
            subject, _of(truth, entity), _of(answers(subject, alone), entity), law="depends on rows of other entities"
        )


def rerun_changes_nothing(subject: Subject, **rows: Rows) -> None:
    """Prove that computing a group again over the same rows writes nothing, to the lake and online.

    Both are real stores in a temporary folder. Of a view, each group is proved; of an aggregate group,
    which stores nothing, that it says the same again.

    Parameters
    ----------
    subject
        A group of any kind, or a view.
    **rows
        Source or group name -> rows, as for `features_of`.

    Raises
    ------
    AssertionError
        Saying how many rows or entities the second run wrote.

    Examples
    --------
    >>> from windrow import Entity, Source, feature_group
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def lucky(payments):
    ...     return payments.assign(luck=np.random.default_rng().random(len(payments)))[["card_id", "luck", "event_time", "known_at"]]
    >>> lucky.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"), frame="pandas", features={"luck": "float64"})(lucky)
    >>> rerun_changes_nothing(group, payments=[{"card_id": 1, "amount": 5.0, "ts": "2026-01-01"}])
    Traceback (most recent call last):
    AssertionError: computing 'lucky' again over the same rows wrote 1 of 1 rows to the lake
    """
    if isinstance(subject, FeatureView):
        for group in subject.groups:
            rerun_changes_nothing(group, **{name: rows[name] for name in rows if name in _names(group)})
        return
    tables = tables_of(subject, rows)
    if isinstance(subject, AggregateGroup) or subject.external is not None:
        again = answers(subject, tables)
        _compare(subject, answers(subject, tables), again, law="says something else the second time")
    else:
        with tempfile.TemporaryDirectory(prefix="windrow-") as folder:
            _run_twice(subject, tables, Path(folder))


def _run_twice(group: FeatureGroup, tables: Tables, folder: Path) -> None:
    from windrow.stores.lake import Lake
    from windrow.stores.materialize import materialize_group
    from windrow.stores.metadata import Metadata
    from windrow.stores.online.store import open_online
    from windrow.stores.publish import publish_online

    lake, metadata = Lake(str(folder / "lake")), Metadata(f"sqlite:///{folder}/metadata.db")
    for owner in group.inputs.values():
        lake.table(owner.key).append(tables[owner.name] if isinstance(owner, Source) else group_rows(owner, tables))
    try:
        first = materialize_group(group, lake, metadata)
        # Not the short cut for unchanged inputs: the definition itself is put to the test.
        second = materialize_group(group, lake, metadata, full=True)
    finally:
        metadata.close()
    again = f"computing {group.name!r} again over the same rows wrote"
    if second.rows_written:
        raise AssertionError(f"{again} {second.rows_written} of {first.rows_written} rows to the lake")
    now = max(t.column(EVENT_TIME).cast("int64").to_numpy().max() for t in tables.values()) + 10**15
    with open_online(f"lmdb://{folder}/online", write=True) as online:
        made = [publish_online(group, lake, online, int(now)).entities_written for _ in range(2)]
    if made[1]:
        raise AssertionError(f"{again} {made[1]} of {made[0]} entities to the online store")


def _shuffled(table: pa.Table, random: np.random.Generator | None) -> pa.Table:
    import pyarrow as pa

    order = np.arange(table.num_rows)[::-1] if random is None else random.permutation(table.num_rows)
    return table.take(pa.array(order))


def _of(table: pa.Table, entity: Mapping[str, Any]) -> pa.Table:
    import pyarrow.compute as pc

    for key, value in entity.items():
        column = table.column(key)
        table = table.filter(pc.is_null(column) if value is None else pc.equal(column, value))
    return table


def _names(group: FeatureGroup) -> set[str]:
    below = (_names(item) if isinstance(item, FeatureGroup) else {item.name} for item in group.inputs.values())
    return {group.name}.union(*below)


def _compare(subject: Subject, before: pa.Table, after: pa.Table, *, law: str) -> None:
    which = identity(subject)
    old, new = (_by_identity(table, which) for table in (before, after))
    for one, other in zip(old, new, strict=False):
        for column, value in one.items():
            if not _same(value, other[column]):
                moment = from_micros(one[EVENT_TIME]).isoformat()
                raise AssertionError(
                    f"{column!r} of {subject.name!r} {law}: at {moment} it is {value!r} or {other[column]!r}"
                )
    if len(old) != len(new):
        raise AssertionError(f"{subject.name!r} {law}: it has {len(old)} or {len(new)} rows")


def _by_identity(table: pa.Table, which: Sequence[str]) -> list[dict[str, Any]]:
    # Equal identities (two events in one microsecond) keep the order of their values.
    return sorted(plain_rows(table), key=lambda row: repr([row[name] for name in which]))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=0.0) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)
