"""From sources to stored rows and on to the online store: only new or changed rows, checked before their commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import ndiff
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from windrow.errors import DataError, SchemaError, ValidationError, VersionError
from windrow.features.aggregate import AggregateGroup
from windrow.features.exact import exactly
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.features.validation import Verdict, validate
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ
from windrow.stores import progress
from windrow.stores.difference import changed, missing
from windrow.stores.engine import engine
from windrow.stores.external import refuse_materialisation
from windrow.stores.forgetting.tombstones import without_forgotten
from windrow.stores.ingest.batch import has_events, joint_span, not_streamed, nothing_to_read
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.loading import delete_vanished, joined_span, watermark
from windrow.stores.orphans import delete_orphans
from windrow.stores.progress import Progress
from windrow.stores.reader import origin, read_source

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.stores.metadata import Definition, Metadata

_TIMES = {EVENT_TIME: "timestamp", KNOWN_AT: "timestamp"}


class Write(msgspec.Struct, frozen=True):
    """What one materialisation did; ``rows_read = rows_written + rows_unchanged + rows_quarantined`` unless skipped.

    Attributes
    ----------
    rows_read
        Rows that were read or made: of a group whose definition works row by row, those of new rows only.
    seq
        The newest ``_seq`` of the table afterwards: what a reader gives as ``as_of``.
    reasons
        Failed check -> number of quarantined rows.
    skipped
        Why there was nothing to do, or "". `rows_quarantined` and `reasons` are then those of the last run that
        worked: its bad rows are still there.
    rows_deleted
        Rows that were stored and have vanished: from a source that is loaded in full, or with their inputs.
    """

    key: str
    rows_read: int
    rows_written: int
    rows_unchanged: int
    rows_quarantined: int
    seq: int
    reasons: dict[str, int]
    skipped: str = ""
    rows_deleted: int = 0


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
    came = has_events(source, metadata)
    if came and nothing_to_read(source, data):
        return Write(source.key, 0, 0, 0, 0, lake.table(source.key).stats().seq, {})
    table, deleted = lake.table(source.key), 0
    since = watermark(source, table, metadata)
    rows = without_forgotten(read_source(source, data, since=since), source.key, metadata)
    _refuse_mixture(source, metadata, data)
    with table.locked():
        _refuse_other_columns(source, table, rows)
        if source.load == "full" and table.exists and not came:
            deleted = delete_vanished(source, table, rows, read_current(source, lake, engine()))
        fresh = _fresh(rows, source, lake, order=[EVENT_TIME], beside_events=came)
        seq = _append(table, fresh)
    metadata.record_definition(f"{source.key}/origin", origin(source, data), {"origin": origin(source, data)})
    metadata.record_definition(source.key, source.fingerprint, source.describe())
    metadata.record_span(
        source.name, **(joint_span(source, rows, metadata) if came else joined_span(source, rows, metadata, since))
    )
    unchanged = rows.num_rows - fresh.num_rows
    return Write(source.key, rows.num_rows, fresh.num_rows, unchanged, 0, seq, {}, rows_deleted=deleted)


def materialize_group(group: FeatureGroup, lake: Lake, metadata: Metadata, *, full: bool = False) -> Write:
    """Evaluate a feature group over the current rows of its inputs and append what is new or changed.

    Every row is checked before anything is committed. With ``on_bad="quarantine"`` the bad rows go
    to the table ``quarantine/<group>_v<N>`` with their reasons, each once.

    Parameters
    ----------
    group
        Its inputs must be materialised already.
    lake, metadata
        Where the rows and the definition are kept.
    full
        Evaluate everything, whatever earlier runs have seen.

    Returns
    -------
    Write
        A second run on the same inputs reads and writes 0 rows and says so in ``skipped``; where each row is
        made from one row of one source, only new rows are evaluated.

    Raises
    ------
    VersionError
        If the definition changed under the same version.
    ValidationError
        If rows fail and the policy is ``reject``, or if no row passes; the table stays as it was.
    DataError
        If the definition makes no row, or the group is read in place.
    NotFoundError
        If an input was never materialised.
    """
    if group.external is not None:
        raise refuse_materialisation(group.key, group.external)
    if isinstance(group, AggregateGroup):
        raise DataError(
            f"Aggregate group {group.name!r} has no rows of its own to store",
            exists=f"It reads the events of {group.source.key!r} in place",
            next_step="publish its states instead: windrow.stores.publish.publish_online",
        )
    check_version(group, metadata)
    table, state, done = lake.table(group.key), progress.now(group, lake), progress.last(group, metadata)
    again = done is not None and table.exists and not full
    if again and done is not None and progress.same(lake, done, state):
        metadata.record_materialization(group.key)  # nothing was to be made, so it is as new as can be
        return _skipped(group, done)
    state = progress.counted(group, lake, state)
    fresh = progress.new_rows(group, lake, done, state) if again else None
    write = None if fresh is None else _written(group, lake, _made(group, fresh), whole=False)
    if write is None:
        write, fresh = _written(group, lake, evaluate(group, lake), whole=True), None
    assert write is not None
    metadata.record_definition(group.key, group.fingerprint, group.describe())
    progress.record(group, metadata, _after(state, write, done if fresh is not None else None))
    metadata.record_materialization(group.key)
    return write


def _skipped(group: FeatureGroup, done: Progress) -> Write:
    why = "the definition, its checks and its inputs are those of the last run"
    return Write(group.key, 0, 0, 0, done.quarantined, done.seq, done.reasons, skipped=why)


def _after(state: Progress, write: Write, before: Progress | None) -> Progress:
    """What was found bad in rows that were not evaluated again is bad still."""
    counts = Counter(write.reasons) + Counter(before.reasons if before else {})
    bad = write.rows_quarantined + (before.quarantined if before else 0)
    return msgspec.structs.replace(state, quarantined=bad, reasons=dict(counts), seq=write.seq)


def _written(group: FeatureGroup, lake: Lake, rows: pa.Table, *, whole: bool) -> Write | None:
    """Check and append; None where none of the new rows passes: whether any does at all is said of all rows."""
    if whole and not rows.num_rows:
        raise DataError(
            f"Feature group {group.name!r} makes no rows from {', '.join(i.key for i in group.inputs.values())}",
            next_step="look at its filters and joins: keys of both sides must match",
        )
    verdict = validate(group, rows, con=engine())
    if verdict.bad.num_rows and not (whole or verdict.good.num_rows):
        return None
    if verdict.bad.num_rows:
        _judge(group, verdict, lake, whole=whole)
    table = lake.table(group.key)
    with table.locked():
        gone = _orphans(group, lake) if whole else 0
        fresh = _fresh(verdict.good, group, lake, order=[*group.entity.key_names, EVENT_TIME])
        seq = _append(table, fresh)
    bad, written = verdict.bad.num_rows, fresh.num_rows
    unchanged = rows.num_rows - bad - written
    return Write(group.key, rows.num_rows, written, unchanged, bad, seq, verdict.reasons, rows_deleted=gone)


def _orphans(group: FeatureGroup, lake: Lake) -> int:
    def evaluated(deleted: bool) -> ir.Table:
        return _built(group, lake, deleted=deleted)

    return delete_orphans(group, lake, evaluated=evaluated, identity=_identity(group))


def evaluate(group: FeatureGroup, lake: Lake) -> pa.Table:
    """Return the group's rows over the current rows of its inputs, stored or not: keys, features and both times."""
    return _typed(group, _built(group, lake))


def _built(group: FeatureGroup, lake: Lake, *, deleted: bool = False) -> ir.Table:
    con = engine()
    return group.build({name: read_current(i, lake, con, deleted=deleted) for name, i in group.inputs.items()})


def _made(group: FeatureGroup, fresh: ir.Table) -> pa.Table:
    return _typed(group, group.build(dict.fromkeys(group.inputs, fresh)))


def _typed(group: FeatureGroup, made: ir.Table) -> pa.Table:
    import pyarrow as pa

    rows, wanted = made.to_pyarrow(), {**group.fields, **_TIMES}
    where = f"Feature group {group.name!r}, column"
    return pa.table({name: exactly(rows[name], dtype, place=f"{where} {name!r}") for name, dtype in wanted.items()})


def read_current(table: Source | FeatureGroup, lake: Lake, con: BaseBackend, *, deleted: bool = False) -> ir.Table:
    """Return the rows of a source or group that are in force, without those that a later write corrected.

    A source's row is corrected by a later one with the same id (without an id none is ever); a
    group's by a later one with the same keys and times. With `deleted` also those that were deleted.

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

    rows = lake.table(table.key).scan(con, deleted=deleted)
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


def _refuse_mixture(source: Source, metadata: Metadata, data: Path) -> None:
    """Simulated and real rows in one table would be trained on as if both were true."""
    stored, now_from = metadata.definition(f"{source.key}/origin"), origin(source, data)
    if stored is not None and stored.fingerprint != now_from:
        raise DataError(
            f"Source {source.name!r} holds rows from its {stored.fingerprint}, and would now be read from its {now_from}",
            exists=f"Files are looked for in {data} (WINDROW_DATA)",
            next_step="set WINDROW_DATA as it was, or WINDROW_HOME to a folder of its own for each, or remove the old one",
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


def _judge(group: FeatureGroup, verdict: Verdict, lake: Lake, *, whole: bool) -> None:
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
    if whole and not verdict.good.num_rows:
        raise ValidationError(what, reasons=verdict.reasons, next_step=f"look at the rows in table {side.key!r}")


def _identity(table: Source | FeatureGroup) -> list[str]:
    if isinstance(table, Source):
        return [table.id] if table.id else []
    return [*table.entity.key_names, EVENT_TIME, KNOWN_AT]


def _fresh(
    rows: pa.Table, owner: Source | FeatureGroup, lake: Lake, *, order: Sequence[str], beside_events: bool = False
) -> pa.Table:
    """Return the rows that are not in force already, ordered for the file they go to."""
    ordering = [(name, "ascending") for name in order]
    if not lake.table(owner.key).exists:
        return rows.sort_by(ordering)
    stored = read_current(owner, lake, engine())
    if isinstance(owner, FeatureGroup):
        return changed(rows, stored, identity=_identity(owner)).sort_by(ordering)
    if beside_events:
        return not_streamed(rows, owner, stored).sort_by(ordering)
    # Without an id equal rows are different events, and each of them counts.
    return missing(rows, stored, every=owner.id is None).sort_by(ordering)


def _append(table: LakeTable, rows: pa.Table) -> int:
    return table.append(rows) if rows.num_rows or not table.exists else table.stats().seq
