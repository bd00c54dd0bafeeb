"""What was read, declared, built, trained, released and deployed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "1", None


def upgrade() -> None:
    """Make the first tables."""
    _add("spans", _text("source"), _big("first"), _big("last"), _big("known"), _big("rows"), index="source")
    _add("definitions", _text("key"), _text("fingerprint"), _text("definition"), index="key")
    _add("datasets", _text("id"), _text("service"), _text("document"), index="service")
    _add("runs", _text("service"), _text("document"), index="service")
    document = sa.Column("document", sa.LargeBinary, nullable=False)
    _add("releases", _text("service"), _text("id", unique=True), document, index="service")
    _add("deployments", _text("service"), _text("release"), _text("reason"), index="service")


def _add(name: str, *columns: sa.Column[Any], index: str) -> None:
    number = sa.Column("number", sa.Integer, primary_key=True)
    op.create_table(name, number, *columns, _big("at"))
    op.create_index(f"ix_{name}_{index}", name, [index])


def _text(name: str, *, unique: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, unique=unique or None)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)
