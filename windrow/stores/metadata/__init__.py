"""The metadata store, on SQLite or PostgreSQL: what was declared, built, released and deployed, and who may ask."""

from windrow.stores.metadata.rows import (
    AccessKey,
    AuditRow,
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
    "AccessKey",
    "AuditRow",
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
