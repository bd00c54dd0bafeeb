"""The lake: append-only Delta tables under one root, read by the engine as plain Parquet files."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.errors import NotFoundError, StoreError, listed
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, fingerprint
from windrow.stores.delta import (
    COMMIT_RETRIES,
    DELETED,
    configuration,
    files_of,
    fitted,
    numbered,
    open_delta,
    plain,
    refuse_unreadable,
    user_schema,
    widened,
    with_retries,
)
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from deltalake import DeltaTable
    from ibis.backends import BaseBackend

    from windrow.stores.deletes import Deletion

_KEY = re.compile(r"[A-Za-z0-9_\-]+(/[A-Za-z0-9_\-]+)*")
REMOVED = "_removed"


class TableStats(NamedTuple):
    """What a table holds; times in UTC microseconds, None where there is no row."""

    rows: int
    files: int
    bytes: int
    first: int | None
    last: int | None
    last_known: int | None
    seq: int
    version: int


class Lake:
    """Every stored table, by key.

    Parameters
    ----------
    root
        Folder of the tables.

    Examples
    --------
    >>> import tempfile
    >>> Lake(tempfile.mkdtemp()).keys()
    []
    """

    def __init__(self, root: str) -> None:
        self.root = root.removeprefix("file://").rstrip("/")

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    def table(self, key: str) -> LakeTable:
        """Return the table `key` (such as ``features/card_profile_v1``), whether or not it exists yet."""
        if not _KEY.fullmatch(key):
            raise StoreError(
                f"{key!r} is not a table key",
                next_step='use names joined by slashes, such as "features/card_profile_v1"',
            )
        return LakeTable(self, key)

    def keys(self) -> list[str]:
        """Return the keys of all stored tables, sorted."""
        root = Path(self.root)
        return sorted(log.parent.relative_to(root).as_posix() for log in root.rglob("_delta_log") if any(log.iterdir()))


class LakeTable:
    """One append-only table; satisfies the `Table` protocol of point-in-time joins.

    Every row carries ``_seq``, the write order, which survives compaction: `scan` with ``as_of``
    answers as the table stood then.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> from windrow.stores.engine import engine
    >>> table = Lake(tempfile.mkdtemp()).table("features/card_v1")
    >>> table.exists
    False
    >>> first = table.append(pa.table({"card_id": [1]}))
    >>> second = table.append(pa.table({"card_id": [2]}))
    >>> table.scan(engine(), as_of=first).card_id.to_pyarrow().to_pylist()
    [1]
    """

    def __init__(self, lake: Lake, key: str) -> None:
        self.lake, self.key = lake, key
        self.path = f"{lake.root}/{key}"

    def __repr__(self) -> str:
        return f"LakeTable({self.path!r})"

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(self.path))

    @property
    def schema(self) -> pa.Schema:
        """The stored columns, ``_seq`` last; raise `NotFoundError` if nothing was written."""
        return user_schema(self.open())

    def append(self, rows: pa.Table, *, transaction: tuple[str, int] | None = None, widen: bool = False) -> int:
        """Commit `rows` at once and return the ``_seq`` they were given.

        Parameters
        ----------
        rows
            Columns and types exactly as stored, in any order, without ``_seq``; times are
            timestamp[us, UTC]. The first append decides the columns; it may have no rows.
        transaction
            Application and version recorded with the commit. Delta takes the same version twice:
            the caller reads `transaction_version` first and is the only writer of its application.
        widen
            Whether columns that are new join the table, null in its older rows.

        Raises
        ------
        SchemaError
            If a column is missing, unknown, of another type, or of a type that Delta would change.
        StoreError
            If the commit still fails after retries.
        """
        return self._write(rows, mode="append", transaction=transaction, widen=widen)

    def replace(self, rows: pa.Table, where: str) -> int:
        """Replace the rows that satisfy the SQL predicate `where` by `rows`, in one commit.

        Parameters
        ----------
        rows
            As in `append`; each must satisfy `where`. No rows: the others are only removed.
        where
            Such as ``"event_time >= '2026-01-01T00:00:00Z' and event_time < '2026-01-02T00:00:00Z'"``
            (whole milliseconds: Delta's statistics are cut to them), or ``""`` for every row.

        Returns
        -------
        int
            The ``_seq`` of the new rows.
        """
        predicate = where if where and self.exists else None
        return self._write(rows, mode="overwrite", predicate=predicate)

    def scan(self, con: BaseBackend, *, as_of: int | None = None, deleted: bool = False) -> ir.Table:
        """Return every row as an Ibis table of `con`.

        Parameters
        ----------
        con
            An engine that reads local Parquet files (`windrow.stores.engine.engine`).
        as_of
            Only rows with ``_seq <= as_of``, those deleted since included.
        deleted
            Also rows that are deleted.

        Raises
        ------
        NotFoundError
            If nothing was written yet; names what there is.
        StoreError
            If another program gave the table deletion vectors or column mapping.
        """
        table = self._physical(con)
        if DELETED in table.columns:
            ended = table[DELETED]
            alive = ended.isnull() if as_of is None else ended.isnull() | (ended > as_of)
            table = (table if deleted else table.filter(alive)).drop(DELETED)
        return table if as_of is None else table.filter(table[SEQ] <= as_of)

    def changes_since(self, con: BaseBackend, seq: int, *, as_of: int | None = None) -> ir.Table:
        """Return what a reader who has seen everything up to `seq` has to add and to take away.

        Parameters
        ----------
        seq
            The newest ``_seq`` that was seen, such as a `TableStats.seq`.
        as_of
            Only changes up to this ``_seq``; default: all.

        Returns
        -------
        ibis.expr.types.Table
            The stored columns and ``_removed``: False for a row written after `seq` and still in force,
            True for one that was in force at `seq` and is deleted. A row that came and went since is neither.

        Examples
        --------
        >>> import tempfile
        >>> import pyarrow as pa
        >>> from windrow.stores.engine import engine
        >>> table = Lake(tempfile.mkdtemp()).table("features/card_v1")
        >>> seen = table.append(pa.table({"card_id": [1]}))
        >>> _ = table.append(pa.table({"card_id": [2]}))
        >>> _ = table.delete(pa.table({"card_id": [1]}))
        >>> table.changes_since(engine(), seen).select("card_id", "_removed").order_by("card_id").to_pyarrow().to_pylist()
        [{'card_id': 1, '_removed': True}, {'card_id': 2, '_removed': False}]
        """
        import ibis

        table = self._physical(con)
        ended = table[DELETED] if DELETED in table.columns else ibis.null("int64")
        if as_of is not None:
            table = table.filter(table[SEQ] <= as_of)
            ended = ibis.ifelse(ended <= as_of, ended, ibis.null("int64"))
        written = (table[SEQ] > seq) & ended.isnull()
        removed = (table[SEQ] <= seq) & (ended > seq).fill_null(False)
        marked = table.mutate(**{REMOVED: removed}).filter(written | removed)
        return marked.drop(DELETED) if DELETED in marked.columns else marked

    def delete(self, rows: pa.Table, *, on: Sequence[str] | None = None) -> Deletion:
        """End every row that equals one of `rows`; ``as_of`` before now still shows it.

        Parameters
        ----------
        rows
            n rows with the columns `on`; null equals null.
        on
            The columns to compare; default: all of `rows`.

        Returns
        -------
        Deletion
            The ``_seq`` of the delete, and how many rows it ended.

        Raises
        ------
        NotFoundError
            If nothing was written yet.
        SchemaError
            If a column is not stored, or of another type.
        StoreError
            If the commit fails; every row is as it was.

        Examples
        --------
        >>> import tempfile
        >>> import pyarrow as pa
        >>> from windrow.stores.engine import engine
        >>> table = Lake(tempfile.mkdtemp()).table("sources/payments")
        >>> before = table.append(pa.table({"payment_id": [1, 2]}))
        >>> table.delete(pa.table({"payment_id": [1]})).rows
        1
        >>> [t.payment_id.to_pyarrow().to_pylist() for t in (table.scan(engine()), table.scan(engine(), as_of=before))]
        [[2], [1, 2]]
        """
        from windrow.stores.deletes import delete_rows

        return delete_rows(self, rows, list(on or rows.column_names))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this host from reading what is stored and appending the difference meanwhile.

        Held by ``flock``, so it ends with the process. Plain appends neither need it nor wait for it.
        """
        with self._flock("lock", fcntl.LOCK_EX):
            yield

    @contextmanager
    def still(self) -> Iterator[None]:
        """Keep everybody on this host from writing at all: no file is on its way to a commit."""
        with self._flock("gate", fcntl.LOCK_EX), self._flock("writers", fcntl.LOCK_EX):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold back `still` while files are written and committed; writers do not wait for each other."""
        with ExitStack() as held:
            # Through a gate, so that somebody who wants stillness gets it, however many writers there are.
            with self._flock("gate", fcntl.LOCK_SH):
                held.enter_context(self._flock("writers", fcntl.LOCK_SH))
            yield

    @contextmanager
    def _flock(self, name: str, how: int) -> Iterator[None]:
        folder = Path(self.lake.root) / "_locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{self.key.replace('/', '.')}.{name}").open("w") as file:
            fcntl.flock(file, how)
            yield

    def transaction_version(self, app: str) -> int | None:
        """Return the last version that `app` committed, or None."""
        delta = open_delta(self.path)
        if delta is None:
            return None
        version: int | None = delta.transaction_version(app)
        return version

    def stats(self) -> TableStats:
        """Return exact counts and times; raise `NotFoundError` if nothing was written.

        Times are read from the rows: Delta's own statistics are cut to milliseconds.
        """
        from windrow.stores.engine import engine

        delta = self.open()
        sizes = [file.bytes for file in files_of(delta)]
        facts = _facts(self._physical(engine(), delta))
        return TableStats(files=len(sizes), bytes=sum(sizes), version=delta.version(), **facts)

    def open(self) -> DeltaTable:
        """Return the Delta table behind this one; raise `NotFoundError` or `StoreError` as `scan` does."""
        delta = open_delta(self.path)
        if delta is None:
            raise self._not_found()
        refuse_unreadable(self.key, delta)
        return delta

    def _physical(self, con: BaseBackend, delta: DeltaTable | None = None) -> ir.Table:
        """Return every row of every file: deleted ones too where the table has any."""
        import ibis
        import pyarrow as pa

        delta = delta or self.open()
        files = [f"{self.path}/{file.path}" for file in files_of(delta)]
        schema = user_schema(delta)
        if not files:
            return ibis.memtable(
                pa.table({n: pa.array([], t) for n, t in zip(schema.names, schema.types, strict=True)})
            )
        # One name per table and version, so that repeated scans do not pile up views.
        name = f"{self.key}@{delta.version()}_{fingerprint(self.path)}"
        # A file written before a column was added has to give null for it, whichever file comes first.
        table = con.read_parquet(files, table_name=name, union_by_name=True)
        return table.select([*schema.names, *([DELETED] if DELETED in table.columns else [])])

    def _not_found(self) -> NotFoundError:
        return NotFoundError(
            f"Nothing is stored under {self.key!r} yet",
            exists=f"The lake has {listed(self.lake.keys())}",
            next_step="materialize it, or run the service that writes it (windrow run SERVICE)",
        )

    def _write(
        self, rows: pa.Table, *, transaction: tuple[str, int] | None = None, widen: bool = False, **options: Any
    ) -> int:
        from deltalake import CommitProperties, PostCommitHookProperties, Transaction, write_deltalake

        data, seq = plain(self.key, rows), next_seq()
        applied = [Transaction(*transaction)] if transaction else None
        commit = CommitProperties(max_commit_retries=COMMIT_RETRIES, app_transactions=applied)
        # Looking for old entries in the log took half the time of an append to 1,000 files: the maintenance does it.
        after = PostCommitHookProperties(cleanup_expired_logs=False)

        def attempt() -> None:
            # Read again on every attempt: somebody else may have made the table since.
            delta = open_delta(self.path)
            if delta is not None:
                refuse_unreadable(self.key, delta)
                if widen:
                    widened(data, delta)
            made = numbered(data if delta is None else fitted(self.key, data, delta), seq, delta)
            # Of a new table only; deltalake refuses a configuration that differs from the stored one.
            new: dict[str, Any] = {"configuration": configuration(made.schema)} if delta is None else {}
            how = {"commit_properties": commit, "post_commithook_properties": after, **options}
            write_deltalake(delta or self.path, made, **how, **new)

        with self.writing():
            with_retries(self.key, attempt)
        return seq


def _facts(physical: ir.Table) -> dict[str, Any]:
    """Return facts of the rows in force; only the newest change may be a delete."""
    import ibis

    deleted = physical[DELETED] if DELETED in physical.columns else ibis.null("int64")
    rows = physical.mutate(windrow_ended=deleted)
    alive = rows.windrow_ended.isnull()
    times = {"first": EVENT_TIME, "last": EVENT_TIME, "last_known": KNOWN_AT}
    newest = ibis.greatest(rows[SEQ].max(), rows.windrow_ended.max())
    wanted = {"rows": rows.count(where=alive), "seq": newest}
    for name, column in times.items():
        if column in rows.columns:
            wanted[name] = rows[column].min(where=alive) if name == "first" else rows[column].max(where=alive)
    row = rows.aggregate(**wanted).to_pyarrow()
    # A timestamp's value is its microseconds: no datetime in between that could round it.
    cells = {name: row.column(name)[0] for name in row.column_names}
    found = {name: cell.value if hasattr(cell, "value") else cell.as_py() for name, cell in cells.items()}
    return {**dict.fromkeys(times), **found, "seq": found["seq"] or 0}
