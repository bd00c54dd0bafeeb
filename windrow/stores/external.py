"""Tables of other systems, read in place for the point-in-time join: never copied, never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.clock import from_micros
from windrow.errors import DataError, NotFoundError, SchemaError, StoreError, UnknownNameError, WindrowError
from windrow.features.exact import exactly
from windrow.features.place import External, IbisTable, Parquet, Postgres
from windrow.features.reference import Reference
from windrow.schema import EVENT_TIME, KNOWN_AT, SEQ, fingerprint
from windrow.settings import Settings
from windrow.stores.postgres import Asked, fetch, numbered

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis.backends import BaseBackend

_LISTED = 1_000  # more keys than these are no list in a query, but the range from the least to the greatest
_UTC = "timestamp('UTC', 6)"
_FITS = {
    "bool": ("boolean",),
    "int32": ("int8", "int16", "int32", "uint8", "uint16"),
    "int64": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    "float32": ("float32", "int8", "int16", "uint8", "uint16"),
    "float64": ("float32", "float64", "int8", "int16", "int32", "uint8", "uint16", "uint32"),
    "string": ("string",),
}


class ExternalTable:
    """The rows of an external group, for the join; satisfies `windrow.features.join.Table`.

    Parameters
    ----------
    key
        The group's key, for errors.
    external
        Where the rows are and what they are called there.

    Notes
    -----
    ``as_of`` changes nothing: another system's table has no write order of ours. What was known when is
    said by its ``known_at``, and by that alone.
    """

    def __init__(self, key: str, external: External) -> None:
        self.key, self.external = key, external

    def __repr__(self) -> str:
        return f"ExternalTable({self.key!r}, {self.external.place})"

    def scan(self, con: BaseBackend, *, as_of: int | None = None) -> ir.Table:
        """Return every row: keys, features, ``event_time``, ``known_at`` and ``_seq``.

        Raises
        ------
        WindrowError
            If the place cannot be read, or a column or dtype is not as declared; see `windrow.stores.postgres.fetch`.
        """
        if isinstance(self.external.place, Parquet):
            return _parquet(self.external, self.external.place, con)
        return Fetched(self.key, _rows(self.external, None)).scan(con)

    def asked(self, spine: pa.Table, keys: Mapping[str, str]) -> ExternalTable | Fetched:
        """Return the rows that a join with `spine` can find: of its keys, up to its last time.

        Parameters
        ----------
        spine
            The fields that `keys` names, and ``event_time``.
        keys
            Key of the group -> field of the spine.
        """
        if isinstance(self.external.place, Parquet):
            return self  # the engine reads files itself, and leaves out what it does not need
        return Fetched(self.key, _rows(self.external, _asked(spine, keys)))


@dataclass(frozen=True)
class Fetched:
    """Rows that were asked for, in memory; satisfies `windrow.features.join.Table`."""

    key: str
    rows: pa.Table

    def scan(self, con: Any, *, as_of: int | None = None) -> ir.Table:
        """Return the rows."""
        import ibis

        return ibis.memtable(self.rows)


def _asked(spine: pa.Table, keys: Mapping[str, str]) -> Asked:
    import pyarrow as pa
    import pyarrow.compute as pc

    times = spine.column(EVENT_TIME).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    first, until = (pc.min(times).as_py() or 0, pc.max(times).as_py() or 0)
    if not keys:
        return Asked({}, first, until)
    entities = pa.table({key: spine.column(name) for key, name in keys.items()}).drop_null()
    entities = entities.group_by(list(keys)).aggregate([])
    return Asked({key: entities.column(key).to_pylist() for key in keys}, first, until)


def _rows(external: External, asked: Asked | None) -> pa.Table:
    if isinstance(external.place, Postgres):
        return fetch(external, asked)
    assert isinstance(external.place, IbisTable)
    return _of_backend(external, external.place, asked)


def _parquet(external: External, place: Parquet, con: BaseBackend) -> ir.Table:
    import ibis

    path = Path(place.path) if Path(place.path).is_absolute() else Settings.read().data / place.path
    if not list(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
        raise NotFoundError(
            f"there are no {place} (looked for {path})", next_step="put them there, or set WINDROW_DATA"
        )
    table = _opened(path, place, con, name=f"external@{fingerprint([str(path), external.wanted])}")
    _check(external, table)
    made = {name: table[external.columns[name]].cast(_ibis(d)) for name, d in external.dtypes.items()}
    event = table[external.event_time].cast(_UTC)
    delay = ibis.interval(microseconds=external.delay)
    known = table[external.known_at].cast(_UTC) if external.known_at else event + delay if external.delay else event
    # Without a column that says which write was the later one, equal times are told apart by the values.
    order = table[external.seq].cast("int64") if external.seq else ibis.struct(made).hash()
    timed = table.select(**made, **{EVENT_TIME: event, KNOWN_AT: known, SEQ: order})
    # Of two times the engine takes the one that is there: a row without its known-at would be known at once.
    return timed.filter(timed[EVENT_TIME].notnull(), timed[KNOWN_AT].notnull())


def _opened(path: Path, place: Parquet, con: BaseBackend, *, name: str) -> ir.Table:
    import duckdb

    try:
        return con.read_parquet(str(path), table_name=name)
    except duckdb.Error as error:
        told = str(error).splitlines()[0].partition("Error: ")[2]
        raise StoreError(
            f"{place} cannot be read: {told[:200]}", next_step="replace that file, or keep it out of the pattern"
        ) from None


def _of_backend(external: External, place: IbisTable, asked: Asked | None) -> pa.Table:
    module, _, function = place.connect.partition(":")
    backend = Reference(module, function).call(f"the connection of {place.table!r}")
    *schema, name = place.table.split(".")
    try:
        table = backend.table(name, **({"database": schema[0]} if schema else {}))
        _check(external, table)
        rows = _narrowed(external, table, asked).select(external.wanted).to_pyarrow()
    except WindrowError:
        raise
    except Exception as error:  # noqa: BLE001 - any backend, each with errors of its own, whose texts may repeat an address
        raise StoreError(
            f"{place} cannot be read: {type(error).__name__}",
            next_step="check the table's name and the rights of the user",
        ) from None
    return _timed(external, rows)


def _narrowed(external: External, table: ir.Table, asked: Asked | None) -> ir.Table:
    import ibis

    if asked is None:
        return table
    for key, values in asked.keys.items():
        column = table[external.columns[key]]
        if not values or len(set(values)) <= _LISTED:
            table = table.filter(column.isin(sorted(set(values))))
        else:
            table = table.filter(column.between(min(values), max(values)))
    event, moment = table[external.event_time], from_micros(asked.until)
    if event.type().is_timestamp():
        plain = moment if event.type().timezone else moment.replace(tzinfo=None)
        table = table.filter(event <= ibis.literal(plain, type=event.type()))
    return table


def _timed(external: External, rows: pa.Table) -> pa.Table:
    """Return the fetched columns under their own names, in declared dtypes, with both times and an order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def column(there: str, dtype: str) -> Any:
        return exactly(rows.column(there), dtype, place=f"{external.place}, column {there!r}")

    made = {name: column(external.columns[name], dtype) for name, dtype in external.dtypes.items()}
    event = column(external.event_time, "timestamp")
    delayed = pc.add(event, pa.scalar(external.delay, pa.duration("us")))
    made |= {EVENT_TIME: event, KNOWN_AT: column(external.known_at, "timestamp") if external.known_at else delayed}
    if external.seq:
        made[SEQ] = column(external.seq, "int64")
        timed = pa.table(made)
    else:
        timed = numbered(pa.table(made))
    there = pc.and_(pc.is_valid(timed.column(EVENT_TIME)), pc.is_valid(timed.column(KNOWN_AT)))
    return timed.filter(there)


def _check(external: External, table: ir.Table) -> None:
    schema, place = table.schema(), external.place
    for column in external.wanted:
        if column not in schema:
            raise UnknownNameError("column", column, list(schema), where=str(place))
    times = [external.event_time, *([external.known_at] if external.known_at else [])]
    for column, dtype in [
        *((external.columns[n], d) for n, d in external.dtypes.items()),
        *((t, "timestamp") for t in times),
    ]:
        kind = schema[column]
        fits = (
            kind.is_timestamp() or kind.is_date()
            if dtype == "timestamp"
            else str(kind.copy(nullable=True)) in _FITS[dtype]
        )
        if not fits and not (dtype == "float64" and kind.is_decimal()):
            raise SchemaError(
                f"{place}: column {column!r} is {kind}, declared is {dtype}",
                next_step="declare its dtype, or cast it there",
            )
        if dtype == "timestamp" and not getattr(kind, "timezone", None) and not external.utc:
            raise SchemaError(
                f"{place}: column {column!r} is {kind}, a time without zone",
                next_step='declare timezone="UTC" if that is what it holds',
            )


def _ibis(dtype: str) -> str:
    return _UTC if dtype == "timestamp" else dtype


def refuse_materialisation(key: str, external: External) -> DataError:
    """Return the error of an attempt to copy an external group into the lake."""
    return DataError(
        f"{key!r} is read in place ({external.place}) and never copied",
        next_step="use it in a view; `windrow materialize` brings the keys in use online",
    )
