"""Sources: where rows come from, and when each row was true and could be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from windrow.clock import duration, parse_time
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.kinds import check_kind
from windrow.features.reference import Reference, declaring_package
from windrow.schema import (
    EVENT_TIME,
    SYSTEM_COLUMNS,
    Entity,
    Field,
    check_dtype,
    check_name,
    fingerprint,
)


@dataclass(frozen=True)
class Constant:
    """One event time for a source that has no times: a single snapshot (random splits only).

    Examples
    --------
    >>> Constant("1970-01-01").micros
    0
    """

    text: str

    @property
    def micros(self) -> int:
        """UTC microseconds."""
        return parse_time(self.text)


@dataclass(frozen=True)
class CsvFile:
    """A file in `WINDROW_DATA`: which column of it is which column of the source.

    Parameters
    ----------
    name
        File name inside the data folder.
    columns
        Source column -> column of the file.
    constants
        Source column -> the same text in every row.
    where
        File column -> the text that a row must hold to be read.
    """

    name: str
    columns: Mapping[str, str]
    constants: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a source, group or spine, as an input of a declaration."""

    owner: Any
    name: str
    dtype: str

    def __repr__(self) -> str:
        return f"{self.owner.name}.{self.name}"


@dataclass(frozen=True, eq=False, init=False)
class Source:
    """A named table of events or states, with typed columns and its times.

    Parameters
    ----------
    name
        Lower snake case; unique in the project.
    columns
        Column -> dtype (``bool int32 int64 float32 float64 string timestamp``), without the time columns.
    event_time
        The column that says when a row was true, or a `Constant`.
    known_at
        The column that says when a row could be known (default: the event time plus `delay`).
    delay
        A fixed delay such as ``"15d"`` between event time and known-at.
    id
        The column that identifies an event; duplicates of it are refused.
    timezone
        Zone of naive times in the data; without it naive times are refused.
    ambiguous
        What to do with a local hour that happened twice: ``refuse``, ``earliest`` or ``latest``.
    file, simulator
        A `CsvFile` used where it exists, and ``"module:function"`` that makes rows where it does not.
    load
        What a run means for rows that are stored already. ``append``: the data may be a part of them, so what
        is absent stays. ``full``: the data are all there is, so rows that have vanished are deleted (``as_of``
        before the run still shows them). ``incremental``: rows arrive in the order of ``known_at``, so only
        those known after the newest stored one are read; a simulator with a parameter ``since`` (UTC
        microseconds, or None) is asked for these only.

    Examples
    --------
    >>> payments = Source("payments", id="payment_id", event_time="ts", columns={"payment_id": "int64", "amount": "float64"})
    >>> payments.amount
    payments.amount
    """

    name: str
    columns: dict[str, str]
    event_time: str | Constant
    known_at: str | None
    delay: int
    id: str | None
    timezone: str | None
    ambiguous: str
    file: CsvFile | None
    simulator: Reference | None
    load: str

    def __init__(
        self,
        name: str,
        *,
        columns: Mapping[str, str],
        event_time: str | Constant,
        known_at: str | None = None,
        delay: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own word
        timezone: str | None = None,
        ambiguous: Literal["refuse", "earliest", "latest"] = "refuse",
        file: CsvFile | None = None,
        simulator: str | None = None,
        load: Literal["append", "full", "incremental"] = "append",
    ) -> None:
        check_kind(columns, Mapping, where=f"columns= of source {name!r}", example='{"amount": "float64"}')
        values: dict[str, Any] = {
            "name": check_name("source", name),
            "columns": dict(columns),
            "event_time": event_time,
        }
        values |= {
            "known_at": known_at,
            "delay": duration(delay, where=f"delay= of source {name!r}") if delay else 0,
            "id": id,
        }
        values |= {"timezone": timezone, "ambiguous": ambiguous, "file": file, "load": load}
        values["simulator"] = Reference.to(simulator, declaring_package()) if simulator else None
        for key, value in values.items():
            object.__setattr__(self, key, value)
        _check_columns(self)
        _check_times(self)
        _check_load(self)
        _check_file(self)

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.column(name)

    def __getitem__(self, name: str) -> Column:
        return self.column(name)

    def column(self, name: str) -> Column:
        """Return one column as an input for a view; raise `UnknownNameError` with the closest name."""
        if name not in self.fields:
            raise UnknownNameError("column", name, list(self.fields), where=f"source {self.name!r}")
        return Column(self, name, self.fields[name])

    @property
    def time_columns(self) -> tuple[str, ...]:
        """The declared time columns that are in the data (none for a `Constant`)."""
        return tuple(c for c in (self.event_time, self.known_at) if isinstance(c, str))

    @property
    def fields(self) -> dict[str, str]:
        """Every column that a feature group may read, with dtypes, declared times included."""
        return {**self.columns, **dict.fromkeys(self.time_columns, "timestamp")}

    @property
    def spine_fields(self) -> tuple[Field, ...]:
        """The columns of one spine row."""
        return tuple(Field(name, dtype) for name, dtype in self.columns.items())

    @property
    def key(self) -> str:
        """Its asset key and lake path."""
        return f"sources/{self.name}"

    @property
    def fingerprint(self) -> str:
        """Changes when names, types or times of the declaration change."""
        return fingerprint(self.describe())

    def describe(self) -> dict[str, Any]:
        """The declaration as JSON-like facts."""
        return {
            "columns": self.columns,
            "event_time": self.event_time.text if isinstance(self.event_time, Constant) else self.event_time,
            "constant": isinstance(self.event_time, Constant),
            "known_at": self.known_at,
            "delay": self.delay,
            "id": self.id,
            "timezone": self.timezone,
            "ambiguous": self.ambiguous,
        }


@dataclass(frozen=True, eq=False, init=False)
class Every:
    """A clock as spine: one row per entity key and tick.

    Parameters
    ----------
    interval
        Time between two ticks, such as ``"1h"``; they are counted from 1970, in UTC.
    entity
        Whom each tick asks about; without one, each tick asks once, of groups that have no entity either.
    offset
        How much later each tick is, such as ``"10s"`` where data of a tick are known ten seconds after it.

    Examples
    --------
    >>> hourly = Every("1h", Entity("area", area="string"))
    >>> hourly.event_time
    every_1h.event_time
    >>> Every("1h").spine_fields
    ()
    >>> Every("30s", Entity("area", area="string"), offset="10s").first(31_000_000) // 1_000_000
    40
    """

    interval: int
    entity: Entity
    offset: int
    name: str

    def __init__(self, interval: str, entity: Entity | None = None, *, offset: str = "0s") -> None:
        example = 'Every("1h", area), with area = Entity("area", area="string") above it'
        entity = Entity.keyless() if entity is None else entity
        check_kind(entity, Entity, where=f"the entity of Every({interval!r}, ...)", example=example)
        object.__setattr__(self, "interval", duration(interval, where="the interval of Every()"))
        object.__setattr__(self, "entity", entity)
        object.__setattr__(self, "offset", duration(offset, where=f"offset= of Every({interval!r})"))
        object.__setattr__(self, "name", f"every_{interval}" + (f"_at_{offset}" if self.offset else ""))
        if not 0 <= self.offset < self.interval:
            raise DeclarationError(
                f"Every({interval!r}, offset={offset!r}) has an offset as long as its interval",
                next_step="give a shorter one",
            )

    def first(self, start: int) -> int:
        """Return the first tick at or after `start`, UTC microseconds."""
        return -(-(start - self.offset) // self.interval) * self.interval + self.offset

    @property
    def event_time(self) -> Column:
        """The tick, as an input of an on-demand feature."""
        return Column(self, EVENT_TIME, "timestamp")

    @property
    def spine_fields(self) -> tuple[Field, ...]:
        """The columns of one spine row."""
        return self.entity.keys


def _check_columns(source: Source) -> None:
    where = f"source {source.name!r}"
    for name, dtype in source.columns.items():
        check_kind(name, str, where=f"a column of {where}", example=f'{{"amount": "{dtype}"}}')
        check_dtype(dtype, where=f"{where}, column {name!r}")
        if name in SYSTEM_COLUMNS and name not in source.time_columns:
            raise DeclarationError(f"{where} has a column {name!r}, which windrow adds itself", next_step="rename it")
    if source.id is not None and source.id not in source.columns:
        raise UnknownNameError("id column", source.id, list(source.columns), where=where)
    for name in source.time_columns:
        if source.columns.get(name, "timestamp") != "timestamp":
            raise DeclarationError(
                f"{where}: time column {name!r} is declared {source.columns[name]}",
                next_step="declare it as timestamp or leave it out of columns",
            )


def _check_times(source: Source) -> None:
    if source.known_at and source.delay:
        raise DeclarationError(f"source {source.name!r} has both known_at and delay", next_step="keep one of them")
    if isinstance(source.event_time, Constant):
        _ = source.event_time.micros
    if source.timezone is not None:
        try:
            ZoneInfo(source.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise DeclarationError(
                f"source {source.name!r}: there is no time zone {source.timezone!r}",
                next_step='use an IANA name such as "UTC" or "Australia/Melbourne"',
            ) from None
    if source.ambiguous not in ("refuse", "earliest", "latest"):
        raise UnknownNameError(
            "rule for ambiguous times",
            source.ambiguous,
            ["refuse", "earliest", "latest"],
            where=f"source {source.name!r}",
        )


def _check_load(source: Source) -> None:
    where, known = f"source {source.name!r}", ["append", "full", "incremental"]
    if source.load not in known:
        raise UnknownNameError("way to load", str(source.load), known, where=where)
    if source.load == "incremental" and isinstance(source.event_time, Constant):
        raise DeclarationError(
            f"{where} has one time for all rows, so none is ever later than another",
            next_step='declare load="full" or load="append"',
        )


def _check_file(source: Source) -> None:
    if source.file is None:
        return
    made = {*source.file.columns, *source.file.constants}
    for name in made - set(source.fields):
        raise UnknownNameError("column", name, list(source.fields), where=f"source {source.name!r} (named in its file)")
    missing = sorted(set(source.fields) - made)
    if missing:
        raise DeclarationError(
            f"source {source.name!r}: its file {source.file.name!r} gives no column for {missing}",
            next_step="map them in CsvFile(columns=...) or constants",
        )
