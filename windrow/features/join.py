"""The point-in-time join: what was known of each entity at each time, and nothing that came later.

For a spine row (keys, t), among the rows of a group with ``eff = max(event_time, known_at) <= t`` the one
greatest by (event_time, known_at, _seq); nothing (EXPIRED) when ``t - event_time`` exceeds the group's TTL.
Exactly the spine's rows, in the spine's order. `windrow.features.asof` computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from windrow.errors import UnknownNameError
from windrow.features.arrow import to_numpy
from windrow.features.asof import Read, find, spine_in_engine
from windrow.features.contract import MISSING_TEXT, Contract, Lookup, OnDemand, canonical_column, on_demand_input
from windrow.features.on_demand import compute
from windrow.schema import EVENT_TIME, Field

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

    from windrow.features.source import Every


class _Read(NamedTuple):
    values: dict[str, pa.ChunkedArray]
    facts: dict[str, Any]


class Table(Protocol):
    """The rows of one group; what a lake gives and the join needs."""

    @property
    def key(self) -> str:
        """Where it is stored, such as ``features/card_profile_v1``."""

    def scan(self, con: Any, *, as_of: int | None = None) -> ir.Table:
        """Return every row (with ``_seq <= as_of``) as an Ibis table of `con`."""


def status_column(lookup: Lookup) -> str:
    """Return the name of a lookup's status column, ``<prefix><group>__status``.

    The prefix is empty where the spine calls the keys as the group does, else the spine's fields, each
    with a dot: two roles of one group never collide, and lookups by the same keys share their status.

    Examples
    --------
    >>> status_column(Lookup("form_v1", "", {"team": "team"}, {"form": "form"}, {"form": "float64"}))
    'form_v1__status'
    >>> status_column(Lookup("form_v1", "", {"team": "home"}, {"home_form": "form"}, {"home_form": "float64"}))
    'home.form_v1__status'
    """
    return f"{_role(lookup)}__status"


def time_column(lookup: Lookup) -> str:
    """Return the name of the column with the event time of the row that a lookup found.

    Examples
    --------
    >>> time_column(Lookup("form_v1", "", {"team": "team"}, {"form": "form"}, {"form": "float64"}))
    'form_v1__event_time'
    """
    return f"{_role(lookup)}__event_time"


def point_in_time(
    con: Backend,
    spine: pa.Table | ir.Table,
    lookups: Sequence[Lookup],
    tables: Mapping[str, Table],
    *,
    statuses: bool = True,
    as_of: int | None = None,
) -> pa.Table:
    """Join what was known of each spine row's entities at its time.

    Parameters
    ----------
    con
        A DuckDB backend of Ibis with session time zone UTC.
    spine
        Key fields and ``event_time`` (timestamp[us, UTC]); n rows, other columns are kept.
    lookups
        What to read, from a view's contract.
    tables
        Group with version -> its rows.
    statuses
        Whether to add, per lookup, `time_column` and `status_column` (int8, see `Status`).
    as_of
        Only rows written up to this ``_seq``.

    Returns
    -------
    pyarrow.Table
        n rows in the spine's order: the spine's columns (one that has a value's name gives way to the
        value), one column per value of the lookups as stored, times and statuses.

    Raises
    ------
    UnknownNameError
        If a key field or a table is missing.
    SchemaError, TimeError
        If columns are missing, key types differ, or the spine's times are naive.

    Examples
    --------
    >>> from windrow.stores.engine import engine
    >>> from windrow.testing import MemoryTable, times
    >>> rows = pa.table({"card": [1, 1], "limit": [10, 20], "event_time": times(100, 200)})
    >>> spine = pa.table({"card": [1, 1, 2], "event_time": times(250, 150, 150)})
    >>> lookup = Lookup("profile_v1", "", {"card": "card"}, {"limit": "limit"}, {"limit": "int64"})
    >>> made = point_in_time(engine(), spine, [lookup], {"profile_v1": MemoryTable("profile_v1", rows)})
    >>> made["limit"].to_pylist(), made["profile_v1__status"].to_pylist()
    ([20, 10, None], [0, 0, 2])
    """
    rows = spine if isinstance(spine, pa.Table) else con.to_pyarrow(spine)
    values, facts = _read_all(con, rows, lookups, tables=tables, as_of=as_of)
    return pa.table(_columns(rows) | values | (facts if statuses else {}))


def view_frame(
    con: Backend,
    contract: Contract,
    spine: pa.Table | ir.Table,
    tables: Mapping[str, Table],
    *,
    functions: Mapping[str, Callable[..., Any]],
    as_of: int | None = None,
) -> pa.Table:
    """Return every feature of a view for each spine row, in the form that models see.

    Parameters
    ----------
    con, spine, tables, as_of
        As for `point_in_time`.
    contract
        The view's, or a release's.
    functions
        On-demand function name -> function (`windrow.features.on_demand.load_functions`).

    Returns
    -------
    pyarrow.Table
        n rows in the spine's order: the spine's columns, every feature of the contract as float32 or
        string (a spine column of the same name gives way), times and statuses as `point_in_time`.
        Missing is null; NaN never appears.
    """
    rows = spine if isinstance(spine, pa.Table) else con.to_pyarrow(spine)
    stored, facts = _read_all(con, rows, contract.lookups, tables=tables, as_of=as_of)
    made = {o.name: _computed(o, functions, rows=rows, stored=stored) for o in contract.on_demand}
    features = {f.name: made[f.name] if f.name in made else _feature(f, rows, stored) for f in contract.features}
    return pa.table(_columns(rows) | features | facts)


def clock_spine(every: Every, keys: pa.Table, start: int, end: int) -> pa.Table:
    """Return one spine row per tick in [start, end] and row of `keys`, by time and then in the order of `keys`.

    Parameters
    ----------
    every
        The clock; ticks are whole multiples of its interval since 1970, UTC.
    keys
        The clock's entity keys, one row per entity.
    start, end
        UTC microseconds, both included.

    Examples
    --------
    >>> from windrow.features.source import Every
    >>> from windrow.schema import Entity
    >>> hourly = Every("1h", Entity("area", area="string"))
    >>> made = clock_spine(hourly, pa.table({"area": ["N", "S"]}), 1, 7_200_000_000)
    >>> made["area"].to_pylist(), [t.hour for t in made["event_time"].to_pylist()]
    (['N', 'S', 'N', 'S'], [1, 1, 2, 2])
    """
    names = every.entity.key_names
    for name in names:
        if name not in keys.column_names:
            raise UnknownNameError("column", name, keys.column_names, where=f"the keys of clock {every.name!r}")
    ticks = np.arange(-(-start // every.interval) * every.interval, end + 1, every.interval, dtype=np.int64)
    repeated = keys.select(names).take(pa.array(np.tile(np.arange(keys.num_rows), len(ticks))))
    times = pa.array(np.repeat(ticks, keys.num_rows)).cast(pa.timestamp("us", "UTC"))
    return repeated.append_column(EVENT_TIME, times)


def _role(lookup: Lookup) -> str:
    renamed = any(key != field for key, field in lookup.keys.items())
    return "".join(f"{field}." for field in lookup.keys.values() if renamed) + lookup.group


def _read_all(
    con: Backend, rows: pa.Table, lookups: Sequence[Lookup], *, tables: Mapping[str, Table], as_of: int | None
) -> _Read:
    fields = tuple(dict.fromkeys(field for lookup in lookups for field in lookup.keys.values()))
    values, facts = dict[str, Any](), dict[str, Any]()
    with spine_in_engine(con, rows, fields) as spine:
        for same in _by_keys(lookups):
            table = _table(tables, same[0].group)
            columns = tuple(dict.fromkeys(c for lookup in same for c in lookup.columns.values()))
            read = Read(table.key, same[0].keys, columns, same[0].ttl)
            found = find(con, read, table=table.scan(con, as_of=as_of), spine=spine)
            # Taken out at once, so that one read's rows are in memory at a time.
            values |= {value: found.values(column) for lookup in same for value, column in lookup.columns.items()}
            facts |= {time_column(same[0]): found.event_times(), status_column(same[0]): found.statuses()}
    return _Read({value: values[value] for lookup in lookups for value in lookup.columns}, facts)


def _by_keys(lookups: Iterable[Lookup]) -> list[list[Lookup]]:
    """Lookups of one group by the same fields are one read."""
    chosen: dict[tuple[Any, ...], list[Lookup]] = {}
    for lookup in lookups:
        chosen.setdefault((lookup.group, *lookup.keys.items()), []).append(lookup)
    return list(chosen.values())


def _table(tables: Mapping[str, Table], group: str) -> Table:
    if group not in tables:
        raise UnknownNameError("table", group, list(tables), where="the point-in-time join")
    return tables[group]


def _computed(
    spec: OnDemand, functions: Mapping[str, Callable[..., Any]], *, rows: pa.Table, stored: Mapping[str, Any]
) -> pa.Array:
    if spec.function not in functions:
        raise UnknownNameError(
            "function", spec.function, list(functions), where=f"the on-demand module of {spec.name!r}"
        )
    inputs = {p: _input(reference, spec.dtypes[p], rows=rows, stored=stored) for p, reference in spec.inputs.items()}
    return _arrow(spec.dtype, compute(spec, functions[spec.function], inputs))


def _input(reference: str, dtype: str, *, rows: pa.Table, stored: Mapping[str, Any]) -> NDArray[Any]:
    if reference == EVENT_TIME:
        column = rows.column(EVENT_TIME)
    elif reference.startswith("stored."):
        column = stored[reference.removeprefix("stored.")]
    else:
        column = _spine_column(rows, reference.removeprefix("request."))
    return on_demand_input(dtype, to_numpy(column, dtype))


def _spine_column(rows: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in rows.column_names:
        raise UnknownNameError("column", name, rows.column_names, where="the spine")
    return rows.column(name)


def _feature(field: Field, rows: pa.Table, stored: Mapping[str, Any]) -> Any:
    column = stored[field.name] if field.name in stored else _spine_column(rows, field.name)
    if field.dtype == "string":
        return column.cast(pa.string())
    return _arrow(field.dtype, canonical_column(field.dtype, to_numpy(column, field.dtype)))


def _arrow(dtype: str, values: NDArray[Any]) -> pa.Array:
    if dtype == "string":
        return pa.array(values, pa.string(), mask=values == MISSING_TEXT)
    return pa.array(values, pa.float32(), mask=np.isnan(values))


def _columns(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: rows.column(name) for name in rows.column_names}
