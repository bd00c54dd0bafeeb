"""From request rows to the model's inputs: one batched online read, on-demand functions, one vector by name.

Where the key of a group is a value of another one, a second batched read follows the first.

What it returns equals `windrow.features.contract.canonical` of the same values, whatever the number
of rows; the way there is short because it is on every request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from operator import itemgetter
from struct import Struct
from struct import error as StructError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from windrow.clock import SECOND
from windrow.errors import AwayError, PastError, RequestError, StoreError, listed
from windrow.features.contract import Contract, Lookup, OnDemand, canonical_column, on_demand_input, stages
from windrow.features.on_demand import compute, load_functions
from windrow.features.tiles import Tiles
from windrow.schema import EVENT_TIME, Status
from windrow.serving.columns import Columns, Found, by_row
from windrow.serving.vectors import AWAY, OLD, UNKNOWN, Vectors
from windrow.stores.online.rows import Block
from windrow.stores.online.store import Key, Row

_PRESENT, _NULL = int(Status.PRESENT), int(Status.NULL)
_NOT_FOUND, _EXPIRED = int(Status.NOT_FOUND), int(Status.EXPIRED)
_UNAVAILABLE = int(Status.UNAVAILABLE)

_FLOAT64 = np.dtype(np.float64)
_FEW = 8  # rows that are quicker one by one

_Pick = Callable[[Any], tuple[Any, ...]]


class Store(Protocol):
    """What is read of an `OnlineStore`."""

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key); raise `AwayError` if the store is away."""
        ...

    def read_blocks(self, wanted: Sequence[tuple[str, Sequence[Key]]]) -> Found:
        """Return what `read` does for the keys of each group; see `OnlineStore.read_blocks`."""
        ...

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        ...


class Transformer:
    """Makes the vectors of one contract.

    Parameters
    ----------
    contract
        What to read and compute.
    online
        Where stored values are; None for a contract without look-ups.
    functions
        The on-demand functions by name, as `load_functions` returns them; default: those that the
        contract carries.
    defaults
        Stored value by name -> what stands for it while the store is away; else it is missing.

    Raises
    ------
    StoreError
        If a group is stored without a column that the contract reads.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.schema import Field
    >>> from windrow.stores.online.store import open_online
    >>> store = open_online(f"lmdb://{mkdtemp()}/online", write=True)
    >>> _ = store.write("card_v1", ["limit"], [((7,), Row(10, 10, 1, (500.0,)))])
    >>> card = Lookup("card_v1", "f", {"card_id": "card_id"}, {"limit": "limit"}, {"limit": "float64"})
    >>> key = Field("card_id", "int64")
    >>> contract = Contract(view="v", spine="s", request=(key,), optional=(), lookups=(card,), on_demand=(),
    ...                     features=(Field("limit", "float64"),))
    >>> made = Transformer(contract, store).vectors([{"card_id": 7}, {"card_id": 8}], [10, 10])
    >>> made.matrix.tolist(), [s["limit"] for s in made.statuses], made.unknown
    ([[500.0], [nan]], [0, 2], {1: ('card_v1',)})
    """

    def __init__(
        self,
        contract: Contract,
        online: Store | None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        if functions is None:
            names = [spec.function for spec in contract.on_demand]
            functions = load_functions(contract.on_demand_source, names, where=f"view {contract.view!r}")
        self._online = online
        self._stages = _stages(contract.lookups, online) if online is not None else []
        self._defaults = defaults or {}
        self._raw = _picker([f.name for f in contract.request])
        places = _places(contract, [read for reads in self._stages for read in reads])
        self._functions = [ValueFunction(spec, functions[spec.function], places) for spec in contract.on_demand]
        self._pick = _picker([places[f.name] for f in contract.features])
        self._columns = self._by_columns(contract, places)
        self._times = [i for i, f in enumerate(contract.features) if _stored_time(contract, f.name)]
        self._names, self._numeric = contract.feature_names, contract.numeric
        self._dtypes = [(f.name, f.dtype) for f in contract.features]
        self._all_present = dict.fromkeys(self._names, _PRESENT)
        self._shape, self._put = (1, len(self._names)), Struct(f"{len(self._names)}f").pack_into

    def vectors(self, rows: Sequence[Mapping[str, Any]], times: Sequence[int]) -> Vectors:
        """Return the inputs of checked request rows.

        Parameters
        ----------
        rows
            Values by field; every field that the contract needs is there.
        times
            The time each row asks about, UTC microseconds: values older than their TTL at that time are
            expired, as in the point-in-time join.

        Raises
        ------
        RequestError
            If a row asks about a time before its newest stored values: they would look ahead.

        Notes
        -----
        What a store that is away would have given is missing, or has its default, and its status says so.
        """
        if self._columns is None or len(rows) <= _FEW:
            return self._one_by_one(rows, times, None)
        try:
            blocks = self._columns.read(self._online, rows)  # type: ignore[arg-type]  # without a store there are no columns
        except AwayError:
            return self._one_by_one(rows, times, None)
        matrix = self._columns.matrix(blocks, rows, times)
        return self._one_by_one(rows, times, by_row(blocks)) if matrix is None else self._whole(matrix)

    def _by_columns(self, contract: Contract, places: Mapping[str, int]) -> Columns | None:
        if len(self._stages) != 1 or any(isinstance(read, _Aggregate) for read in self._stages[0]):
            return None
        columns = Columns(contract, self._stages[0], self._functions, places)
        return columns if columns.possible else None

    def _whole(self, matrix: NDArray[np.float32]) -> Vectors:
        count = len(matrix)
        present = [self._all_present] * count
        return Vectors(self._names, matrix, None, matrix.tolist(), [True] * count, present, {})

    def _one_by_one(
        self, rows: Sequence[Mapping[str, Any]], times: Sequence[int], first: list[Row | None] | None
    ) -> Vectors:
        """Make the vectors row by row; `first` is what the first stage reads, where it was read already."""
        flat: list[list[Any]] = [[] for _ in rows]
        gaps: _Gaps = {}
        for reads in self._stages:
            try:
                found = iter(self._found(reads, rows, flat) if first is None else first)
            except AwayError:
                self._do_without(reads, flat, gaps)
                continue
            for i, (row, values, time) in enumerate(zip(rows, flat, times, strict=True)):
                for read in reads:
                    state = read.extend(values, next(found), time, row)
                    if state != _PRESENT:
                        gaps.setdefault(i, []).append((read, state))
        for row, values in zip(rows, flat, strict=True):
            values += self._raw(row)
        for function in self._functions:
            function.extend(flat, times)
        return self._gathered([self._pick(values) for values in flat], gaps)

    def _found(
        self, reads: list[StoredRead], rows: Sequence[Mapping[str, Any]], flat: list[list[Any]]
    ) -> list[Row | None]:
        online: Store = self._online  # type: ignore[assignment]  # without a store there are no reads
        if not reads[0].later:
            return online.read([(read.group, read.key(row)) for row in rows for read in reads])
        keys = [(read.group, read.found_key(row, v)) for row, v in zip(rows, flat, strict=True) for read in reads]
        found = iter(online.read([wanted for wanted in keys if None not in wanted[1]]))
        return [None if None in key else next(found) for _, key in keys]

    def _do_without(self, reads: list[StoredRead], flat: list[list[Any]], gaps: _Gaps) -> None:
        values = [self._defaults.get(name) for read in reads for name in read.names]
        for i, row in enumerate(flat):
            row += values
            gaps.setdefault(i, []).extend((read, _UNAVAILABLE) for read in reads)

    def _gathered(self, picked: list[tuple[Any, ...]], gaps: _Gaps) -> Vectors:
        if self._times:
            picked = [self._seconds(row) for row in picked]
        matrix, columns = None, None
        if self._numeric:
            matrix = self._matrix(picked)
            lists = matrix.tolist()
            # The quickest way to find a NaN; what is infinite only takes the longer way.
            finite = [isfinite(sum(values)) for values in lists]
        else:
            columns = {n: canonical_column(d, [row[i] for row in picked]) for i, (n, d) in enumerate(self._dtypes)}
            lists = [list(row) for row in zip(*(values.tolist() for values in columns.values()), strict=True)]
            finite = [False] * len(lists)
        statuses = [
            self._all_present if whole and i not in gaps else self._status(picked[i], gaps.get(i, ()))
            for i, whole in enumerate(finite)
        ]
        if not gaps:
            return Vectors(self._names, matrix, columns, lists, finite, statuses, {})
        return Vectors(self._names, matrix, columns, lists, finite, statuses, _unknown(gaps), _degraded(gaps))

    def _matrix(self, picked: list[tuple[Any, ...]]) -> NDArray[np.float32]:
        if len(picked) == 1:
            matrix = np.empty(self._shape, np.float32)
            try:
                self._put(matrix.data, 0, *picked[0])
            except (StructError, OverflowError):
                pass  # what is missing or too large for float32 is NumPy's: NaN and infinity
            else:
                return matrix
        return np.array(picked, dtype=np.float32)

    def _status(self, values: tuple[Any, ...], gaps: Iterable[tuple[StoredRead, int]]) -> dict[str, int]:
        status = {n: _NULL if v is None or v != v else _PRESENT for n, v in zip(self._names, values, strict=True)}
        for read, state in gaps:
            status |= dict.fromkeys((n for n in read.names if n in status), state)
        return status

    def _seconds(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        # A stored time is kept in microseconds; a model sees it in seconds, as `canonical` says.
        changed = list(row)
        for i in self._times:
            changed[i] = None if row[i] is None else row[i] / SECOND
        return tuple(changed)


@dataclass(slots=True)
class StoredRead:
    """All that is read of one group under one key, prepared: the key's fields, and the columns' places.

    `parts` are where a key comes from that is not only of the request's fields: a field, or the place of a stored value.
    """

    group: str
    ttl: int | None
    key: _Pick
    columns: tuple[str, ...]
    names: tuple[str, ...]
    online: Store
    parts: tuple[str | int, ...] = ()
    named: bool = True
    pick: _Pick | None = None
    places: list[int] = field(default_factory=list)

    @property
    def later(self) -> bool:
        """Whether its key is known only when other groups have been read."""
        return bool(self.parts)

    def found_key(self, row: Mapping[str, Any], values: list[Any]) -> tuple[Any, ...]:
        """Return the key of a later read; a missing part is None."""
        return tuple(row[part] if isinstance(part, str) else values[part] for part in self.parts)

    def extend(self, values: list[Any], stored: Row | None, time: int, row: Mapping[str, Any]) -> int:
        """Append the group's values as of `time`, or as many missing ones; return the `Status` of the row."""
        state = _NOT_FOUND
        if stored is not None:
            event_time, known_at, _, kept = stored
            if event_time > time or known_at > time:
                raise self._past()
            state = _EXPIRED if self.ttl is not None and time - event_time > self.ttl else _PRESENT
            if state == _PRESENT and (self.pick or self.resolve()):
                values += self.pick(kept)  # type: ignore[misc]  # resolved one line above
                return state
        values += [None] * len(self.names)
        return state

    def holds(self, block: Block, times: NDArray[np.int64]) -> bool:
        """Return whether all of a block's values may be used as of `times`."""
        event_times = block.event_times
        if (event_times > times).any() or (block.known_ats > times).any():
            return False
        expired = self.ttl is not None and bool((event_times < times - self.ttl).any())
        return not expired and (self.pick is not None or self.resolve())

    def resolve(self) -> bool:
        """Find the columns in the stored rows; False while the group was never published."""
        stored = self.online.columns(self.group)
        for name in self.columns if stored is not None else ():
            if name not in stored:  # type: ignore[operator]  # not None here
                raise StoreError(
                    f"group {self.group!r} is stored without the column {name!r}",
                    exists=f"It has {listed(stored or ())}",
                    next_step="run `windrow materialize GROUP` with the version that the release uses",
                )
        if stored is not None:
            self.places = [stored.index(name) for name in self.columns]
            self.pick = _picker(self.places)
        return self.pick is not None

    def _past(self) -> RequestError:
        # The online store keeps the newest row of a key: what was known earlier is in the tables only.
        return RequestError(
            422,
            "asks-about-the-past",
            f"event_time lies before the newest stored values of group {self.group!r}",
            where="event_time",
            next_step="leave event_time out to ask about now; the past is answered by training data and batch scoring",
        )


class _Aggregate(StoredRead):
    """What is computed at the time asked about from the state of an entity's events."""

    __slots__ = ("_choose", "_current", "_tiles")

    def __init__(self, lookup: Lookup, *read: Any) -> None:
        super().__init__(*read)
        assert lookup.aggregate is not None
        self._tiles, places = Tiles(lookup.aggregate), list(lookup.aggregate.features)
        self._choose = _picker([places.index(name) for name in self.columns])
        self._current = bool(lookup.aggregate.current(self.columns))

    def extend(self, values: list[Any], stored: Row | None, time: int, row: Mapping[str, Any]) -> int:
        """Append the functions' values at `time`; of an entity without events those over nothing."""
        state = None if stored is None else stored.values[0]
        try:
            made, status = self._tiles.values(state, time, row if self._current else None)
        except PastError:
            raise self._past() from None
        values += self._choose(made)
        return status

    def resolve(self) -> bool:
        """A state is one value: there is no column to find."""
        return True


_Gaps = dict[int, list[tuple[StoredRead, int]]]  # row -> what it has no values of, and why


def _unknown(gaps: _Gaps) -> dict[int, tuple[str, ...]]:
    found = {
        row: tuple(read.group for read, state in reads if state == _NOT_FOUND and read.named)
        for row, reads in gaps.items()
    }
    return {row: groups for row, groups in found.items() if groups}


def _degraded(gaps: _Gaps) -> dict[int, tuple[str, ...]]:
    # A keyless group has no entity that could be unknown.
    told = {
        row: [_WHY.get(state) for read, state in reads if read.named or state != _NOT_FOUND]
        for row, reads in gaps.items()
    }
    found = {row: tuple(dict.fromkeys(why for why in reasons if why)) for row, reasons in told.items()}
    return {row: reasons for row, reasons in found.items() if reasons}


_WHY = {_NOT_FOUND: UNKNOWN, _EXPIRED: OLD, _UNAVAILABLE: AWAY}


def _stages(lookups: Sequence[Lookup], online: Store) -> list[list[StoredRead]]:
    """Return what can be read at once, and what can be read after it."""
    made: list[list[StoredRead]] = []
    places: dict[str, int] = {}
    for stage in stages(lookups):
        made.append(_reads(stage, online, places))
        for read in made[-1]:
            places |= {name: len(places) + i for i, name in enumerate(read.names)}
    return made


def _reads(lookups: Sequence[Lookup], online: Store, places: Mapping[str, int]) -> list[StoredRead]:
    """Put lookups of one group under one key together: one look-up each."""
    together: dict[tuple[str, tuple[str, ...]], list[Lookup]] = {}
    for lookup in lookups:
        together.setdefault((lookup.group, tuple(lookup.references.values())), []).append(lookup)
    reads = []
    for (group, _), parts in together.items():
        columns = [c for part in parts for c in part.columns.values()]
        names = [n for part in parts for n in part.columns]
        keys = parts[0]
        mixed = tuple(places[name] if key in keys.stored else name for key, name in keys.keys.items())
        needs = group, keys.ttl, _picker(keys.fields), tuple(columns), tuple(names), online
        read = StoredRead(*needs) if keys.aggregate is None else _Aggregate(keys, *needs)
        read.parts, read.named = (mixed, False) if keys.stored else ((), bool(keys.fields))
        reads.append(read)
        with suppress(AwayError):  # then by the first row that is there
            read.resolve()
    return reads


class ValueFunction:
    """One on-demand feature, prepared: which values it reads, for all rows at once.

    For one thread at a time: inputs of a single row are put into the same arrays again and again.
    """

    def __init__(self, spec: OnDemand, call: Callable[..., Any], places: Mapping[str, int]) -> None:
        self._spec, self._call, self._text = spec, call, spec.dtype == "string"
        self._inputs = [(p, spec.dtypes[p], places[ref]) for p, ref in spec.inputs.items()]
        self.places = [place for _, _, place in self._inputs]
        self.numeric = not any(dtype in ("string", "timestamp") for _, dtype, _ in self._inputs)
        self._pick = _picker(self.places)
        self._one = np.empty((len(self._inputs), 1), dtype=np.float64)
        self._row, self._given = self._one[:, 0], dict(zip(spec.inputs, self._one, strict=True))
        self._put = Struct(f"{len(self._inputs)}d").pack_into

    def extend(self, flat: list[list[Any]], times: Sequence[int]) -> None:
        """Append this feature's value to each row."""
        given = self._arrays(flat, times)
        for row, value in zip(flat, self._values(given, len(flat)).tolist(), strict=True):
            row.append(value)

    def fill(self, columns: NDArray[np.float64], at: int) -> None:
        """Put this feature's values into line `at` of columns that hold a line of numbers for each place."""
        # Copies: a function may change what it is given.
        given = {name: columns[place].copy() for name, _, place in self._inputs}
        columns[at] = self._values(given, columns.shape[1])

    def _values(self, given: dict[str, NDArray[Any]], count: int) -> NDArray[Any]:
        made: NDArray[Any] = self._call(**given)
        # What a function of numbers usually returns needs no conversion: the whole vector is rounded at once.
        if self._text or type(made) is not np.ndarray or made.dtype is not _FLOAT64 or made.shape != (count,):
            made = compute(self._spec, lambda **_: made, given)
        return made

    def _arrays(self, flat: list[list[Any]], times: Sequence[int]) -> dict[str, NDArray[Any]]:
        if not self.numeric:
            return {p: on_demand_input(d, times if at < 0 else [row[at] for row in flat]) for p, d, at in self._inputs}
        # Numbers are by far the most common, and these are plain ones: this is `on_demand_input`, for all at once.
        if len(flat) == 1:
            values = self._pick(flat[0])
            try:
                self._put(self._one.data, 0, *values)
            except StructError:
                self._row[:] = values  # with a missing one
            return self._given
        arrays = np.array([self._pick(row) for row in flat], dtype=np.float64)
        return dict(zip(self._given, np.ascontiguousarray(arrays.T), strict=True))


def _places(contract: Contract, reads: Sequence[StoredRead]) -> dict[str, int]:
    """Return where each value stands in a row: stored values, then the request's, then computed ones."""
    stored = [name for read in reads for name in read.names]
    raw = [f.name for f in contract.request]
    computed = [spec.name for spec in contract.on_demand]
    order = [f"stored.{n}" for n in stored] + [f"request.{n}" for n in raw] + [f"computed.{n}" for n in computed]
    places = {reference: i for i, reference in enumerate(order)}
    # A feature is called by its bare name, and belongs to what gives it: computed before stored before raw.
    for kind, names in (("request", raw), ("stored", stored), ("computed", computed)):
        places |= {name: places[f"{kind}.{name}"] for name in names}
    return {**places, EVENT_TIME: -1}


def _stored_time(contract: Contract, name: str) -> bool:
    return any(lookup.dtypes.get(name) == "timestamp" for lookup in contract.lookups)


def _picker(places: Sequence[Any]) -> _Pick:
    """Return a function that takes the items at `places` (indices or names), as a tuple."""
    if len(places) == 1:
        only = places[0]
        return lambda values: (values[only],)
    return itemgetter(*places) if places else lambda values: ()
