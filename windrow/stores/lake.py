"""The lake: append-only Delta tables under one root, read by the engine as plain Parquet files."""

from __future__ import annotations

import fcntl
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from windrow.errors import NotFoundError, SchemaError, StoreError, listed
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, fingerprint
from windrow.stores.sequence import next_seq

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from deltalake import DeltaTable
    from ibis.backends import BaseBackend

_KEY = re.compile(r"[A-Za-z0-9_\-]+(/[A-Za-z0-9_\-]+)*")
# Eight processes with fifty appends each lost six of them at deltalake's default of 15 (measured).
_COMMIT_RETRIES = 200
_ATTEMPTS = 8
_FIRST_PAUSE = 0.02
# Both make the Parquet files alone an incomplete answer, and the engine reads the files alone.
_UNREADABLE = {"deletionVectors": "deletion vectors", "columnMapping": "column mapping"}
_NARROWED = {"large_string": "string", "string_view": "string", "large_binary": "binary"}
_TIMES = "timestamp[us, tz=UTC]"
_STORED = ("bool", "int8", "int16", "int32", "int64", "float", "double", "string", "binary", "date32[day]", _TIMES)

_T = TypeVar("_T")


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
        return _arrow_schema(self._open())

    def append(self, rows: pa.Table, *, transaction: tuple[str, int] | None = None) -> int:
        """Commit `rows` at once and return the ``_seq`` they were given.

        Parameters
        ----------
        rows
            Columns and types exactly as stored, in any order, without ``_seq``; times are
            timestamp[us, UTC]. The first append decides the columns; it may have no rows.
        transaction
            Application and version recorded with the commit. Delta takes the same version twice:
            the caller reads `transaction_version` first and is the only writer of its application.

        Raises
        ------
        SchemaError
            If a column is missing, unknown, of another type, or of a type that Delta would change.
        StoreError
            If the commit still fails after retries.
        """
        return self._write(rows, mode="append", transaction=transaction)

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

    def scan(self, con: BaseBackend, *, as_of: int | None = None) -> ir.Table:
        """Return every row as an Ibis table of `con`.

        Parameters
        ----------
        con
            An engine that reads local Parquet files (`windrow.stores.engine.engine`).
        as_of
            Only rows with ``_seq <= as_of``.

        Raises
        ------
        NotFoundError
            If nothing was written yet; names what there is.
        StoreError
            If another program gave the table deletion vectors or column mapping.
        """
        import ibis
        import pyarrow as pa

        delta = self._open()
        files = delta.file_uris()
        schema = _arrow_schema(delta)
        if not files:
            return ibis.memtable(
                pa.table({n: pa.array([], t) for n, t in zip(schema.names, schema.types, strict=True)})
            )
        # One name per table and version, so that repeated scans do not pile up views.
        name = f"{self.key}@{delta.version()}_{fingerprint(self.path)}"
        # A file written before a column was added has to give null for it, whichever file comes first.
        table = con.read_parquet(files, table_name=name, union_by_name=True).select(schema.names)
        return table if as_of is None else table.filter(table[SEQ] <= as_of)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this host from reading what is stored and appending the difference meanwhile.

        Held by ``flock``, so it ends with the process. Plain appends neither need it nor wait for it.
        """
        folder = Path(self.lake.root) / "_locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{self.key.replace('/', '.')}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def transaction_version(self, app: str) -> int | None:
        """Return the last version that `app` committed, or None."""
        if not self.exists:
            return None
        version: int | None = self._open().transaction_version(app)
        return version

    def stats(self) -> TableStats:
        """Return exact counts and times; raise `NotFoundError` if nothing was written.

        Times are read from the rows: Delta's own statistics are cut to milliseconds.
        """
        import pyarrow as pa

        from windrow.stores.engine import engine

        delta = self._open()
        sizes = pa.table(delta.get_add_actions(flatten=True)).column("size_bytes").to_pylist()
        facts = _facts(self.scan(engine()))
        return TableStats(files=len(sizes), bytes=sum(sizes), version=delta.version(), **facts)

    def _open(self) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            delta = DeltaTable(self.path)
        except TableNotFoundError:
            raise self._not_found() from None
        _refuse_unreadable(self.key, delta)
        return delta

    def _not_found(self) -> NotFoundError:
        return NotFoundError(
            f"Nothing is stored under {self.key!r} yet",
            exists=f"The lake has {listed(self.lake.keys())}",
            next_step="materialize it, or run the service that writes it (windrow run SERVICE)",
        )

    def _write(self, rows: pa.Table, *, transaction: tuple[str, int] | None = None, **options: Any) -> int:
        from deltalake import CommitProperties, Transaction, write_deltalake

        data, seq = _plain(self.key, rows), next_seq()
        applied = [Transaction(*transaction)] if transaction else None
        commit = CommitProperties(max_commit_retries=_COMMIT_RETRIES, app_transactions=applied)

        def attempt() -> None:
            # Read again on every attempt: somebody else may have made the table since.
            fitted = _fitted(self.key, data, self._open()) if self.exists else data
            write_deltalake(self.path, _numbered(fitted, seq), commit_properties=commit, **options)

        _with_retries(self.key, attempt)
        return seq


def _with_retries(key: str, attempt: Callable[[], _T]) -> _T:
    from deltalake.exceptions import DeltaError

    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except (DeltaError, OSError) as error:
            if number == _ATTEMPTS - 1 or not _may_pass(error):
                raise _commit_failed(key, error) from error
        # Jitter, so that writers that met once do not meet again.
        time.sleep(_FIRST_PAUSE * 2**number * (0.5 + random.random()))  # noqa: S311 - not a secret
    raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    from deltalake.exceptions import CommitFailedError

    # Two processes that create one table at the same time: the second one's error has no type of its own.
    return isinstance(error, CommitFailedError) or "already exists" in str(error)


def _commit_failed(key: str, error: Exception) -> StoreError:
    reason = str(error).strip().splitlines()[0][:200]
    return StoreError(
        f"The commit to table {key!r} failed: {reason}",
        exists="Nothing of it is visible",
        next_step="check space and rights of the lake's folder, then write again",
    )


def _refuse_unreadable(key: str, delta: DeltaTable) -> None:
    protocol, configuration = delta.protocol(), delta.metadata().configuration
    used = {_UNREADABLE[f] for f in protocol.reader_features or () if f in _UNREADABLE}
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        used.add("column mapping")
    if used:
        raise StoreError(
            f"Table {key!r} uses {' and '.join(sorted(used))}, which its files alone do not show",
            next_step="rewrite it without (copy its rows to a new table), and keep other programs from changing the lake",
        )


def _plain(key: str, rows: pa.Table) -> pa.Table:
    """Return `rows` with nullable columns of types that Delta stores without changing a value."""
    import pyarrow as pa

    if SEQ in rows.column_names:
        raise SchemaError(f"Rows for table {key!r} already have {SEQ}", next_step=f"drop {SEQ}: the lake gives it")
    if len(set(rows.column_names)) < len(rows.column_names):
        raise SchemaError(
            f"Rows for table {key!r} have a column twice",
            exists=f"They have {rows.column_names}",
            next_step="rename one of them",
        )
    fields = []
    for field in rows.schema:
        name = _NARROWED.get(str(field.type), str(field.type))
        if name not in _STORED:
            raise SchemaError(
                f"Table {key!r}: column {field.name!r} is {field.type}, which would not be stored unchanged",
                exists=f"Stored are {', '.join(_STORED)}",
                next_step=f"cast {field.name!r} to one of them (times: timestamp[us, tz=UTC])",
            )
        fields.append(pa.field(field.name, pa.type_for_alias(name) if name in _NARROWED.values() else field.type))
    return rows.cast(pa.schema(fields))


def _fitted(key: str, rows: pa.Table, delta: DeltaTable) -> pa.Table:
    """Return `rows` in the stored order of columns; refuse any other difference."""
    stored = _types(_arrow_schema(delta))
    stored.pop(SEQ, None)
    given = _types(rows.schema)
    if stored != given:
        raise SchemaError(
            f"Rows do not fit table {key!r}: {_difference(stored, given)}",
            exists=f"It stores {listed(stored)}",
            next_step="give exactly its columns and types, or raise the version of the declaration",
        )
    return rows.select(list(stored))


def _difference(stored: Mapping[str, str], given: Mapping[str, str]) -> str:
    missing, extra = sorted(set(stored) - set(given)), sorted(set(given) - set(stored))
    other = [f"{n!r} is {given[n]}, stored is {stored[n]}" for n in stored if n in given and given[n] != stored[n]]
    parts = [missing and f"missing {listed(missing)}", extra and f"unknown {listed(extra)}", ", ".join(other[:3])]
    return "; ".join(part for part in parts if part)


def _types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def _arrow_schema(delta: DeltaTable) -> pa.Schema:
    import pyarrow as pa

    # deltalake speaks the Arrow PyCapsule protocol; views of text come back as plain text.
    return pa.schema(delta.schema().to_arrow())


def _numbered(rows: pa.Table, seq: int) -> pa.Table:
    import pyarrow as pa

    return rows.append_column(SEQ, pa.repeat(pa.scalar(seq, pa.int64()), rows.num_rows))


def _facts(table: ir.Table) -> dict[str, Any]:
    times = {"first": EVENT_TIME, "last": EVENT_TIME, "last_known": KNOWN_AT}
    wanted = {"rows": table.count(), "seq": table[SEQ].max()}
    for name, column in times.items():
        if column in table.columns:
            wanted[name] = table[column].min() if name == "first" else table[column].max()
    row = table.aggregate(**wanted).to_pyarrow()
    # A timestamp's value is its microseconds: no datetime in between that could round it.
    cells = {name: row.column(name)[0] for name in row.column_names}
    found = {name: cell.value if hasattr(cell, "value") else cell.as_py() for name, cell in cells.items()}
    return {**dict.fromkeys(times), **found, "seq": found["seq"] or 0}
