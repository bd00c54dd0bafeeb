"""Labels: what a prediction is about, when it can be known, and what absence means after that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from windrow.clock import duration
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.source import Source
from windrow.schema import fingerprint


@dataclass(frozen=True, eq=False)
class Label:
    """The outcome of a spine row; made by `joined`, `within` or `value`.

    Attributes
    ----------
    how
        ``joined`` (by id), ``within`` (an event in (t, t + window]) or ``value`` (of a column at t + window).
    matures_after
        Microseconds after t; before that the label is unknown, never negative.
    absent
        What no row means once mature; None leaves the label unknown.
    """

    how: Literal["joined", "within", "value"]
    source: Source
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
    def within(cls, source: Source, window: str) -> Label:
        """1 where the spine's entity has an event in (t, t + window], else 0 once that has passed.

        Examples
        --------
        >>> churned = Source("churned", event_time="ts", columns={"customer_id": "string"})
        >>> Label.within(churned, "30d").absent
        0
        """
        span = duration(window)
        return cls("within", source, None, None, span, span + source.delay, 0)

    @classmethod
    def value(cls, source: Source, column: str, *, ahead: str, matures_after: str | None = None) -> Label:
        """The value of `column` for the spine's entity at exactly t + `ahead`; unknown without a row.

        Examples
        --------
        >>> demand = Source("demand", event_time="ts", columns={"area": "string", "mw": "float64"})
        >>> Label.value(demand, "mw", ahead="24h").column
        'mw'
        """
        _need(source, column)
        if source.columns[column] not in ("int32", "int64", "float32", "float64", "bool"):
            raise DeclarationError(
                f"label column {column!r} of source {source.name!r} is {source.columns[column]}",
                next_step="choose a number",
            )
        span = duration(ahead)
        matured = duration(matures_after) if matures_after else span + source.delay
        return cls("value", source, column, None, span, matured, None)

    @property
    def binary(self) -> bool:
        """Whether the label is a class (0 or 1) and not a number."""
        return self.column is None

    def describe(self) -> dict[str, Any]:
        """The declaration as JSON-like facts."""
        facts = {n: getattr(self, n) for n in ("how", "column", "on", "window", "matures_after", "absent")}
        return {**facts, "source": self.source.key}

    @property
    def fingerprint(self) -> str:
        """Changes when the meaning of the label changes."""
        return fingerprint(self.describe())


def _need(source: Source, column: str) -> None:
    if column not in source.columns:
        raise UnknownNameError("column", column, list(source.columns), where=f"source {source.name!r}")
