"""A store is made, or brought to the present format, when it is opened: by one process, while the others wait."""

from __future__ import annotations

import sqlalchemy as sa

from windrow.errors import StoreError
from windrow.stores.metadata.database import Database
from windrow.stores.metadata.tables import FORMAT, TABLES, changes


def bring_up_to_date(database: Database) -> None:
    """Make the tables, or change those of an earlier format; one look at a store that is up to date.

    All of it happens in one transaction: whatever stops it, the store is as it was.

    Raises
    ------
    StoreError
        If the store was written by a newer windrow.
    """
    database.prepare()
    with database.engine.connect() as connection:
        if _checked(database, connection) == FORMAT:
            return
        connection.rollback()
        database.alone(connection)
        _change(database, connection, found=_checked(database, connection))
        connection.commit()


def _change(database: Database, connection: sa.Connection, *, found: int) -> None:
    if found == FORMAT:  # another process was first
        return
    if found == 0:
        TABLES.create_all(connection, checkfirst=False)
        connection.execute(sa.insert(changes).values(made=0))
    else:
        # Alembic is loaded here and nowhere else: most processes never meet an older store.
        from windrow.stores.metadata.migrate import migrate

        migrate(connection, found, FORMAT)
    database.seal(connection, FORMAT)


def _checked(database: Database, connection: sa.Connection) -> int:
    found = database.format(connection)
    if found > FORMAT:
        raise StoreError(
            f"the metadata store {database.name} has format {found}",
            exists=f"This windrow reads format {FORMAT}",
            next_step="upgrade windrow (pip install --upgrade windrow), or set WINDROW_METADATA to another store",
        )
    return found
