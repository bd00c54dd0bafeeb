"""Access keys, which of them were revoked, and who administered what."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "5", "4"


def upgrade() -> None:
    """Add access keys, revocations and the audit."""
    _add("access_keys", _text("id", unique=True), _text("name"), _text("hash"), _text("document"))
    _add("revocations", _text("id", unique=True))
    _add("audit", _text("who"), _text("action"), _text("subject"), _text("document"))


def _add(name: str, *columns: sa.Column[Any]) -> None:
    number = sa.Column("number", sa.Integer, primary_key=True)
    op.create_table(name, number, *columns, sa.Column("at", sa.BigInteger, nullable=False))


def _text(name: str, *, unique: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, unique=unique or None)
