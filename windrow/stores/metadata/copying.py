"""All of a metadata store in another one: each row as it was, numbers included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from windrow.stores.metadata.database import guarded, open_database
from windrow.stores.metadata.opening import bring_up_to_date
from windrow.stores.metadata.tables import TABLES, access_keys, audit, changes, revocations

_Row = dict[str, Any]
# A key that is copied would outlive its revocation; who administered a store is a matter of that store.
_OWN = (access_keys, revocations, audit)


def copy_metadata(source: str, target: str, *, changed: Callable[[str, _Row], _Row]) -> None:
    """Copy the rows of one store, all of one moment, into a new one; either may be SQLite or PostgreSQL.

    Access keys and the audit stay behind: the new store has its own.

    Parameters
    ----------
    source, target
        URLs, as of `windrow.stores.metadata.Metadata`.
    changed
        Given a table's name and a row, returns the row to write.
    """
    old, new = open_database(source), open_database(target)
    try:
        with guarded(old):
            bring_up_to_date(old)
        with guarded(new):
            bring_up_to_date(new)
            with old.engine.connect() as reader, new.engine.begin() as writer:
                # One snapshot for all tables: PostgreSQL's transactions are one when asked, SQLite's are one,
                # but Python's driver begins none to read.
                if old.engine.dialect.name == "postgresql":
                    reader = reader.execution_options(isolation_level="REPEATABLE READ")
                else:
                    reader.exec_driver_sql("BEGIN")
                for table in (table for table in TABLES.sorted_tables if table not in _OWN):
                    _copy(table, reader, writer, changed)
    finally:
        old.engine.dispose()
        new.engine.dispose()


def _copy(table: sa.Table, reader: sa.Connection, writer: sa.Connection, changed: Callable[[str, _Row], _Row]) -> None:
    rows = [changed(table.name, dict(row._mapping)) for row in reader.execute(sa.select(table))]
    if table is changes:  # a new store has its one row already
        writer.execute(sa.delete(changes))
    if rows:
        writer.execute(sa.insert(table), rows)
