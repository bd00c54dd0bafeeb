"""One number that changes with every write, cheap to poll on any database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "4", "3"


def upgrade() -> None:
    """Add the counter of changes."""
    changes = op.create_table("changes", sa.Column("made", sa.BigInteger, nullable=False))
    op.bulk_insert(changes, [{"made": 0}])
