"""Labels: what a prediction is about, when it can be known, and what absence means after that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from windrow.clock import duration
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.schema import fingerprint


@dataclass(frozen=True, eq=False)
class Label:
    """The outcome of a spine row; made by `joined`, `within` or `value`.

    Attributes
    ----------
    source
        Whose rows say what came of it: a source, or a feature group where the outcome is computed.
    how
        ``joined`` (by id), ``within`` (an event in (t, t + window]) or ``value`` (of a column at t + window).
    matures_after
        Microseconds after t; before that the label is unknown, never negative.
    absent
        What no row means once mature; None leaves the label unknown.
    """

    how: Literal["joined", "within", "value"]
    source: Source | FeatureGroup
    column: str | None
    on: str | None
    window: int
    matures_after: int
    absent: float | None

    @classmethod
    def joined(
        cls, source: Source, *, on: str, matures_after: str, absent: float | None = None, column: str | None = None
    ) -> Label:
        """1 (or `column`) where `source` has a row with the same `on` as the spine row.

        Examples
        --------
        >>> chargebacks = Source("chargebacks", event_time="ts", columns={"payment_id": "int64"})
        >>> Label.joined(chargebacks, on="payment_id", absent=0, matures_after="30d").absent
        0
        """
        _need(source, on)
        if column:
            _need(source, column)
        return cls("joined", source, column, on, 0, duration(matures_after), absent)

    @classmethod
    def within(cls, source: Source, window: str, *, matures_after: str | None = None) -> Label:
        """1 where the spine's entity has an event in (t, t + window], else 0 once that has passed.

        Examples
        --------
        >>> churned = Source("churned", event_time="ts", columns={"customer_id": "string"})
        >>> Label.within(churned, "30d").absent
        0
        """
        span = duration(window)
        return cls("within", source, None, None, span, _matured(source, span, matures_after), 0)

    @classmethod
    def value(
        cls, source: Source | FeatureGroup, column: str, *, ahead: str, matures_after: str | None = None
    ) -> Label:
        """The value of `column` for the spine's entity at exactly t + `ahead`; unknown without a row.

        A bool column makes a class (0 or 1) of it: what a feature group says of the past at t + `ahead`,
        such as "the price rose in the last five minutes", is what is asked about the next ones at t.

        Examples
        --------
        >>> demand = Source("demand", event_time="ts", columns={"area": "string", "mw": "float64"})
        >>> Label.value(demand, "mw", ahead="24h").column
        'mw'
        """
        _need(source, column)
        if source.fields[column] not in ("int32", "int64", "float32", "float64", "bool"):
            raise DeclarationError(
                f"label column {column!r} of {_called(source)} is {source.fields[column]}", next_step="choose a number"
            )
        span = duration(ahead)
        return cls("value", source, column, None, span, _matured(source, span, matures_after), None)

    @property
    def columns(self) -> dict[str, str]:
        """Columns that the outcomes can be matched and read by, with dtypes."""
        return self.source.columns if isinstance(self.source, Source) else self.source.fields

    @property
    def binary(self) -> bool:
        """Whether the label is a class (0 or 1) and not a number."""
        return self.column is None or self.source.fields[self.column] == "bool"

    def describe(self) -> dict[str, Any]:
        """The declaration as JSON-like facts."""
        facts = {n: getattr(self, n) for n in ("how", "column", "on", "window", "matures_after", "absent")}
        return {**facts, "source": self.source.key}

    @property
    def fingerprint(self) -> str:
        """Changes when the meaning of the label changes."""
        return fingerprint(self.describe())


def _matured(source: Source | FeatureGroup, span: int, given: str | None) -> int:
    """Return when an outcome is as known as it will get; by then a closed period's figures are final."""
    if given is not None:
        return duration(given)
    if isinstance(source, FeatureGroup) or source.known_at is not None:
        raise DeclarationError(
            f"a label from {_called(source)} does not say how long after its time an outcome can still become known",
            next_step='write matures_after="16d" (the span that is asked about and the longest delay of its rows)',
        )
    return span + source.delay


def _called(source: Source | FeatureGroup) -> str:
    return f"{'source' if isinstance(source, Source) else 'feature group'} {source.name!r}"


def _need(source: Source | FeatureGroup, column: str) -> None:
    known = source.columns if isinstance(source, Source) else source.fields
    if column not in known:
        raise UnknownNameError("column", column, list(known), where=_called(source))
