"""Which accepted rows can be applied, and why the others cannot: nothing that a row holds may stop the rows behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.clock import parse_time
from windrow.errors import WindrowError, listed
from windrow.schema import Entity, Field
from windrow.stores.ingest.catalogue import Stream
from windrow.stores.ingest.events import Batch, Parked

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.features.group import FeatureGroup

_ERA = parse_time("1700-01-01"), parse_time("2200-01-01")


class Event(NamedTuple):
    """One row that can be applied.

    Attributes
    ----------
    number, offset, row
        Its segment, where its frame begins there, and which row of the frame it is.
    values
        In the order of ``stream.fields``; times in UTC microseconds.
    """

    number: int
    offset: int
    row: int
    stream: Stream
    values: tuple[Any, ...]
    event_time: int
    known_at: int

    def value(self, name: str) -> Any:
        """Return one field."""
        return self.values[self.stream.names.index(name)]

    def pick(self, names: Sequence[str]) -> tuple[Any, ...]:
        """Return several fields, in the order of `names`."""
        return tuple(self.values[i] for i in places(self.stream.names, tuple(names)))


@lru_cache(maxsize=256)
def places(fields: tuple[str, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """Return where `names` stand in `fields`.

    Examples
    --------
    >>> places(("a", "b", "c"), ("c", "a"))
    (2, 0)
    """
    return tuple(fields.index(name) for name in names)


def judge(batch: Batch, stream: Stream | None, place: tuple[int, int]) -> tuple[list[Event], list[Parked]]:
    """Split a batch into events and rows that cannot be applied.

    Parameters
    ----------
    stream
        What is declared under the batch's name now, or None.
    place
        Segment number and offset of the frame.
    """
    number, offset = place
    broken = _whole(batch, stream)
    events, parked = list[Event](), list[Parked]()
    for row, values in enumerate(batch.rows):
        reason = broken or _wrong(values, batch, stream)  # type: ignore[arg-type]  # with no stream all is broken
        if reason or stream is None:
            parked.append(Parked(offset, row, reason))
        else:
            told = tuple(values[i] for i in places(batch.fields, stream.names))
            time = told[stream.names.index(stream.event_time)]
            events.append(Event(number, offset, row, stream, told, time, values[-1]))
    return events, parked


def _whole(batch: Batch, stream: Stream | None) -> str:
    if stream is None:
        return "nothing of this name is declared any more"
    missing = sorted(set(stream.names) - set(batch.fields))
    return f"it was accepted under another declaration, without {listed(missing)}" if missing else ""


def _wrong(values: Sequence[Any], batch: Batch, stream: Stream) -> str:
    if len(values) != len(batch.fields) + 1:
        return f"it has {len(values) - 1} values for {len(batch.fields)} fields"
    given = dict(zip(batch.fields, values, strict=False))
    for field in stream.fields:
        reason = _misfit(field, given[field.name])
        if reason:
            return reason
    event, known = given[stream.event_time], values[-1]
    if type(known) is not int or not _ERA[0] <= known < _ERA[1] or not _ERA[0] <= event < _ERA[1]:
        return "its times lie before 1700 or after 2199"
    return "known_at is before event_time" if known < event else ""


def _misfit(field: Field, value: Any) -> str:
    if value is None:
        return "" if field.nullable else f"{field.name} is missing"
    return "" if _FITS[field.dtype](value) else f"{field.name} is no {field.dtype}"


def _integer(bits: int) -> Callable[[Any], bool]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    return lambda value: type(value) is int and low <= value < high


def _number(value: Any) -> bool:
    return type(value) is float and isfinite(value)


_FITS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: type(value) is bool,
    "string": lambda value: type(value) is str,
    "int32": _integer(32),
    "int64": _integer(64),
    "timestamp": _integer(64),
    "float32": _number,
    "float64": _number,
}


def failed_checks(events: Sequence[Event]) -> dict[int, str]:
    """Return which of a group's rows fail its own checks: place in `events` -> reasons.

    Checks that cannot run fail every row: they are the group's last line before its readers.
    """
    from windrow.features.validation import failures
    from windrow.stores.engine import engine

    stream = events[0].stream
    try:
        # Keys and times were judged already, and the same keys and times twice is what a repeated push looks like.
        found = failures(_stand_in(stream), to_table(events), con=engine(), built_in=False)
    except Exception as error:  # noqa: BLE001 - a project's own checks may raise anything; other groups' rows go on
        told = error.what if isinstance(error, WindrowError) else f"{type(error).__name__}: {error}"[:300]
        return dict.fromkeys(range(len(events)), f"the group's checks cannot run: {told}")
    reasons: dict[int, list[str]] = {}
    for reason, rows in found.items():
        for row in rows.tolist():
            reasons.setdefault(row, []).append(reason)
    return {row: "; ".join(told) for row, told in reasons.items()}


def ready(stream: Stream) -> None:
    """Run the checks of a group on one row of nothing, so that the first real one does not wait for imports."""
    nothing = Event(0, 0, 0, stream, (None,) * len(stream.names), 0, 0)
    failed_checks([nothing])


def to_table(events: Sequence[Event]) -> pa.Table:
    """Return events of one stream as rows of its table in the lake, without ``_seq``."""
    import pyarrow as pa

    from windrow.features.arrow import arrow_schema
    from windrow.schema import EVENT_TIME, KNOWN_AT

    stream = events[0].stream
    schema = arrow_schema(stream.columns)
    columns: Mapping[str, list[Any]] = {
        **dict(zip(stream.names, map(list, zip(*(e.values for e in events), strict=True)), strict=True)),
        EVENT_TIME: [e.event_time for e in events],
        KNOWN_AT: [e.known_at for e in events],
    }
    return pa.table({f.name: _column(columns[f.name], f.type) for f in schema}, schema=schema)


def _column(values: list[Any], dtype: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.int64()).cast(dtype) if pa.types.is_timestamp(dtype) else pa.array(values, dtype)


@lru_cache(maxsize=64)
def _named(name: str, checks: str, keys: tuple[tuple[str, str], ...]) -> FeatureGroup:
    from windrow.features.group import FeatureGroup
    from windrow.features.reference import Reference

    plain, _, version = name.rpartition("_v")
    # The rows are here already: there is nothing to compute, so it needs no definition.
    return FeatureGroup(
        plain,
        Entity(plain, **dict(keys)),
        int(version),
        lambda: None,
        {},
        checks=Reference.to(checks) if checks else None,
    )


def _stand_in(stream: Stream) -> FeatureGroup:
    keys = tuple((field.name, field.dtype) for field in stream.fields if field.name in stream.keys)
    return _named(stream.name, stream.checks or "", keys)
