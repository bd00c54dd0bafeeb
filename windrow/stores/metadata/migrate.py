"""Alembic at work: the modules of `migrations`, one after the other, in the transaction of the one who opens the store."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

_FOLDER = Path(__file__).with_name("migrations")


def migrate(connection: sa.Connection, found: int, wanted: int) -> None:
    """Change the tables from format `found` (0: there are none) to format `wanted`."""
    scripts = ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER)])
    first = "base" if found == 0 else str(found)
    steps = [step for step in scripts.walk_revisions(first, str(wanted)) if step.revision != str(found)]
    with Operations.context(MigrationContext.configure(connection)):
        for step in reversed(steps):
            step.module.upgrade()
