"""The tables of the metadata store as they are now; `windrow.stores.metadata.migrations` says how they came to be."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

FORMAT = 6  # one more with every change here, and a module migrations/format_N.py that makes it of the one before

TABLES = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    number = sa.Column("number", sa.Integer, primary_key=True)
    return sa.Table(name, TABLES, number, *columns, sa.Column("at", sa.BigInteger, nullable=False))


def _text(name: str, **kwargs: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, **kwargs)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


spans = _table("spans", _text("source", index=True), _big("first"), _big("last"), _big("known"), _big("rows"))
definitions = _table("definitions", _text("key", index=True), _text("fingerprint"), _text("definition"))
datasets = _table("datasets", _text("id"), _text("service", index=True), _text("document"))
runs = _table("runs", _text("service", index=True), _text("document"))
releases = _table(
    "releases",
    _text("service", index=True),
    _text("id", unique=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
tombstones = _table("tombstones", _text("entity"), _text("hash"), _text("salt"), _text("document"))
deployments = _table("deployments", _text("service", index=True), _text("release"), _text("reason"))
overrides = _table("overrides", sa.Column("deployment", sa.Integer, nullable=False, unique=True), _text("document"))
experiments = _table("experiments", _text("service", index=True), _text("name"), _text("document"))
performances = _table("performances", _text("service", index=True), _text("experiment"), _text("document"))
materializations = _table("materializations", _text("key", index=True), _text("known"))
access_keys = _table("access_keys", _text("id", unique=True), _text("name"), _text("hash"), _text("document"))
revocations = _table("revocations", _text("id", unique=True))
audit = _table("audit", _text("who"), _text("action"), _text("subject"), _text("document"))

# One row. Raised first by every transaction, which makes writers follow one another: rows are numbered in the order
# in which they become visible, on PostgreSQL too. Whoever polls reads this one number.
changes = sa.Table("changes", TABLES, sa.Column("made", sa.BigInteger, nullable=False))
