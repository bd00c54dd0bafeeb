"""Times and durations: UTC microseconds everywhere, and one answer to "what is now?"."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from windrow.errors import DeclarationError, SettingsError, TimeError

SECOND = 1_000_000
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND, "w": 7 * 86_400 * SECOND}
_NAMED = {
    "@hourly": "1h", "@daily": "1d", "@midnight": "1d", "@weekly": "7d", "@monthly": "31d", "@yearly": "366d",
    "@annually": "366d",
}  # fmt: skip
_LONGEST, _DIGITS = 365_250 * _UNITS["d"], 12  # a thousand years
_DURATION = re.compile(r"(\d+)([smhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration(text: str, *, where: str = "") -> int:
    """Return the microseconds of a duration such as ``"30s"``, ``"5m"``, ``"24h"``, ``"7d"``, ``"2w"``.

    `where` is who asks, for errors: ``"delay= of source 'sales'"``.

    Raises
    ------
    DeclarationError
        If the text is not a whole number and one unit.

    Examples
    --------
    >>> duration("24h") == duration("1d") == 86_400_000_000
    True
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None  # not what newcomers write: 24
    if not match:
        raise DeclarationError(
            f"{_asked(text, where)} is not a duration", next_step='write a number and a unit, such as "24h" or "7d"'
        )
    # Bounded before it is a number: times are 64 bits wide, and so is what is computed of them.
    if len(match[1].lstrip("0")) > _DIGITS or int(match[1]) * _UNITS[match[2]] > _LONGEST:
        raise DeclarationError(
            f"{_asked(text[:20], where)} is longer than 1000 years", next_step="write a shorter one, or leave it out"
        )
    return int(match[1]) * _UNITS[match[2]]


def _asked(text: str, where: str) -> str:
    return f"{where} is {text!r}, which" if where else repr(text)


def spoken(microseconds: int) -> str:
    """Return a duration in its largest whole unit.

    Examples
    --------
    >>> spoken(duration("48h"))
    '2d'
    """
    for unit in ("d", "h", "m", "s"):
        if microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    return f"{microseconds / SECOND:g}s"


def period(schedule: str) -> int:
    """Return the microseconds between two runs of a schedule, the longest there are: a name or a cron line.

    Examples
    --------
    >>> [spoken(period(text)) for text in ("@daily", "30 6 * * *", "0 6 * * 1", "*/15 * * * *")]
    ['1d', '1d', '7d', '1h']
    """
    if schedule in _NAMED:
        return duration(_NAMED[schedule])
    minute, hour, day, month, weekday = (part != "*" for part in schedule.split())
    rare = ((month, "366d"), (day, "31d"), (weekday, "7d"), (hour, "1d"), (minute, "1h"))
    return duration(next((text for fixed, text in rare if fixed), "1m"))


def to_micros(moment: datetime) -> int:
    """Return UTC microseconds of an aware datetime.

    Raises
    ------
    TimeError
        If the datetime is naive.

    Examples
    --------
    >>> to_micros(datetime(1970, 1, 2, tzinfo=UTC)) == duration("1d")
    True
    """
    if moment.tzinfo is None:
        raise TimeError(f"{moment.isoformat()} has no time zone", next_step="add one, such as 'Z' for UTC")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime of `micros`.

    Examples
    --------
    >>> from_micros(0).isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(micros // SECOND, UTC).replace(microsecond=micros % SECOND)


def parse_time(text: str) -> int:
    """Return UTC microseconds of an ISO 8601 time with zone, or of a date (its first instant, UTC).

    Raises
    ------
    TimeError
        If the text is not a time, or a time without zone.

    Examples
    --------
    >>> parse_time("1970-01-01T01:00:00+01:00"), parse_time("1970-01-02")
    (0, 86400000000)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TimeError("a time cannot be read", next_step='write ISO 8601, such as "2026-01-31T09:00:00Z"') from None
    return to_micros(moment.replace(tzinfo=UTC) if len(text) == len("2026-01-31") else moment)


class Clock(msgspec.Struct, frozen=True):
    """The one answer to "what is now?": ``real``, ``fixed:<time>`` or ``data``.

    Examples
    --------
    >>> Clock.parse("fixed:2019-09-30").now(lambda: 0) == parse_time("2019-09-30")
    True
    >>> Clock.parse("data").now(lambda: 42)
    42
    """

    kind: str
    at: int = 0

    @classmethod
    def parse(cls, text: str) -> Clock:
        """Read the setting; raise `SettingsError` when it is none of the three."""
        if text.startswith("fixed:"):
            try:
                return cls("fixed", parse_time(text.removeprefix("fixed:")))
            except TimeError as error:
                raise SettingsError(f"WINDROW_CLOCK is {text!r}: {error.what}", next_step=error.next_step) from None
        if text not in ("real", "data"):
            raise SettingsError(f"WINDROW_CLOCK is {text!r}", next_step="use real, data or fixed:<ISO time>")
        return cls(text)

    def now(self, latest: Callable[[], int]) -> int:
        """Return UTC microseconds; `latest` gives the latest known time of the service's sources."""
        if self.kind == "data":
            return latest()
        return self.at if self.kind == "fixed" else time.time_ns() // 1000
