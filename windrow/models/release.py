"""The release: one immutable answer to "which model, on which features, proven how?"."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from windrow.errors import ModelError, listed
from windrow.features.contract import Contract
from windrow.models.policies import Policies, Policy

FORMAT = 1
EXPLAIN_MS = 500.0

Task = Literal["classification", "multiclass", "regression"]
Backend = Literal["onnx", "treelite", "sklearn"]
Verdict = Literal["passed", "waived", "failed"]
BACKENDS: tuple[Backend, ...] = ("onnx", "treelite", "sklearn")
"""In the order in which they are tried for serving."""


class Waived(msgspec.Struct, frozen=True):
    """A signed exception of a gate: why it does not block, and from which time on (UTC microseconds) it does."""

    reason: str
    until: int


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """One way to answer that was proven equal to the original.

    Attributes
    ----------
    max_difference
        Kind of rows -> the largest difference.
    rows_per_second
        In batch, on the held-out rows, when the release was made.
    us_per_row
        Of a single row, in microseconds.
    """

    max_difference: dict[str, float]
    rows_per_second: float
    us_per_row: float


class GateResult(msgspec.Struct, frozen=True):
    """One gate and what the candidate made of it.

    Attributes
    ----------
    metric
        What was measured.
    value
        The candidate's value, None where it could not be computed.
    bar
        What was asked, in words.
    passed
        Whether the bar was cleared; a waiver changes nothing about that.
    why
        Value, bar, sample size and interval, in words.
    name
        Of its check.
    rows
        How many rows `value` was measured on.
    low, high
        Confidence interval of `value`.
    waived
        The exception that stands for it.
    """

    metric: str
    value: float | None
    bar: str
    passed: bool
    why: str
    name: str = ""
    rows: int | None = None
    low: float | None = None
    high: float | None = None
    waived: Waived | None = None

    def verdict(self, at: int) -> Verdict:
        """Return ``passed``, ``waived`` (while its waiver counts) or ``failed``, at a time in UTC microseconds.

        Examples
        --------
        >>> late = GateResult("auc", 0.5, "at least 0.7", False, "too low", waived=Waived("the board", until=10))
        >>> late.verdict(9), late.verdict(10)
        ('waived', 'failed')
        """
        if self.passed:
            return "passed"
        return "waived" if self.waived is not None and at < self.waived.until else "failed"


class DatasetRef(msgspec.Struct, frozen=True, kw_only=True):
    """The training dataset of a release: enough to find it and to prove that it is the same rows."""

    id: str
    hash: str
    rows: int
    kind: str
    now: int
    splits: dict[str, int]


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What is deployed: immutable, complete, and readable without the project's declarations.

    Attributes
    ----------
    number
        Counts the service's releases from 1.
    created_at
        UTC microseconds of the wall clock.
    label
        The label's declaration as facts.
    groups
        Feature group with version -> fingerprint.
    sources
        Names of every source it depends on; the latest known time over them is its ``data`` clock.
    seq
        The write order up to which the training data were read.
    backend, backend_reason
        ``onnx``; or ``treelite`` or ``sklearn`` and why the ones before it were not taken.
    batch_backend, backends
        What batch scoring answers with: the fastest of the proven ones, which are all in the bundle.
    trusted_types
        Number of the allow-list that its scikit-learn file was written under.
    classes
        Names of the classes in the order of their probabilities; empty but for three or more.
    layout
        How the compiled model takes its inputs: one ``matrix``, or one tensor per column (``columns``).
    parity
        What was compared between the original and the compiled model, and the largest difference.
    baseline
        The naive prediction's metrics on the same test rows.
    files
        File of the bundle -> SHA-256.
    on_demand_sha256
        Of the on-demand module's text, which the contract carries.
    environment
        Package -> version at training time.
    unknown_entity, policies
        What becomes of a row with an entity that was never published, and of other requests that cannot be answered
        as they should.
    p99_ms
        Latency budget, None when the service is not online.
    explain_ms
        How long a caller waits for an explanation before it gets a ticket.
    schedule
        How often its feature groups are to be materialised: the batch schedule of its service.
    evidence
        Other JSON-like facts: parameters, row counts, seconds.
    """

    id: str
    service: str
    number: int
    created_at: int
    task: Task
    contract: Contract
    label: dict[str, Any]
    view_fingerprint: str
    groups: dict[str, str]
    sources: tuple[str, ...] = ()
    seq: int
    dataset: DatasetRef
    backend: Backend
    backend_reason: str = ""
    layout: Literal["matrix", "columns"] = "matrix"
    parity: dict[str, Any]
    metrics: dict[str, float]
    baseline: dict[str, float]
    gates: list[GateResult]
    files: dict[str, str]
    on_demand_sha256: str
    environment: dict[str, str]
    unknown_entity: Policy = "refuse"
    policies: Policies = Policies()
    p99_ms: float | None = None
    explain_ms: float = EXPLAIN_MS
    schedule: str = "@daily"
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    batch_backend: Backend | None = None
    backends: dict[Backend, Proven] = msgspec.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    trusted_types: int = 1
    format: int = FORMAT

    @property
    def passed(self) -> bool:
        """Whether every gate was cleared, or waived when the release was made."""
        return not self.failed(self.created_at)

    def failed(self, at: int) -> list[GateResult]:
        """Return the gates that stand in the way at a time (UTC microseconds); a waiver ends."""
        return [gate for gate in self.gates if gate.verdict(at) == "failed"]

    def _repr_html_(self) -> str:
        from windrow.html import release_card

        return release_card(self)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex.

    Examples
    --------
    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def encode_release(release: Release) -> bytes:
    """Return the release as JSON bytes; mappings keep their order: a composite key is read in that of its entity."""
    return msgspec.json.format(msgspec.json.encode(release), indent=1)


def decode_release(data: bytes, *, where: str) -> Release:
    """Read a release.

    Raises
    ------
    ModelError
        If the text is not a release, or one of a newer format.

    Examples
    --------
    >>> decode_release(b'{"format": 99}', where="release.json")
    Traceback (most recent call last):
    windrow.errors.ModelError: release.json is of release format 99, and this windrow reads 1. Next: upgrade windrow to the version that wrote it.
    """
    try:
        number = msgspec.json.decode(data, type=_Head).format
    except msgspec.MsgspecError:
        raise ModelError(f"{where} is not a release", next_step="train again; do not edit files of a release") from None
    if number != FORMAT:
        raise ModelError(
            f"{where} is of release format {number}, and this windrow reads {FORMAT}",
            next_step="upgrade windrow to the version that wrote it",
        )
    try:
        return msgspec.json.decode(data, type=Release)
    except msgspec.MsgspecError as error:
        raise ModelError(
            f"{where} is not a release: {error}", next_step="train again; do not edit files of a release"
        ) from None


def check_functions(release: Release) -> None:
    """Raise `ModelError` unless the on-demand module is the one that was released."""
    found = sha256(release.contract.on_demand_source.encode())
    if found != release.on_demand_sha256:
        raise ModelError(
            f"release {release.id!r}: the text of its on-demand module was changed",
            exists=f"Functions: {listed(f.function for f in release.contract.on_demand)}",
            next_step="train again; do not edit files of a release",
        )


class _Head(msgspec.Struct):
    format: int
