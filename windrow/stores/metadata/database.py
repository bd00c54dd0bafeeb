"""From a URL to a database: what SQLite and PostgreSQL do differently, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from windrow.errors import SettingsError, StoreError

_WAIT_SECONDS = 30
_LOCK = 0x77696E64726F77  # of PostgreSQL's advisory locks: "windrow" in bytes
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_FORMS = "write sqlite:////absolute/path/metadata.db or postgresql://user:password@host:port/database"


class Database(Protocol):
    """One database; `name` is for messages and holds no password."""

    name: str
    engine: sa.Engine

    def prepare(self) -> None:
        """Make what must be there before the first connection."""
        ...

    def format(self, connection: sa.Connection) -> int:
        """Return the format of the tables, 0 where there are none."""
        ...

    def seal(self, connection: sa.Connection, format: int) -> None:
        """Write the format down, in the transaction of `connection`."""
        ...

    def alone(self, connection: sa.Connection) -> None:
        """Begin a transaction that no other process may make or change tables beside."""
        ...


class SqliteDatabase:
    """A file in WAL mode; its format stands in the file's header, where reading it costs nothing."""

    def __init__(self, url: sa.URL) -> None:
        self.path = Path(url.database or "")
        self.name = str(self.path)
        self.engine = sa.create_engine(url, connect_args={"timeout": _WAIT_SECONDS})

    def prepare(self) -> None:
        """Make the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def format(self, connection: sa.Connection) -> int:
        """Return the format, 0 in a new file."""
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def seal(self, connection: sa.Connection, format: int) -> None:
        """Write the format down."""
        connection.exec_driver_sql(f"PRAGMA user_version = {format}")

    def alone(self, connection: sa.Connection) -> None:
        """Begin a transaction that lets nobody else write."""
        _use_wal(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class PostgresDatabase:
    """A schema of a database, made when missing: ``?schema=NAME`` in the URL, else ``windrow``.

    A schema of its own, because other programs (Dagster, for one) keep tables of the same names.
    """

    def __init__(self, url: sa.URL) -> None:
        self.schema = _schema_of(url)
        self.name = f"postgresql://{url.host or ''}:{url.port or 5432}/{url.database or ''}?schema={self.schema}"
        # Asked before each use whether it still lives: a server that was restarted costs nobody an error.
        self.engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg").difference_update_query(["schema"]),
            connect_args={"options": f"-csearch_path={self.schema}", "connect_timeout": _WAIT_SECONDS},
            pool_pre_ping=True,
        )

    def prepare(self) -> None:
        """Nothing: the schema is made with the tables."""

    def format(self, connection: sa.Connection) -> int:
        """Return the format, 0 where there is no schema."""
        if connection.exec_driver_sql("SELECT to_regclass('format')").scalar_one() is None:
            return 0
        return int(connection.exec_driver_sql("SELECT number FROM format").scalar_one())

    def seal(self, connection: sa.Connection, format: int) -> None:
        """Write the format down."""
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS format (number integer NOT NULL)")
        connection.exec_driver_sql("DELETE FROM format")
        connection.execute(sa.text("INSERT INTO format VALUES (:number)"), {"number": format})

    def alone(self, connection: sa.Connection) -> None:
        """Wait for other processes that make or change tables; the lock ends with the transaction."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {self.schema}")


def open_database(url: str) -> Database:
    """Return the database that `WINDROW_METADATA` names; nothing is connected yet.

    Raises
    ------
    SettingsError
        If it is no URL, or of a database that keeps no metadata, or its driver is not installed.

    Examples
    --------
    >>> open_database("sqlite:////tmp/metadata.db").name
    '/tmp/metadata.db'
    """
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (SQLAlchemyError, ValueError):
        raise SettingsError("WINDROW_METADATA is not a URL", next_step=_FORMS) from None
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return SqliteDatabase(parsed)
    if backend in ("postgresql", "postgres"):
        return _postgres(parsed)
    raise SettingsError(
        f"WINDROW_METADATA names {backend!r}", exists="Metadata are kept in SQLite or PostgreSQL", next_step=_FORMS
    )


def _postgres(url: sa.URL) -> PostgresDatabase:
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        raise SettingsError(
            "WINDROW_METADATA is a PostgreSQL server, and its client is not installed",
            next_step="pip install 'windrow[postgres]'",
        ) from None
    return PostgresDatabase(url)


def _schema_of(url: sa.URL) -> str:
    given = url.query.get("schema", "windrow")
    if not isinstance(given, str) or not _SCHEMA.fullmatch(given):
        raise SettingsError(
            "the schema in WINDROW_METADATA is no plain name",
            next_step="write ?schema=windrow, in small letters, digits and underscores",
        )
    return given


@contextmanager
def guarded(database: Database) -> Iterator[None]:
    """Turn what the driver raises into an error that names the store and holds no password."""
    try:
        yield
    except (SQLAlchemyError, OSError, database.engine.dialect.loaded_dbapi.Error) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0][:200]
        raise StoreError(
            f"the metadata store {database.name} cannot be used: {reason}",
            next_step="check that it is there and may be written to, or set WINDROW_METADATA",
        ) from error


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
