"""Experiments, each of their changes one row, and what was measured of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "6", "5"


def upgrade() -> None:
    """Add experiments and their performances."""
    _add("experiments", "service", "name", "document")
    _add("performances", "service", "experiment", "document")


def _add(name: str, *texts: str) -> None:
    number = sa.Column("number", sa.Integer, primary_key=True)
    columns = [sa.Column(text, sa.Text, nullable=False) for text in texts]
    op.create_table(name, number, *columns, sa.Column("at", sa.BigInteger, nullable=False))
    op.create_index(f"ix_{name}_service", name, ["service"])
