"""Who signed for a release that the rules refused, and when each group was materialised."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "4", "3"


def upgrade() -> None:
    """Add the overrides and the materialisations."""
    deployment = sa.Column("deployment", sa.Integer, nullable=False)
    op.create_table("overrides", _number(), deployment, _text("document"), _at(), sa.UniqueConstraint("deployment"))
    op.create_table("materializations", _number(), _text("key"), _text("known"), _at())
    op.create_index("ix_materializations_key", "materializations", ["key"])


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.Integer, primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _at() -> sa.Column[int]:
    return sa.Column("at", sa.BigInteger, nullable=False)
