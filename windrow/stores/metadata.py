"""The metadata store: what was declared, built, released and deployed, as rows that are only ever added.

SQLite in WAL mode through SQLAlchemy. Every write is one INSERT, so a crash leaves all of it or none.
The newest row wins where only one can be true (a span, a definition, the live release).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from windrow.errors import NotFoundError, SettingsError, StoreError, listed

FORMAT = 3
_BUSY_SECONDS = 30

_tables = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    number = sa.Column("number", sa.Integer, primary_key=True)
    return sa.Table(name, _tables, number, *columns, sa.Column("at", sa.BigInteger, nullable=False))


def _text(name: str, **kwargs: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, **kwargs)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


_spans = _table("spans", _text("source", index=True), _big("first"), _big("last"), _big("known"), _big("rows"))
_definitions = _table("definitions", _text("key", index=True), _text("fingerprint"), _text("definition"))
_datasets = _table("datasets", _text("id"), _text("service", index=True), _text("document"))
_runs = _table("runs", _text("service", index=True), _text("document"))
_releases = _table(
    "releases",
    _text("service", index=True),
    _text("id", unique=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
_tombstones = _table("tombstones", _text("entity"), _text("hash"), _text("salt"), _text("document"))
_deployments = _table("deployments", _text("service", index=True), _text("release"), _text("reason"))
_overrides = _table("overrides", sa.Column("deployment", sa.Integer, nullable=False, unique=True), _text("document"))
_materializations = _table("materializations", _text("key", index=True), _text("known"))


class Span(NamedTuple):
    """What a source held when it was last read; times in UTC microseconds.

    `first` and `last` are event times, `known` is the latest known-at.
    """

    first: int
    last: int
    known: int
    rows: int


class Definition(NamedTuple):
    """A declaration as it was recorded last; `at` in UTC microseconds of the wall clock."""

    key: str
    fingerprint: str
    definition: dict[str, Any]
    at: int


class ReleaseRow(NamedTuple):
    """One registered release; `number` counts the rows of the whole store, `document` is what was given."""

    service: str
    id: str
    document: bytes
    number: int
    at: int


class TombstoneRow(NamedTuple):
    """An entity that was forgotten; `hash` is of its key and `salt`, `at` in UTC microseconds of the wall clock."""

    entity: str
    hash: str
    salt: str
    document: dict[str, Any]
    at: int


class Deployment(NamedTuple):
    """One change of the live release; rolling back is one more row.

    `override` is the signature of a release that the rules refused, as it was given to `Metadata.deploy`.
    """

    service: str
    release: str
    reason: str
    number: int
    at: int
    override: dict[str, Any] | None = None


class Materialization(NamedTuple):
    """The last time a group was materialised: `at` the wall clock's, `known` the latest known time of each source."""

    key: str
    known: dict[str, int]
    at: int


class Metadata:
    """The store behind `WINDROW_METADATA`.

    Parameters
    ----------
    url
        ``sqlite:////path/metadata.db``; the file and its folder are made when missing.

    Raises
    ------
    SettingsError
        If the URL is not a SQLite file.
    StoreError
        If the file cannot be opened, is not a database, or comes from a newer windrow.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> store = Metadata(f"sqlite:///{mkdtemp()}/metadata.db")
    >>> store.add_release("churn", "churn-1", document=b"{}")
    >>> store.deploy("churn", "churn-1", reason="first", at=0)
    >>> store.live("churn")
    'churn-1'
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._path = _file_of(url)
        self._engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        self._poll: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        with _guarded(self._path):
            _create(self._engine, self._path)

    def record_span(self, source: str, *, first: int, last: int, known: int, rows: int) -> None:
        """Remember what `source` held (times in UTC microseconds); the newest record counts."""
        span = Span(first, last, known, rows)
        if self.spans().get(source) != span:
            self._add(_spans, source=source, **span._asdict())

    def spans(self) -> dict[str, Span]:
        """Return the newest span of every source that was ever read."""
        newest = sa.select(sa.func.max(_spans.c.number)).group_by(_spans.c.source)
        rows = self._rows(sa.select(_spans).where(_spans.c.number.in_(newest)).order_by(_spans.c.source))
        return {r.source: Span(r.first, r.last, r.known, r.rows) for r in rows}

    def record_definition(self, key: str, fingerprint: str, definition: dict[str, Any]) -> None:
        """Remember the declaration of `key`; the same fingerprint again adds nothing."""
        before = self.definition(key)
        if before is None or before.fingerprint != fingerprint:
            self._add(_definitions, key=key, fingerprint=fingerprint, definition=_json(definition))

    def definition(self, key: str) -> Definition | None:
        """Return what was recorded last for `key`, such as ``features/card_profile_v1``."""
        query = sa.select(_definitions).where(_definitions.c.key == key).order_by(_definitions.c.number.desc()).limit(1)
        for r in self._rows(query):
            return Definition(r.key, r.fingerprint, msgspec.json.decode(r.definition), r.at)
        return None

    def add_dataset(self, id: str, service: str, document: dict[str, Any]) -> None:
        """Remember a training dataset; building the same one again makes it the newest."""
        self._add(_datasets, id=id, service=service, document=_json(document))

    def datasets(self, service: str) -> list[dict[str, Any]]:
        """Return the documents of a service's training datasets, each id once, newest last."""
        query = sa.select(_datasets).where(_datasets.c.service == service).order_by(_datasets.c.number.desc())
        newest: dict[str, dict[str, Any]] = {}
        for r in self._rows(query):
            newest.setdefault(r.id, msgspec.json.decode(r.document))
        return list(newest.values())[::-1]

    def add_run(self, service: str, document: dict[str, Any]) -> None:
        """Remember a training run (parameters, metrics, duration: whatever JSON can hold)."""
        self._add(_runs, service=service, document=_json(document))

    def runs(self, service: str) -> list[dict[str, Any]]:
        """Return the documents of a service's training runs, newest last."""
        query = sa.select(_runs.c.document).where(_runs.c.service == service).order_by(_runs.c.number)
        return [msgspec.json.decode(r.document) for r in self._rows(query)]

    def add_release(self, service: str, id: str, document: bytes) -> None:
        """Register an immutable release; the same bytes again change nothing.

        Raises
        ------
        StoreError
            If another release has this id.
        """
        try:
            self._add(_releases, service=service, id=id, document=document)
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            self._refuse_other(service, id, document)

    def _refuse_other(self, service: str, id: str, document: bytes) -> None:
        row = next(iter(self._rows(sa.select(_releases).where(_releases.c.id == id))))
        if (row.service, row.document) != (service, document):
            raise StoreError(
                f"release {id!r} exists with other contents (service {row.service!r})",
                next_step="register it under a new id: releases never change",
            )

    def releases(self, service: str) -> list[ReleaseRow]:
        """Return a service's releases, newest last."""
        query = sa.select(_releases).where(_releases.c.service == service).order_by(_releases.c.number)
        return [ReleaseRow(r.service, r.id, r.document, r.number, r.at) for r in self._rows(query)]

    def services(self) -> list[str]:
        """Return the names of all services that ever had a release, sorted."""
        return [
            str(r.service) for r in self._rows(sa.select(_releases.c.service).distinct().order_by(_releases.c.service))
        ]

    def release(self, id: str) -> bytes:
        """Return the document of a release; raise `NotFoundError` if there is none."""
        for r in self._rows(sa.select(_releases.c.document).where(_releases.c.id == id)):
            document: bytes = r.document
            return document
        known = [r.id for r in self._rows(sa.select(_releases.c.id))]
        raise NotFoundError(
            f"no release {id!r}", exists=f"There are {listed(known)}", next_step="run `windrow releases SERVICE`"
        )

    def deploy(
        self, service: str, release: str, *, reason: str, at: int, override: dict[str, Any] | None = None
    ) -> None:
        """Make a release the live one, by one more row; `at` in UTC microseconds.

        `override` says who signed for a release that the rules refuse, and stays with the row.

        Raises
        ------
        NotFoundError
            If the service has no such release.
        """
        query = sa.select(_releases.c.id).where(_releases.c.service == service)
        known = [r.id for r in self._rows(query)]
        if release not in known:
            raise NotFoundError(
                f"service {service!r} has no release {release!r}",
                exists=f"It has {listed(known)}",
                next_step=f"run `windrow releases {service}`",
            )
        row = {"service": service, "release": release, "reason": reason, "at": at}
        with _guarded(self._path), self._engine.begin() as connection:
            made = connection.execute(sa.insert(_deployments).values(row))
            if override is not None:
                number = made.inserted_primary_key[0]
                connection.execute(sa.insert(_overrides).values(deployment=number, document=_json(override), at=at))

    def live(self, service: str) -> str | None:
        """Return the id of the live release, or None before the first deployment."""
        table = _deployments
        query = sa.select(table.c.release).where(table.c.service == service).order_by(table.c.number.desc()).limit(1)
        return next((str(r.release) for r in self._rows(query)), None)

    def deployments(self, service: str) -> list[Deployment]:
        """Return every change of the live release, newest last."""
        both = _deployments.outerjoin(_overrides, _overrides.c.deployment == _deployments.c.number)
        query = sa.select(_deployments, _overrides.c.document).select_from(both)
        query = query.where(_deployments.c.service == service).order_by(_deployments.c.number)
        return [
            Deployment(
                r.service, r.release, r.reason, r.number, r.at,
                None if r.document is None else msgspec.json.decode(r.document),
            )
            for r in self._rows(query)
        ]  # fmt: skip

    def record_materialization(self, key: str) -> None:
        """Remember that a group, such as ``features/card_profile_v1``, is as new now as its sources are."""
        known = {source: span.known for source, span in self.spans().items()}
        self._add(_materializations, key=key, known=_json(known))

    def materialization(self, key: str) -> Materialization | None:
        """Return the last time a group was materialised, or None."""
        table = _materializations
        for r in self._rows(sa.select(table).where(table.c.key == key).order_by(table.c.number.desc()).limit(1)):
            return Materialization(r.key, msgspec.json.decode(r.known), r.at)
        return None

    def add_tombstone(self, entity: str, hash: str, salt: str, document: dict[str, Any]) -> None:
        """Remember that an entity was forgotten; of one hash the newest row counts."""
        self._add(_tombstones, entity=entity, hash=hash, salt=salt, document=_json(document))

    def tombstones(self) -> list[TombstoneRow]:
        """Return the newest tombstone of every forgotten entity, oldest first."""
        newest = sa.select(sa.func.max(_tombstones.c.number)).group_by(_tombstones.c.hash)
        query = sa.select(_tombstones).where(_tombstones.c.number.in_(newest)).order_by(_tombstones.c.number)
        return [
            TombstoneRow(r.entity, r.hash, r.salt, msgspec.json.decode(r.document), r.at) for r in self._rows(query)
        ]

    def change_counter(self) -> int:
        """Return a number that differs from the last call's when anything was written in between.

        Comparable only within this object. Costs a few microseconds, so that workers can poll it.
        """
        with self._lock, _guarded(self._path):
            if self._poll is None:
                # A connection of its own that never writes: SQLite does not count a connection's own commits.
                self._poll = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
            return int(self._poll.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Give the connections back."""
        with self._lock:
            if self._poll is not None:
                self._poll.close()
                self._poll = None
        self._engine.dispose()

    def _add(self, table: sa.Table, **values: Any) -> None:
        row = {"at": time.time_ns() // 1000, **values}
        with _guarded(self._path), self._engine.begin() as connection:
            connection.execute(sa.insert(table).values(row))

    def _rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with _guarded(self._path), self._engine.connect() as connection:
            return list(connection.execute(query).all())


def _json(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()


def _file_of(url: str) -> Path:
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        raise SettingsError(
            "WINDROW_METADATA is not a URL", next_step="write sqlite:////absolute/path/metadata.db"
        ) from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise SettingsError(
            f"WINDROW_METADATA names {parsed.get_backend_name()!r}",
            exists="This version keeps metadata in a SQLite file",
            next_step="write sqlite:////absolute/path/metadata.db",
        )
    return Path(parsed.database)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0][:200]
        raise StoreError(
            f"the metadata store {path} cannot be used: {reason}",
            next_step="check the file and its folder, or set WINDROW_METADATA",
        ) from error


def _create(engine: sa.Engine, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with engine.connect() as connection:
        if _format_of(connection, path) == FORMAT:
            return
        _use_wal(connection)
        for table in _tables.sorted_tables:
            # One statement each, "if not exists": any number of processes may start at the same moment.
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
        connection.exec_driver_sql(f"PRAGMA user_version = {FORMAT}")
        connection.commit()


def _use_wal(connection: sa.Connection) -> None:
    # Switching needs the file alone for a moment and does not wait for it, so try again for a while.
    for attempt in range(200):
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except SQLAlchemyError as error:
            if "locked" not in str(error) or attempt == 199:
                raise
            time.sleep(0.01 + 0.0001 * attempt)


def _format_of(connection: sa.Connection, path: Path) -> int:
    found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if found > FORMAT:
        raise StoreError(
            f"the metadata store {path} has format {found}",
            exists=f"This windrow reads format {FORMAT}",
            next_step="upgrade windrow, or set WINDROW_METADATA to another file",
        )
    return found
