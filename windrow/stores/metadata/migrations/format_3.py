"""Who signed for a release that the rules refuse, and when a group was materialised last."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "3", "2"


def upgrade() -> None:
    """Add overrides and materialisations."""
    _add("overrides", sa.Column("deployment", sa.Integer, nullable=False, unique=True), _text("document"))
    _add("materializations", _text("key"), _text("known"))
    op.create_index("ix_materializations_key", "materializations", ["key"])


def _add(name: str, *columns: sa.Column[Any]) -> None:
    number = sa.Column("number", sa.Integer, primary_key=True)
    op.create_table(name, number, *columns, sa.Column("at", sa.BigInteger, nullable=False))


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)
