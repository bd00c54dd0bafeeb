"""What the metadata store hands out: small frozen rows."""

from __future__ import annotations

from typing import Any, NamedTuple


class Span(NamedTuple):
    """What a source held when it was last read; times in UTC microseconds.

    `first` and `last` are event times, `known` is the latest known-at.
    """

    first: int
    last: int
    known: int
    rows: int


class Definition(NamedTuple):
    """A declaration as it was recorded last; `at` in UTC microseconds of the wall clock."""

    key: str
    fingerprint: str
    definition: dict[str, Any]
    at: int


class ReleaseRow(NamedTuple):
    """One registered release; `number` counts the rows of the whole store, `document` is what was given."""

    service: str
    id: str
    document: bytes
    number: int
    at: int


class TombstoneRow(NamedTuple):
    """An entity that was forgotten; `hash` is of its key and `salt`, `at` in UTC microseconds of the wall clock."""

    entity: str
    hash: str
    salt: str
    document: dict[str, Any]
    at: int


class Deployment(NamedTuple):
    """One change of the live release; rolling back is one more row.

    `override` is the signature of a release that the rules refused, as it was given to `Metadata.deploy`.
    """

    service: str
    release: str
    reason: str
    number: int
    at: int
    override: dict[str, Any] | None = None


class ExperimentRow(NamedTuple):
    """One state of an experiment as it was given; `number` counts the rows of the whole store."""

    service: str
    name: str
    document: dict[str, Any]
    number: int
    at: int


class PerformanceRow(NamedTuple):
    """What was measured of an experiment at a time (`at`, UTC microseconds of the wall clock)."""

    service: str
    experiment: str
    document: dict[str, Any]
    at: int


class Materialization(NamedTuple):
    """The last time a group was materialised: `at` the wall clock's, `known` the latest known time of each source."""

    key: str
    known: dict[str, int]
    at: int


class AccessKey(NamedTuple):
    """One access key as it is kept: `hash` is of the whole key, which nobody can find out from it.

    `rate` is in requests per second (None: no limit); times in UTC microseconds of the wall clock.
    """

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    rate: float | None
    expires_at: int | None
    at: int
    revoked_at: int | None = None

    def __repr__(self) -> str:
        """Show everything but the hash: rows end up in tracebacks and logs."""
        return f"AccessKey(id={self.id!r}, name={self.name!r}, scopes={self.scopes}, revoked_at={self.revoked_at})"


class AuditRow(NamedTuple):
    """One thing that somebody administered: `who` is ``key:ID`` or ``os:USER``; secrets are never in it."""

    who: str
    action: str
    subject: str
    document: dict[str, Any]
    number: int
    at: int
