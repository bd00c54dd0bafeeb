"""Aggregate functions over a window of an entity's events: ``agg.sum("amount", "7d")``; see `windrow.features.aggregate`.

A function counts an event of the entity for time t when ``tail <= event_time < head`` and the event was known at t.
``head = t - delay`` and ``tail = head - window``, rounded down to the hop; with a delay the head is rounded too.
The hop keeps the state of an entity bounded: the same rounding holds over history, in a stream and in a request.
A sum, in history and online, is right to within 1e-9 of what the sizes of its window's values add up to.
Missing values are left out. Over nothing, count, sum, distinct and streak are 0 and the others missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

import msgspec

from windrow.clock import duration, spoken
from windrow.errors import DeclarationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Moment = TypeVar("Moment", int, "NDArray[np.int64]")

EXACT_EVENTS = 10_000  # what an entity may have in the window of a feature without a hop
LONGEST_STREAK = 10_000  # a longer one is told as this long

AUTO = "auto"
_HOPS = (("1h", "1m"), ("1d", "5m"), ("14d", "1h"))
_NUMBERS = ("bool", "int32", "int64", "float32", "float64")
_TIMES = (*_NUMBERS, "timestamp")
_ANY = (*_TIMES, "string")
_TAKES = {
    "count": (), "sum": _NUMBERS, "mean": _NUMBERS, "std": _NUMBERS, "min": _TIMES, "max": _TIMES,
    "last": _ANY, "first": _ANY, "distinct": _ANY, "streak": ("bool",),
}  # fmt: skip
_GIVES = {"count": "int64", "distinct": "int64", "streak": "int64"} | dict.fromkeys(("sum", "mean", "std"), "float64")


class Options(TypedDict, total=False):
    """What every function of this module may be given besides column and window.

    Attributes
    ----------
    where
        A bool column of the source: only events in which it is true count.
    delay
        The window ends this much before t, for what is known only later, such as ``"7d"``.
    hop
        What the window's tail is rounded down to, such as ``"5m"``, or None for an exact tail (then an entity may
        have 10,000 events in the window). Default: 1 min up to 1 h, 5 min up to 1 d, 1 h up to 14 d, 1 d above.
    include_current
        Whether the request's own event counts as well; it never does by itself.
    """

    where: str | None
    delay: str | None
    hop: str | None
    include_current: bool


class Agg(msgspec.Struct, frozen=True, omit_defaults=True):
    """One aggregate feature, as plain data that a release carries.

    Attributes
    ----------
    kind
        ``count sum mean min max std last first distinct streak``.
    window, delay
        Microseconds.
    hop
        Microseconds, or None for an exact tail.
    column
        Of the source; None counts events.
    where
        A bool column of the source.
    include_current
        Whether the request's own event counts as well.
    """

    kind: str
    window: int
    hop: int | None
    column: str | None = None
    delay: int = 0
    where: str | None = None
    include_current: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """Dtypes that the column may have."""
        return _TAKES[self.kind]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of an event that are read."""
        return tuple(c for c in (self.column, self.where) if c is not None)

    def dtype(self, fields: Mapping[str, str]) -> str:
        """Return the dtype of the result; `fields` are the source's columns.

        Examples
        --------
        >>> last("lat", "30d").dtype({"lat": "float32"}), count("1d").dtype({})
        ('float32', 'int64')
        """
        return _GIVES.get(self.kind) or fields[self.column or ""]

    def head(self, t: Moment) -> Moment:
        """Return where the window ends (not included) for the time `t` (or times), UTC microseconds."""
        end = t - self.delay
        return end - end % self.hop if self.delay and self.hop else end

    def tail(self, t: Moment) -> Moment:
        """Return where the window begins (included) for the time `t` (or times), UTC microseconds.

        Examples
        --------
        >>> minute = 60_000_000
        >>> count("1h").tail(90 * minute + 5) // minute, count("1h", hop=None).tail(90 * minute + 5)
        (30, 1800000005)
        """
        begin = t - self.delay - self.window
        return begin - begin % self.hop if self.hop else begin

    def __str__(self) -> str:
        """Say the function as it is written: ``sum(amount, 7d)``."""
        parts = [self.column or "", spoken(self.window), f"where {self.where}" if self.where else ""]
        parts += [f"delay {spoken(self.delay)}" if self.delay else "", "" if self.hop else "exact"]
        parts += ["with the current one" if self.include_current else ""]
        return f"{self.kind}({', '.join(p for p in parts if p)})"


class Aggregate(msgspec.Struct, frozen=True):
    """An aggregate group as plain data: all that history, stream and request need.

    Attributes
    ----------
    source
        Key of the table of events, such as ``sources/payments``.
    keys
        Its columns that make up the entity's key, in order.
    id
        The column that identifies an event, or None: each row is one.
    columns
        The other columns that are read, with dtypes: the values of an event, in this order.
    features
        Feature -> function.
    """

    source: str
    keys: tuple[str, ...]
    id: str | None
    columns: dict[str, str]
    features: dict[str, Agg]

    def current(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the columns that the features `names` read of the request's own event."""
        made = [self.features[name] for name in names]
        return tuple(dict.fromkeys(c for one in made if one.include_current for c in one.columns))


def count(window: str, **options: Unpack[Options]) -> Agg:
    """Count events.

    Parameters
    ----------
    window
        Such as ``"1h"`` or ``"90d"``.
    **options
        See `Options`.

    Examples
    --------
    >>> print(count("7d", where="is_big"))
    count(7d, where is_big)
    """
    return _agg("count", None, window, **options)


def sum(column: str, window: str, **options: Unpack[Options]) -> Agg:  # noqa: A001 - agg.sum is what it is called
    """Add up the values of `column`, as float64.

    Examples
    --------
    >>> print(sum("amount", "1h", hop=None))
    sum(amount, 1h, exact)
    """
    return _agg("sum", column, window, **options)


def mean(column: str, window: str, **options: Unpack[Options]) -> Agg:
    """Average the values of `column`.

    Examples
    --------
    >>> print(mean("is_fraud", "7d", delay="7d"))
    mean(is_fraud, 7d, delay 7d)
    """
    return _agg("mean", column, window, **options)


def std(column: str, window: str, **options: Unpack[Options]) -> Agg:
    """Return the sample standard deviation (n - 1) of `column`; missing below two values.

    Examples
    --------
    >>> std("amount", "1d").dtype({"amount": "int64"})
    'float64'
    """
    return _agg("std", column, window, **options)


def min(column: str, window: str, **options: Unpack[Options]) -> Agg:  # noqa: A001 - agg.min is what it is called
    """Return the smallest value of `column`.

    Examples
    --------
    >>> min("amount", "1d").dtype({"amount": "int64"})
    'int64'
    """
    return _agg("min", column, window, **options)


def max(column: str, window: str, **options: Unpack[Options]) -> Agg:  # noqa: A001 - agg.max is what it is called
    """Return the greatest value of `column`.

    Examples
    --------
    >>> max("amount", "1d", include_current=True).include_current
    True
    """
    return _agg("max", column, window, **options)


def last(column: str, window: str, **options: Unpack[Options]) -> Agg:
    """Return the newest value of `column`, by (event_time, known_at, id).

    Examples
    --------
    >>> last("ts", "90d").dtype({"ts": "timestamp"})
    'timestamp'
    """
    return _agg("last", column, window, **options)


def first(column: str, window: str, **options: Unpack[Options]) -> Agg:
    """Return the oldest value of `column`, by (event_time, known_at, id).

    Examples
    --------
    >>> first("plan", "90d").dtype({"plan": "string"})
    'string'
    """
    return _agg("first", column, window, **options)


def distinct(column: str, window: str, **options: Unpack[Options]) -> Agg:
    """Count the different values of `column`.

    Examples
    --------
    >>> print(distinct("merchant_id", "7d"))
    distinct(merchant_id, 7d)
    """
    return _agg("distinct", column, window, **options)


def streak(column: str, window: str, **options: Unpack[Options]) -> Agg:
    """Count how often the bool `column` was true since it was last false (10,000 at most).

    Of the events of one moment the false ones come last.

    Examples
    --------
    >>> print(streak("won", "90d"))
    streak(won, 90d)
    """
    return _agg("streak", column, window, **options)


def _agg(kind: str, column: str | None, window: str, **options: Unpack[Options]) -> Agg:
    where = f"agg.{kind}({column or ''})"
    delay, length = options.get("delay"), duration(window, where=f"the window of {where}")
    given = options.get("hop", AUTO)
    hop = (
        _default_hop(length) if given == AUTO else None if given is None else duration(given, where=f"hop= of {where}")
    )
    lag = duration(delay, where=f"delay= of {where}") if delay else 0
    made = Agg(kind, length, hop, column, lag, options.get("where"))
    made = msgspec.structs.replace(made, include_current=options.get("include_current", False))
    _check(made)
    return made


def _default_hop(window: int) -> int:
    return next((duration(hop) for limit, hop in _HOPS if window <= duration(limit)), duration("1d"))


def _check(made: Agg) -> None:
    if made.window < 1:
        raise DeclarationError(f"{made} has a window of no length", next_step='write one such as "1h" or "7d"')
    if made.hop is not None and not 0 < made.hop <= made.window:
        raise DeclarationError(
            f"{made} has a hop of {spoken(made.hop)}",
            next_step="give a hop that is shorter than the window, or None for an exact tail",
        )
    if made.include_current and made.delay:
        raise DeclarationError(
            f"{made} includes the current event, which its delay keeps out", next_step="leave one of them out"
        )
