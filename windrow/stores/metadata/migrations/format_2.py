"""Entities that were forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "2", "1"


def upgrade() -> None:
    """Add the tombstones."""
    texts = [sa.Column(name, sa.Text, nullable=False) for name in ("entity", "hash", "salt", "document")]
    number, at = sa.Column("number", sa.Integer, primary_key=True), sa.Column("at", sa.BigInteger, nullable=False)
    op.create_table("tombstones", number, *texts, at)
