"""The metadata store, on SQLite or PostgreSQL: what was declared, built, released and deployed."""

from windrow.stores.metadata.rows import Definition, Deployment, Materialization, ReleaseRow, Span, TombstoneRow
from windrow.stores.metadata.store import Metadata

__all__ = ["Definition", "Deployment", "Materialization", "Metadata", "ReleaseRow", "Span", "TombstoneRow"]
