"""The point-in-time join: what was known of each entity at each time, and nothing that came later.

For a spine row (keys, t), among the rows of a group with ``eff = max(event_time, known_at) <= t`` the one
greatest by (event_time, known_at, _seq); nothing (EXPIRED) when ``t - event_time`` exceeds the group's TTL.
Exactly the spine's rows, in the spine's order. `windrow.features.asof` computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from windrow.errors import UnknownNameError
from windrow.features.arrow import to_numpy
from windrow.features.asof import Form, Found, Read, Spine, find, spine_in_engine
from windrow.features.by_row import refuse_by_position
from windrow.features.contract import (
    MISSING_TEXT,
    Contract,
    Lookup,
    OnDemand,
    canonical_column,
    on_demand_input,
    stages,
)
from windrow.features.on_demand import compute
from windrow.features.windows import Windows, windows
from windrow.schema import EVENT_TIME, Field

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend
    from numpy.typing import NDArray

    from windrow.features.source import Every


class Part(NamedTuple):
    """What one read found for look-ups of one group by the same keys."""

    lookups: list[Lookup]
    found: Found | Windows

    def values(self, rows: slice = slice(None), *, names: Container[str] | None = None) -> dict[str, pa.ChunkedArray]:
        """Return the values of the look-ups (only `names`) for the spine's `rows`, by name."""
        columns = {value: column for lookup in self.lookups for value, column in lookup.columns.items()}
        return {v: self.found.values(c, rows) for v, c in columns.items() if names is None or v in names}

    def facts(self, rows: slice = slice(None)) -> dict[str, Any]:
        """Return event times and statuses for the spine's `rows`, by name."""
        name = self.lookups[0]
        return {time_column(name): self.found.event_times(rows), status_column(name): self.found.statuses(rows)}


class Table(Protocol):
    """The rows of one group; what a lake gives and the join needs."""

    @property
    def key(self) -> str:
        """Where it is stored, such as ``features/card_profile_v1``."""

    def scan(self, con: Any, *, as_of: int | None = None) -> ir.Table:
        """Return every row (with ``_seq <= as_of``) as an Ibis table of `con`."""


@runtime_checkable
class AskedTable(Table, Protocol):
    """A table that is better asked for what a join can find than read as a whole: another system's."""

    def asked(self, spine: pa.Table, keys: Mapping[str, str]) -> Table:
        """Return the rows that can be found from `spine` (keys under their fields, and ``event_time``)."""


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
    form: Form = "auto",
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
    form
        How the engine finds the rows (`windrow.features.asof`); ``auto`` chooses, and all say the same.

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
    values, facts = together(parts(con, rows, lookups, tables=tables, as_of=as_of, form=form), lookups)
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
    stored, facts = together(parts(con, rows, contract.lookups, tables=tables, as_of=as_of), contract.lookups)
    return features_of(contract, rows, stored, facts=facts, functions=functions)


def features_of(
    contract: Contract,
    rows: pa.Table,
    stored: Mapping[str, Any],
    *,
    facts: Mapping[str, Any],
    functions: Mapping[str, Callable[..., Any]],
) -> pa.Table:
    """Return the frame of a view for `rows` of the spine, whose stored values and facts have been found."""
    made = {o.name: computed(o, functions, rows=rows, stored=stored) for o in contract.on_demand}
    features = {f.name: made[f.name] if f.name in made else _feature(f, rows, stored) for f in contract.features}
    return pa.table(_columns(rows) | features | dict(facts))


def parts(
    con: Backend,
    rows: pa.Table,
    lookups: Sequence[Lookup],
    *,
    tables: Mapping[str, Table],
    as_of: int | None = None,
    form: Form = "auto",
) -> Iterator[Part]:
    """Read one group after the other, so that one read's rows are in memory at a time.

    Look-ups whose keys are values of others come after these.
    """
    known: dict[str, Any] = {}
    wanted = {name for lookup in lookups for name in lookup.through}
    for stage in stages(lookups):
        fields = tuple(dict.fromkeys(field for lookup in stage for field in lookup.references.values()))
        keyed = _keyed(rows, fields, known)
        with spine_in_engine(con, keyed, fields) as spine:
            for same in _by_keys(stage):
                table = table_of(tables, same[0].group)
                if isinstance(table, AskedTable):
                    table = table.asked(keyed, same[0].references)
                columns = tuple(dict.fromkeys(c for lookup in same for c in lookup.columns.values()))
                read = Read(table.key, same[0].references, columns, same[0].ttl)
                part = Part(
                    same, _found(con, read, same[0], table.scan(con, as_of=as_of), rows=rows, spine=spine, form=form)
                )
                known |= part.values(names=wanted)
                yield part
                del part  # the caller is done with it, and the next one needs the room


def _found(
    con: Backend, read: Read, lookup: Lookup, table: ir.Table, *, rows: pa.Table, spine: Spine, form: Form
) -> Found | Windows:
    if lookup.aggregate is None:
        return find(con, read, table=table, spine=spine, form=form)
    fields = list(read.keys.values())
    return windows(con, lookup.aggregate, read.columns, table=table, spine=spine, fields=fields, current=rows)


def clock_spine(every: Every, keys: pa.Table, start: int, end: int) -> pa.Table:
    """Return one spine row per tick in [start, end] and row of `keys`, by time and then in the order of `keys`.

    Parameters
    ----------
    every
        The clock; ticks are whole multiples of its interval since 1970, UTC.
    keys
        The clock's entity keys, one row per entity; of a clock without entity nothing is read.
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
    ticks = np.arange(every.first(start), end + 1, every.interval, dtype=np.int64)
    count = keys.num_rows if names else 1  # a clock without entity asks once a tick
    places = pa.array(np.tile(np.arange(count), len(ticks)))
    times = pa.array(np.repeat(ticks, count)).cast(pa.timestamp("us", "UTC"))
    return pa.table({**{name: keys.column(name).take(places) for name in names}, EVENT_TIME: times})


def _role(lookup: Lookup) -> str:
    references = lookup.references
    renamed = any(key != field for key, field in references.items())
    return "".join(f"{field}." for field in references.values() if renamed) + lookup.group


def together(found: Iterable[Part], lookups: Sequence[Lookup]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of all look-ups, in their order, and what is known of them."""
    values, facts = dict[str, Any](), dict[str, Any]()
    for part in found:
        values |= part.values()
        facts |= part.facts()
        del part  # before the next group is read, not after it
    return {value: values[value] for lookup in lookups for value in lookup.columns}, facts


def _keyed(rows: pa.Table, fields: Sequence[str], known: Mapping[str, Any]) -> pa.Table:
    """The spine's times and what its rows are looked up by: fields of its own, and ``stored.`` values found before."""
    columns = {
        n: known[n.removeprefix("stored.")] if n.startswith("stored.") else _spine_column(rows, n) for n in fields
    }
    times = {EVENT_TIME: rows.column(EVENT_TIME)} if EVENT_TIME in rows.column_names else {}
    return pa.table(times | columns)


def _by_keys(lookups: Iterable[Lookup]) -> list[list[Lookup]]:
    """Lookups of one group by the same fields are one read."""
    chosen: dict[tuple[Any, ...], list[Lookup]] = {}
    for lookup in lookups:
        chosen.setdefault((lookup.group, *lookup.references.items()), []).append(lookup)
    return list(chosen.values())


def table_of(tables: Mapping[str, Table], group: str) -> Table:
    """Return the rows of a group, or raise with the closest name."""
    if group not in tables:
        raise UnknownNameError("table", group, list(tables), where="the point-in-time join")
    return tables[group]


def computed(
    spec: OnDemand, functions: Mapping[str, Callable[..., Any]], *, rows: pa.Table, stored: Mapping[str, Any]
) -> pa.Array:
    """Return an on-demand feature of `rows`, float32 or string."""
    if spec.function not in functions:
        raise UnknownNameError(
            "function", spec.function, list(functions), where=f"the on-demand module of {spec.name!r}"
        )
    inputs = {p: _input(reference, spec.dtypes[p], rows=rows, stored=stored) for p, reference in spec.inputs.items()}
    made = compute(spec, functions[spec.function], inputs)
    refuse_by_position(spec, functions[spec.function], inputs, made)
    return _arrow(spec.dtype, made)


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
