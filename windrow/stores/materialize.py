"""From sources to stored rows and on to the online store: only new or changed rows, checked before their commit."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import ndiff
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from windrow.errors import DataError, SchemaError, ValidationError, VersionError
from windrow.features.arrow import arrow_schema
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.features.validation import Verdict, validate
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores.difference import changed, missing
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.reader import origin, read_source, span

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.stores.metadata import Definition, Metadata

_TIMES = {EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}


class Write(msgspec.Struct, frozen=True):
    """What one materialisation did; ``rows_read = rows_written + rows_unchanged + rows_quarantined``.

    Attributes
    ----------
    seq
        The newest ``_seq`` of the table afterwards: what a reader gives as ``as_of``.
    reasons
        Failed check -> number of quarantined rows.
    """

    key: str
    rows_read: int
    rows_written: int
    rows_unchanged: int
    rows_quarantined: int
    seq: int
    reasons: dict[str, int]


def materialize_source(source: Source, lake: Lake, metadata: Metadata, data: Path) -> Write:
    """Read a source and append the rows that are not stored yet, or whose id is stored with other values.

    Parameters
    ----------
    source
        Read as `windrow.stores.reader.read_source` does.
    lake, metadata
        Where the rows and the span of their times are kept.
    data
        Folder of data files.

    Returns
    -------
    Write
        A second run on the same data writes 0 rows.

    Raises
    ------
    DataError
        If anything is wrong with the rows (nothing is stored), or if the stored ones came from the
        simulator and these from a file, or the other way round.
    """
    rows = read_source(source, data)
    _refuse_mixture(source, metadata, origin(source, data))
    table = lake.table(source.key)
    with table.locked():
        _refuse_other_columns(source, table, rows)
        fresh = _fresh(rows, source, lake, order=[EVENT_TIME])
        seq = _append(table, fresh)
    metadata.record_definition(f"{source.key}/origin", origin(source, data), {"origin": origin(source, data)})
    metadata.record_definition(source.key, source.fingerprint, source.describe())
    metadata.record_span(source.name, **span(rows))
    return Write(source.key, rows.num_rows, fresh.num_rows, rows.num_rows - fresh.num_rows, 0, seq, {})


def materialize_group(group: FeatureGroup, lake: Lake, metadata: Metadata) -> Write:
    """Evaluate a feature group over the current rows of its inputs and append what is new or changed.

    Every row is checked before anything is committed. With ``on_bad="quarantine"`` the bad rows go
    to the table ``quarantine/<group>_v<N>`` with their reasons, each once.

    Parameters
    ----------
    group
        Its inputs must be materialised already.
    lake, metadata
        Where the rows and the definition are kept.

    Returns
    -------
    Write
        A second run on the same inputs writes 0 rows.

    Raises
    ------
    VersionError
        If the definition changed under the same version.
    ValidationError
        If rows fail and the policy is ``reject``, or if no row passes; the table stays as it was.
    DataError
        If the definition makes no row.
    NotFoundError
        If an input was never materialised.
    """
    check_version(group, metadata)
    rows = evaluate(group, lake)
    if not rows.num_rows:
        raise DataError(
            f"Feature group {group.name!r} makes no rows from {', '.join(i.key for i in group.inputs.values())}",
            next_step="look at its filters and joins: keys of both sides must match",
        )
    verdict = validate(group, rows, con=engine())
    if verdict.bad.num_rows:
        _judge(group, verdict, lake)
    table = lake.table(group.key)
    with table.locked():
        fresh = _fresh(verdict.good, group, lake, order=[*group.entity.key_names, EVENT_TIME])
        seq = _append(table, fresh)
    metadata.record_definition(group.key, group.fingerprint, group.describe())
    bad, written = verdict.bad.num_rows, fresh.num_rows
    return Write(group.key, rows.num_rows, written, rows.num_rows - bad - written, bad, seq, verdict.reasons)


def evaluate(group: FeatureGroup, lake: Lake) -> pa.Table:
    """Return the group's rows over the current rows of its inputs, stored or not: keys, features and both times."""
    import pyarrow as pa

    con = engine()
    made = group.build({name: read_current(owner, lake, con) for name, owner in group.inputs.items()})
    wanted = arrow_schema({**group.fields, **_TIMES})
    rows = _without_nan(made.to_pyarrow())
    try:
        return rows.select(wanted.names).cast(wanted)
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"Feature group {group.name!r} makes a value that does not fit its dtype: {error}",
            next_step="cast it in the group to a wider dtype",
        ) from None


def read_current(table: Source | FeatureGroup, lake: Lake, con: BaseBackend) -> ir.Table:
    """Return the rows of a source or group that are in force, without those that a later write corrected.

    A source's row is corrected by a later one with the same id (without an id none is ever); a
    group's by a later one with the same keys and times.

    Returns
    -------
    ibis.expr.types.Table
        Its `fields`, then ``event_time`` and ``known_at``.

    Raises
    ------
    NotFoundError
        If it was never materialised.
    """
    import ibis

    rows = lake.table(table.key).scan(con)
    identity = _identity(table)
    if identity:
        newest = ibis.row_number().over(group_by=identity, order_by=rows[SEQ].desc())
        rows = rows.mutate(windrow_rank=newest).filter(ibis._.windrow_rank == 0)
    return rows.select(*dict.fromkeys([*table.fields, EVENT_TIME, KNOWN_AT]))


def check_version(group: FeatureGroup, metadata: Metadata) -> None:
    """Raise if the group's definition is not the one recorded for its version.

    Raises
    ------
    VersionError
        With what changed and the line to write.
    """
    stored = metadata.definition(group.key)
    if stored is not None and stored.fingerprint != group.fingerprint:
        raise VersionError(
            f"Feature group {group.name!r} changed under version {group.version}: {_changes(stored, group)}",
            exists=f"Rows of the other definition are stored under {group.key!r}",
            next_step=f"write version={group.version + 1} in its @feature_group(...), or take the change back",
        )


def _changes(stored: Definition, group: FeatureGroup) -> str:
    before, after = stored.definition, group.describe()
    parts = [name for name in after if before.get(name) != after[name] and name != "definition"]
    told = [f"{name} was {before.get(name)}, is {after[name]}" for name in parts]
    if not told:
        told = [_changed_lines(str(before.get("definition")), str(after["definition"]))]
    return "; ".join(part[:300] for part in told)


def _changed_lines(before: str, after: str) -> str:
    lines = [line for line in ndiff(before.splitlines(), after.splitlines()) if line[:2] in ("- ", "+ ")]
    return " / ".join(f"{line[0]} {line[2:].strip()}" for line in lines[:4])


def _refuse_mixture(source: Source, metadata: Metadata, now_from: str) -> None:
    """Simulated and real rows in one table would be trained on as if both were true."""
    stored = metadata.definition(f"{source.key}/origin")
    if stored is not None and stored.fingerprint != now_from:
        raise DataError(
            f"Source {source.name!r} holds rows from its {stored.fingerprint}, and would now be read from its {now_from}",
            next_step="set WINDROW_HOME to a folder of its own for each, or remove the old one",
        )


def _refuse_other_columns(source: Source, table: LakeTable, rows: pa.Table) -> None:
    if not table.exists:
        return
    stored = {field.name: str(field.type) for field in table.schema if field.name != SEQ}
    if stored != {field.name: str(field.type) for field in rows.schema}:
        raise SchemaError(
            f"Source {source.name!r} declares other columns than are stored under {source.key!r}",
            exists=f"Stored are {stored}",
            next_step=f"give the source another name, or remove {table.path} (its rows are read again)",
        )


def _judge(group: FeatureGroup, verdict: Verdict, lake: Lake) -> None:
    """Reject the bad rows or put them aside; nothing of the group itself is written yet."""
    count, total = verdict.bad.num_rows, verdict.bad.num_rows + verdict.good.num_rows
    what = f"Feature group {group.name!r}: {count} of {total} rows fail its checks, nothing was written"
    if group.on_bad == "reject":
        raise ValidationError(
            what, reasons=verdict.reasons, next_step='correct the source or the group, or declare on_bad="quarantine"'
        )
    side = lake.table(f"quarantine/{group.table_name}")
    with side.locked():
        _append(side, missing(verdict.bad, side.scan(engine()), every=False) if side.exists else verdict.bad)
    if not verdict.good.num_rows:
        raise ValidationError(what, reasons=verdict.reasons, next_step=f"look at the rows in table {side.key!r}")


def _identity(table: Source | FeatureGroup) -> list[str]:
    if isinstance(table, Source):
        return [table.id] if table.id else []
    return [*table.entity.key_names, EVENT_TIME, KNOWN_AT]


def _fresh(rows: pa.Table, owner: Source | FeatureGroup, lake: Lake, *, order: Sequence[str]) -> pa.Table:
    """Return the rows that are not in force already, ordered for the file they go to."""
    ordering = [(name, "ascending") for name in order]
    if not lake.table(owner.key).exists:
        return rows.sort_by(ordering)
    stored = read_current(owner, lake, engine())
    if isinstance(owner, FeatureGroup):
        return changed(rows, stored, identity=_identity(owner)).sort_by(ordering)
    # Without an id equal rows are different events, and each of them counts.
    return missing(rows, stored, every=owner.id is None).sort_by(ordering)


def _append(table: LakeTable, rows: pa.Table) -> int:
    return table.append(rows) if rows.num_rows or not table.exists else table.stats().seq


def _without_nan(rows: pa.Table) -> pa.Table:
    """0/0 is no value: missing is null, and nothing else, in every stored row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column

    return pa.table({name: plain(rows.column(name)) for name in rows.column_names})
