"""The metadata store, on SQLite or PostgreSQL: what was declared, built, released and deployed."""

from windrow.stores.metadata.rows import (
    Definition,
    Deployment,
    ExperimentRow,
    Materialization,
    PerformanceRow,
    ReleaseRow,
    Span,
    TombstoneRow,
)
from windrow.stores.metadata.store import Metadata

__all__ = [
    "Definition",
    "Deployment",
    "ExperimentRow",
    "Materialization",
    "Metadata",
    "PerformanceRow",
    "ReleaseRow",
    "Span",
    "TombstoneRow",
]
