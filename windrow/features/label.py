"""Labels: what a prediction is about, when it can be known, and what absence means after that."""

from __future__ import annotations

from collections.abc import Sequence
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
    classes
        The values of `column` that are the classes, in the order of their places 0, 1, ...; another value
        leaves the label unknown.
    """

    how: Literal["joined", "within", "value"]
    source: Source | FeatureGroup
    column: str | None
    on: str | None
    window: int
    matures_after: int
    absent: float | None
    classes: tuple[str, ...] = ()

    @classmethod
    def joined(
        cls, source: Source, *, on: str, matures_after: str, absent: float | str | None = None, column: str | None = None,
        classes: Sequence[str] = (),
    ) -> Label:  # fmt: skip
        """1 (or `column`) where `source` has a row with the same `on` as the spine row.

        With `classes`, the place of the column's value among them.

        Examples
        --------
        >>> chargebacks = Source("chargebacks", event_time="ts", columns={"payment_id": "int64"})
        >>> Label.joined(chargebacks, on="payment_id", absent=0, matures_after="30d").absent
        0
        """
        _need(source, on)
        if column:
            _need(source, column)
        named = _classes(source, column, classes)
        meant = float(_place(absent, named)) if isinstance(absent, str) else absent
        return cls(
            "joined",
            source,
            column,
            on,
            0,
            duration(matures_after, where="matures_after= of Label.joined()"),
            meant,
            named,
        )

    @classmethod
    def within(cls, source: Source, window: str, *, matures_after: str | None = None) -> Label:
        """1 where the spine's entity has an event in (t, t + window], else 0 once that has passed.

        Examples
        --------
        >>> churned = Source("churned", event_time="ts", columns={"customer_id": "string"})
        >>> Label.within(churned, "30d").absent
        0
        """
        span = duration(window, where="the window of Label.within()")
        return cls("within", source, None, None, span, _matured(source, span, matures_after), 0)

    @classmethod
    def value(
        cls, source: Source | FeatureGroup, column: str, *, ahead: str, matures_after: str | None = None,
        classes: Sequence[str] = (),
    ) -> Label:  # fmt: skip
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
        named = _classes(source, column, classes)
        if not named and source.fields[column] not in ("int32", "int64", "float32", "float64", "bool"):
            raise DeclarationError(
                f"label column {column!r} of {_called(source)} is {source.fields[column]}",
                next_step="choose a number, or name the classes: classes=[...]",
            )
        span = duration(ahead, where="ahead= of Label.value()")
        return cls("value", source, column, None, span, _matured(source, span, matures_after), None, named)

    @property
    def columns(self) -> dict[str, str]:
        """Columns that the outcomes can be matched and read by, with dtypes."""
        return self.source.columns if isinstance(self.source, Source) else self.source.fields

    @property
    def binary(self) -> bool:
        """Whether the label is one of two classes (0 or 1), and not a number or one of more."""
        if self.classes:
            return len(self.classes) == 2
        return self.column is None or self.source.fields[self.column] == "bool"

    @property
    def multiclass(self) -> bool:
        """Whether the label is one of three classes or more."""
        return len(self.classes) > 2

    def describe(self) -> dict[str, Any]:
        """The declaration as JSON-like facts."""
        facts = {n: getattr(self, n) for n in ("how", "column", "on", "window", "matures_after", "absent")}
        # Not told where there are none: the meaning of labels without names is what it was.
        named = {"classes": list(self.classes)} if self.classes else {}
        return {**facts, **named, "source": self.source.key}

    @property
    def fingerprint(self) -> str:
        """Changes when the meaning of the label changes."""
        return fingerprint(self.describe())


def _matured(source: Source | FeatureGroup, span: int, given: str | None) -> int:
    """Return when an outcome is as known as it will get; by then a closed period's figures are final."""
    if given is not None:
        return duration(given, where="matures_after= of a label")
    if isinstance(source, FeatureGroup) or source.known_at is not None:
        raise DeclarationError(
            f"a label from {_called(source)} does not say how long after its time an outcome can still become known",
            next_step='write matures_after="16d" (the span that is asked about and the longest delay of its rows)',
        )
    return span + source.delay


def _classes(source: Source | FeatureGroup, column: str | None, classes: Sequence[str]) -> tuple[str, ...]:
    if not classes:
        return ()
    known = source.columns if isinstance(source, Source) else source.fields
    if column is None or known[column] != "string":
        raise DeclarationError(
            f"classes= of a label from {_called(source)} needs a text column, not {column!r}",
            next_step="name the column that holds the classes: column=...",
        )
    if isinstance(classes, str) or len(set(classes)) != len(classes) or len(classes) < 2:
        raise DeclarationError(
            f"classes={classes!r} are not two different classes or more",
            next_step='write them as a list, such as classes=["home", "draw", "away"]',
        )
    return tuple(classes)


def _place(name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        raise UnknownNameError("class", name, classes, where="classes= of the label")
    return classes.index(name)


def _called(source: Source | FeatureGroup) -> str:
    return f"{'source' if isinstance(source, Source) else 'feature group'} {source.name!r}"


def _need(source: Source | FeatureGroup, column: str) -> None:
    known = source.columns if isinstance(source, Source) else source.fields
    if column not in known:
        raise UnknownNameError("column", column, list(known), where=_called(source))
