"""Reading a source: its rows from a file or its simulator, typed, timed and checked before anybody stores them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from windrow.clock import parse_time
from windrow.errors import DataError, SchemaError, TimeError, closest, listed
from windrow.features.arrow import arrow_type
from windrow.features.exact import exactly
from windrow.features.source import Constant, Source
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.csv_file import Numbered, read_csv
from windrow.stores.zones import to_utc

if TYPE_CHECKING:
    import pyarrow as pa

_ERA = parse_time("1700-01-01"), parse_time("2200-01-01")


def read_source(source: Source, data: Path, *, since: int | None = None) -> pa.Table:
    r"""Return every row of a source, or raise: nothing is dropped or guessed.

    Parameters
    ----------
    source
        Says where its rows are and what they must look like.
    data
        Folder of data files. The source's file is read where it exists, else its simulator is asked.
    since
        Only rows known after this time (UTC microseconds); there may be none.

    Returns
    -------
    pyarrow.Table
        ``source.fields`` in their order and declared dtypes, then ``event_time`` and ``known_at``
        (timestamp[us, UTC]). NaN comes out as null.

    Raises
    ------
    DataError
        No file and no simulator, no rows, duplicate ids.
    SchemaError
        A missing column, or a value that its dtype cannot hold.
    TimeError
        A time that is missing, naive, ambiguous, unreadable or centuries away, or a ``known_at`` before its event.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.features.source import CsvFile
    >>> data = Path(mkdtemp())
    >>> _ = (data / "p.csv").write_text("when,eur\n2026-01-01T00:00:00Z,1.5\n")
    >>> file = CsvFile("p.csv", {"ts": "when", "amount": "eur"})
    >>> payments = Source("payments", event_time="ts", columns={"amount": "float64"}, file=file)
    >>> read_source(payments, data).column_names
    ['amount', 'ts', 'event_time', 'known_at']
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path = _file(source, data)
    where = path.name if path else f"source {source.name!r}"
    rows = read_csv(source, path, since=since) if path else _simulated(source, data, since)
    if not len(rows.numbers) and since is None:
        raise DataError(f"Source {source.name!r} has no rows ({where})", next_step="give it at least one row")
    rows.columns.update(_times(source, rows, where))
    _refuse_duplicates(source, rows, where)
    made = pa.table(rows.columns)
    return made if since is None else made.filter(pc.greater(made[KNOWN_AT].cast(pa.int64()), since))


def origin(source: Source, data: Path) -> str:
    """Return where `read_source` would take the rows from: ``file`` or ``simulator``.

    Examples
    --------
    >>> origin(Source("payments", event_time="ts", columns={"amount": "float64"}), Path())
    'simulator'
    """
    return "file" if _file(source, data) else "simulator"


def _file(source: Source, data: Path) -> Path | None:
    path = data / source.file.name if source.file else None
    return path if path and path.is_file() else None


def _simulated(source: Source, data: Path, since: int | None) -> Numbered:
    import pyarrow as pa

    if source.simulator is None:
        looked = f"{source.file.name!r} is not in {data}" if source.file else "it names no file"
        raise DataError(
            f"Source {source.name!r} has no data: {looked}, and it names no simulator",
            next_step='put the file there (folder WINDROW_DATA), or declare simulator="module:function"',
        )
    asked = {"since": since} if "since" in signature(source.simulator.load()).parameters else {}
    given = source.simulator.call(f"the simulator of source {source.name!r}", **asked)
    where = f"simulator {source.simulator} of source {source.name!r}"
    if not isinstance(given, Mapping | pa.Table):
        raise SchemaError(
            f"The {where} returned {type(given).__name__}",
            next_step="return a dict of NumPy arrays, or a pyarrow.Table",
        )
    names = list(given) if isinstance(given, Mapping) else given.column_names
    _check_names(source, names, where)
    numbers = _numbers(given, source, where)
    columns = {n: _typed(source, n, _readable(given[n], f"The {where}, column {n!r}"), where) for n in source.fields}
    return Numbered(columns, numbers)


def _check_names(source: Source, names: list[str], where: str) -> None:
    for name in source.fields:
        if name not in names:
            raise SchemaError(
                f"The {where} gives no column {name!r}",
                exists=f"It gives {listed(names)}",
                next_step=closest(name, names) or f"add {name!r} to it",
            )
    for name in names:
        if name not in source.fields:
            raise SchemaError(
                f"The {where} gives a column {name!r} that is not declared",
                exists=f"Declared are {listed(source.fields)}",
                next_step=closest(name, source.fields) or f"declare {name!r} or leave it out",
            )


def _numbers(given: Any, source: Source, where: str) -> pa.ChunkedArray:
    import pyarrow as pa

    for name in source.fields:
        if not _arrow(given[name]) and np.ndim(given[name]) != 1:
            raise SchemaError(
                f"The {where}, column {name!r} is no column of values",
                next_step="return one array of shape (rows,) for each column",
            )
    lengths = {name: len(given[name]) for name in source.fields}
    if len(set(lengths.values())) > 1:
        raise SchemaError(
            f"The {where} gives columns of different lengths",
            exists=f"Lengths: {lengths}",
            next_step="return one value per row in each",
        )
    return pa.chunked_array([pa.array(range(1, next(iter(lengths.values())) + 1), pa.int64())])


def _arrow(values: Any) -> bool:
    import pyarrow as pa

    return isinstance(values, pa.Array | pa.ChunkedArray)


def _readable(values: Any, place: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return _chunked(values)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise SchemaError(
            f"{place} cannot be read: {str(error)[:200]}",
            next_step="return numbers, text, true and false, or datetime64[us]",
        ) from None


def _chunked(values: Any) -> pa.ChunkedArray:
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        return values
    array = np.asarray(values)
    if not len(array):
        return pa.chunked_array([pa.nulls(0)])  # NumPy calls an empty list float64
    if array.dtype.kind == "M":
        # NumPy's times have no zone; a simulator's are UTC by agreement.
        return pa.chunked_array([pa.array(array.astype("datetime64[us]"), pa.timestamp("us", "UTC"), from_pandas=True)])
    return pa.chunked_array([pa.array(array.tolist() if array.dtype.kind == "U" else array, from_pandas=True)])


def _typed(source: Source, name: str, values: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return `values` in the declared dtype; refuse a change of kind or of value."""
    import pyarrow as pa

    dtype, place = source.fields[name], f"The {where}, column {name!r}"
    if pa.types.is_null(values.type):
        return values.cast(arrow_type(dtype))
    if _kind(values.type) not in _FITS[dtype]:
        raise SchemaError(
            f"{place} is {values.type}, declared is {dtype}",
            next_step=f"return {dtype} values, or declare another dtype",
        )
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        return _zoned(source, values.cast(pa.timestamp("us")), place)
    return exactly(values, dtype, place=place)


_FITS = {
    "bool": ("bool",), "string": ("string",), "timestamp": ("timestamp",),
    **dict.fromkeys(("int32", "int64", "float32", "float64"), ("number", "bool")),
}  # fmt: skip


def _kind(given: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_dictionary(given):
        given = given.value_type
    tests = {"bool": pa.types.is_boolean, "timestamp": pa.types.is_timestamp}
    text = pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    number = pa.types.is_integer(given) or pa.types.is_floating(given)
    found = [kind for kind, test in tests.items() if test(given)]
    return "string" if text else "number" if number else (found or [str(given)])[0]


def _zoned(source: Source, local: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    if source.timezone is None:
        raise TimeError(
            f"{place}: times without zone",
            exists="Naive times are never guessed",
            next_step=f'declare timezone="UTC" (or the zone they are in) on source {source.name!r}',
        )
    return to_utc(local, source.timezone, ambiguous=source.ambiguous, where=place, numbers=range(1, len(local) + 1))


def _times(source: Source, rows: Numbered, where: str) -> dict[str, pa.ChunkedArray]:
    """Return ``event_time`` and ``known_at``, both present in every row, known-at never the earlier."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in source.time_columns:
        _refuse_rows(
            rows,
            pc.is_null(rows.columns[name]),
            f"{where}, column {name!r}",
            "the time is missing",
            "give every row its time, or leave it out of the data",
        )
    if isinstance(source.event_time, Constant):
        value = pa.scalar(source.event_time.micros, pa.int64()).cast(arrow_type("timestamp"))
        event = pa.chunked_array([pa.repeat(value, len(rows.numbers))])
    else:
        event = rows.columns[source.event_time]
    known = (
        rows.columns[source.known_at] if source.known_at else pc.add(event, pa.scalar(source.delay, pa.duration("us")))
    )
    _refuse_rows(
        rows,
        pc.less(known, event),
        where,
        f"known_at ({source.known_at}) is before event_time ({source.event_time})",
        "put the target time of what is known beforehand into a key, and its publication into event_time",
    )
    _refuse_far(rows, event, where)
    _refuse_far(rows, known, where)
    return {EVENT_TIME: event, KNOWN_AT: known}


def _refuse_far(rows: Numbered, times: pa.ChunkedArray, where: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    # Such as 9999-12-31 for "never": one row like it would be the newest, and everything else long expired.
    first, end = (pa.scalar(moment, pa.int64()).cast(arrow_type("timestamp")) for moment in _ERA)
    far = pc.or_(pc.less(times, first), pc.greater_equal(times, end))
    _refuse_rows(rows, far, where, "a time before 1700 or after 2199", "correct it, or leave the row out of the data")


def _refuse_rows(rows: Numbered, bad: pa.ChunkedArray, where: str, what: str, next_step: str) -> None:
    import pyarrow.compute as pc

    count = pc.sum(bad).as_py() or 0
    if count:
        row = rows.numbers[pc.index(bad, True).as_py()]
        raise TimeError(f"{where}, row {row}: {what}", exists=f"{count} rows are like it", next_step=next_step)


def _refuse_duplicates(source: Source, rows: Numbered, where: str) -> None:
    """An id names one event: a null or a second row with it is refused."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if source.id is None:
        return
    ids = rows.columns[source.id]
    if ids.null_count:
        row = rows.numbers[pc.index(pc.is_null(ids), True).as_py()]
        raise DataError(
            f"{where}, row {row}: the id {source.id!r} is missing",
            exists=f"{ids.null_count} rows are like it",
            next_step="give every row its id",
        )
    counted = (
        pa.table({"id": ids, "row": rows.numbers})
        .group_by("id")
        .aggregate([("row", "count"), ("row", "min"), ("row", "max")])
    )
    twice = counted.filter(pc.greater(counted.column("row_count"), 1))
    if twice.num_rows:
        one = twice.sort_by("row_min").slice(0, 1).to_pylist()[0]
        raise DataError(
            f"{where}: rows {one['row_min']} and {one['row_max']} have the same {source.id!r}",
            exists=f"{twice.num_rows} ids are there more than once",
            next_step=f"remove the repeated rows, or declare another id on source {source.name!r}",
        )


def span(rows: pa.Table) -> dict[str, int]:
    """Return what `Metadata.record_span` wants to know of rows: first and last event time, latest known-at, count."""
    import pyarrow.compute as pc

    event, known = rows.column(EVENT_TIME), rows.column(KNOWN_AT)
    return {
        "first": pc.min(event).value,
        "last": pc.max(event).value,
        "known": pc.max(known).value,
        "rows": rows.num_rows,
    }
