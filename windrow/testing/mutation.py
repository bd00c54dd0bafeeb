"""Checks put to the test: spoil good rows in every usual way, and see which check notices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from typing import TYPE_CHECKING, NamedTuple

from windrow.errors import ValidationError
from windrow.features.group import FeatureGroup
from windrow.features.validation import check_names, failures
from windrow.schema import EVENT_TIME, KNOWN_AT
from windrow.stores.engine import engine
from windrow.testing.answers import group_rows
from windrow.testing.given import Rows, table_of, tables_of

if TYPE_CHECKING:
    import pyarrow as pa

_DAY = 86_400_000_000
_PAIRS = 40  # of columns of one dtype to swap; more say little


class Mutant(NamedTuple):
    """One way in which the rows were spoiled, and the checks that noticed."""

    name: str
    fired: tuple[str, ...]


class Mutation(NamedTuple):
    """What `mutate` found.

    Attributes
    ----------
    mutants
        Every spoiled batch with the checks that fired on it.
    checks
        All checks of the group: the built-in ones and those of its schema.
    """

    mutants: tuple[Mutant, ...]
    checks: tuple[str, ...]

    @property
    def never_fired(self) -> tuple[str, ...]:
        """The checks that no mutation could make fail: most likely they test nothing."""
        fired = {check for mutant in self.mutants for check in mutant.fired}
        return tuple(check for check in self.checks if check not in fired)

    @property
    def unnoticed(self) -> tuple[str, ...]:
        """The mutations that no check noticed: what bad data would get through."""
        return tuple(mutant.name for mutant in self.mutants if not mutant.fired)

    def fired(self, name: str) -> tuple[str, ...]:
        """Return the checks that fired on one mutant, such as ``"amount x 100"``."""
        return next((mutant.fired for mutant in self.mutants if mutant.name == name), ())

    def __str__(self) -> str:
        lines = [f"{m.name}: {', '.join(m.fired) or 'NOTHING FIRES'}" for m in self.mutants]
        return "\n".join([*lines, f"checks that nothing makes fail: {', '.join(self.never_fired) or 'none'}"])


def mutate(group: FeatureGroup, **rows: Rows) -> Mutation:
    """Spoil good rows in every usual way, and report which checks of the group fire.

    The mutations: a column half null, times 100 (a unit mistaken), times -1, divided by 100, zero, far away,
    constant, of unknown or empty text, turned round; two columns swapped; a row twice, a row twice a second apart;
    a stale day (all times a day, or two years, earlier), a day from the future; known before it happened.

    Parameters
    ----------
    group
        A group with ``checks=``.
    **rows
        Good rows: of the group's sources, as for `features_of`, or of the group itself under its own name.

    Returns
    -------
    Mutation
        ``never_fired`` names the checks that nothing could make fail, ``unnoticed`` the mutations that got through.
        A test says ``assert mutate(spend, payments=rows).never_fired == ()``.

    Raises
    ------
    ValidationError
        If the given rows fail already.
    DeclarationError
        If two checks bear one name, so that one could hide the other.

    Examples
    --------
    A null check that can never fail, because null compared with anything is neither true nor false:

    >>> import pandera.ibis as pa
    >>> from windrow import Entity, Source, feature_group
    >>> class Spend(pa.DataFrameModel):
    ...     amount: float = pa.Field(ge=0, nullable=True)
    ...     @pa.check("amount")
    ...     def is_there(cls, data):
    ...         return data.table[data.key] == data.table[data.key]
    >>> payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
    >>> def spend(payments):
    ...     return payments.select("card_id", "amount")
    >>> spend.__globals__["payments"] = payments
    >>> group = feature_group(Entity("card", card_id="int64"), checks=Spend)(spend)
    >>> found = mutate(group, payments=[{"card_id": i, "amount": 5.0 + i, "ts": i} for i in range(4)])
    >>> found.never_fired
    ('amount: is_there',)
    >>> found.fired("amount x -1")
    ('amount: greater_than_or_equal_to(0)',)
    """
    good = _good(group, rows)
    checks = check_names(group)
    before = failures(group, good, con=engine())
    if before:
        raise ValidationError(
            f"The rows given for {group.name!r} are not good: they fail its checks",
            reasons={reason: len(at) for reason, at in before.items()},
            next_step="give rows that pass every check",
        )
    spoiled = list(_mutants(group, good))
    found = Mutation(tuple(_judged(group, one, one.columns) for one in spoiled), tuple(checks))
    if not found.never_fired:
        return found
    # A check of one column may look at others: before it is accused, it is asked about every mutant.
    return Mutation(tuple(_judged(group, one, None) for one in spoiled), tuple(checks))


class _Spoiled(NamedTuple):
    """A spoiled batch, and which columns it differs in (None: rows)."""

    name: str
    rows: pa.Table
    columns: tuple[str, ...] | None


def _judged(group: FeatureGroup, spoiled: _Spoiled, columns: tuple[str, ...] | None) -> Mutant:
    built_in = columns is None or not set(columns) <= set(group.features)
    return Mutant(spoiled.name, tuple(failures(group, spoiled.rows, con=engine(), built_in=built_in, columns=columns)))


def _good(group: FeatureGroup, rows: dict[str, Rows]) -> pa.Table:
    if set(rows) == {group.name}:
        return table_of(group, rows[group.name])
    return group_rows(group, tables_of(group, rows))


def _mutants(group: FeatureGroup, good: pa.Table) -> Iterator[_Spoiled]:
    for name in good.column_names:
        for what, column in _columns(good.column(name), key=name not in group.features):
            yield _Spoiled(f"{name} {what}", good.set_column(good.column_names.index(name), name, column), (name,))
    yield from _swapped(good, [*group.entity.key_names, *group.features])
    for what, rows in _rows(good):
        yield _Spoiled(what, rows, None)


def _columns(values: pa.ChunkedArray, *, key: bool) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the ways to spoil one column; keys and times are spoiled by nulls alone, or they would be other rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    half = pa.array([i % 2 == 0 for i in range(len(values))])
    yield "half null", pc.if_else(half, pa.scalar(None, values.type), values)
    if key:
        return
    yield "constant", pa.chunked_array([pa.repeat(values[0], len(values))])
    if pa.types.is_boolean(values.type):
        yield "turned round", pc.invert(values)
    elif pa.types.is_string(values.type):
        yield "of unknown text", pc.binary_join_element_wise(values, pa.scalar("~?"), "")
        yield "of empty text", _all(values, "")
    elif not pa.types.is_timestamp(values.type):
        yield from _numbers(values)


def _numbers(values: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    def scaled(factor: float) -> pa.ChunkedArray:
        # By way of float64, so that a whole number beyond its dtype is cut and not turned.
        made = pc.multiply(values.cast(pa.float64(), safe=False), factor)
        if pa.types.is_integer(values.type):
            made = pc.min_element_wise(pc.max_element_wise(pc.trunc(made), -far), far)
        return made.cast(values.type, safe=False)

    far = float(2**31 - 1) if pa.types.is_integer(values.type) else 1e12
    for what, factor in (("x 100", 100.0), ("x -1", -1.0), ("/ 100", 0.01)):
        yield what, scaled(factor)
    for what, value in (("zero", 0.0), ("far above", far), ("far below", -far)):
        yield what, _all(values, int(value) if pa.types.is_integer(values.type) else value)


def _all(values: pa.ChunkedArray, value: float | str) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([pa.repeat(pa.scalar(value, values.type), len(values))])


def _swapped(good: pa.Table, names: Sequence[str]) -> Iterator[_Spoiled]:
    pairs = (
        pair for pair in combinations(names, 2) if good.schema.field(pair[0]).type == good.schema.field(pair[1]).type
    )
    for one, other in islice(pairs, _PAIRS):
        turned = {one: good.column(other), other: good.column(one)}
        yield _Spoiled(f"{one} and {other} swapped", _with(good, **turned), (one, other))


def _rows(good: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow as pa

    first = good.slice(0, 1)
    yield "a row twice", pa.concat_tables([good, first])
    yield "a row twice, a second apart", pa.concat_tables([good, _moved(first, 1_000_000)])
    for what, by in (("a stale day", -_DAY), ("two years stale", -730 * _DAY), ("a day from the future", 400 * _DAY)):
        yield what, _moved(good, by)
    yield "known before it happened", _with(good, **{KNOWN_AT: _shift(good.column(EVENT_TIME), -1)})


def _moved(rows: pa.Table, by: int) -> pa.Table:
    return _with(rows, **{name: _shift(rows.column(name), by) for name in (EVENT_TIME, KNOWN_AT)})


def _shift(times: pa.ChunkedArray, by: int) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.add(times, pa.scalar(by, pa.duration("us")))


def _with(rows: pa.Table, **columns: pa.ChunkedArray) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: columns.get(name, rows.column(name)) for name in rows.column_names})
