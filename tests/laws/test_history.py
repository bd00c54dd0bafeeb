"""The history of a view has a row where, and only where, the oracle says something else than just before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.oracle import Answer, ask, changes
from tests.laws.test_point_in_time import CALM, SEARCHING, answers
from tests.laws.worlds import ASKS, CASES, FIELDS, HOURS, VALUES, World, held, worlds
from windrow.features.agg import Agg, Aggregate
from windrow.features.contract import Contract, Lookup
from windrow.features.history import Question, ask_history, ask_latest
from windrow.features.join import point_in_time
from windrow.features.parquet import answer_to_parquet
from windrow.schema import Field
from windrow.stores.engine import engine
from windrow.testing import MemoryTable, times


def contract(world: World) -> Contract:
    features = tuple(Field(f"{name}.{v}", VALUES[v]) for name, (group, _) in ASKS.items() for v in held(group))
    request = tuple(Field(name, dtype) for name, dtype in FIELDS.items())
    return Contract(
        view="v", spine="s", request=request, optional=(), lookups=tuple(world.lookups), on_demand=(), features=features
    )


def requests(world: World) -> list[dict[str, Any]]:
    """Each different entity once, in the order of the answer."""
    different = {tuple(request.values()): request for request, _ in world.asked if None not in request.values()}
    return [different[key] for key in sorted(different)]


def _rows(made: pa.Table) -> list[tuple[tuple[Any, ...], int, dict[str, Answer]]]:
    keys = zip(*(made.column(name).to_pylist() for name in FIELDS), strict=True)
    return list(zip(keys, made.column("event_time").cast("int64").to_pylist(), answers(made), strict=True))


def _check(world: World, start: int, end: int) -> None:
    keys = requests(world)
    made = ask_history(
        engine(),
        contract(world),
        world.tables,
        span=(start, end),
        keys=pa.Table.from_pylist(keys, schema=world.spine.select(list(FIELDS)).schema),
    )
    assert _rows(made.answer(engine(), world.tables)) == [
        (tuple(key.values()), t, said)
        for key in keys
        for t, said in changes(world.groups, ASKS, key, range(start, end + 1))
    ]


spans = st.tuples(st.integers(-1, HOURS), st.integers(-2, 2 * HOURS + 6))


@settings(max_examples=200 // CASES, **CALM)
@given(worlds(), spans)
def test_a_history_has_a_row_where_anything_changes_and_nowhere_else(world: World, span: tuple[int, int]) -> None:
    _check(world, *span)


@pytest.mark.slow
@settings(max_examples=5000 // CASES, **SEARCHING)
@given(worlds(), spans)
def test_a_history_has_a_row_where_anything_changes_in_5000_cases(world: World, span: tuple[int, int]) -> None:
    _check(world, *span)


@settings(max_examples=5, **CALM)
@given(worlds(), spans, st.sampled_from([100, 1000, 1 << 20]))
def test_a_history_is_written_as_it_is_returned_however_little_memory_there_is(
    world: World, span: tuple[int, int], memory: int
) -> None:
    def asked() -> Question:
        return ask_history(engine(), contract(world), world.tables, span=span, keys=requests(world)[:12])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.parquet"
        count = answer_to_parquet(engine(), asked(), world.tables, path, memory=memory)
        made = asked().answer(engine(), world.tables)
        assert (count, pq.read_table(path)) == (made.num_rows, made)


@settings(max_examples=3, **CALM)
@given(worlds(), st.integers(0, 15))
def test_the_latest_rows_say_what_the_oracle_says_now(world: World, now: int) -> None:
    keys = requests(world)
    made = ask_latest(engine(), contract(world), world.tables, now=now, keys=keys)
    assert _rows(made.answer(engine(), world.tables)) == [
        (tuple(key.values()), now, ask(world.groups, ASKS, key, now)) for key in keys
    ]


@st.composite
def functions(draw: st.DrawFn) -> dict[str, Agg]:
    """Windows of a few microseconds, with and without hop and delay."""
    kinds = st.sampled_from([("sum", "n"), ("count", None), ("last", "n"), ("min", "n")])
    made = {}
    for number in range(draw(st.integers(1, 4))):
        kind, column = draw(kinds)
        hop, delay = draw(st.sampled_from([None, 1, 2, 3])), draw(st.sampled_from([0, 0, 2, 5]))
        made[f"f{number}"] = Agg(kind, draw(st.integers(1, 9)), hop, column, delay)
    return made


def _windowed(stored: pa.Table, made: dict[str, Agg]) -> tuple[Contract, dict[str, MemoryTable]]:
    spec = Aggregate("sources/events", ("k",), None, {"n": "int64"}, made)
    dtypes = {name: agg.dtype({"n": "int64"}) for name, agg in made.items()}
    lookup = Lookup("world_v1", "", {"k": "k"}, {name: name for name in made}, dtypes, aggregate=spec)
    features = tuple(Field(name, dtype) for name, dtype in dtypes.items())
    request = (Field("k", "int64"),)
    promised = Contract(
        view="v", spine="s", request=request, optional=(), lookups=(lookup,), on_demand=(), features=features
    )
    return promised, {"world_v1": MemoryTable("sources/events", stored)}


@settings(max_examples=40, **CALM)
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 12), st.sampled_from([0, 0, 4])), max_size=8), functions())
def test_a_window_changes_when_an_event_comes_in_and_when_it_goes_out(
    events: list[tuple[int, int, int]], made: dict[str, Agg]
) -> None:
    keys, at, late = ([e[i] for e in events] for i in range(3))
    known = [t + delay for t, delay in zip(at, late, strict=True)]
    columns = {"k": pa.array(keys, pa.int64()), "n": pa.array(range(len(events)), pa.int64())}
    promised, tables = _windowed(pa.table({**columns, "event_time": times(*at), "known_at": times(*known)}), made)
    names, span = [*made, "world_v1__status"], range(3, 30)
    shown = ask_history(engine(), promised, tables, span=(3, 29), keys=[{"k": 1}, {"k": 2}]).answer(engine(), tables)
    each = [(k, t) for k in (1, 2) for t in range(2, 30)]
    spine = pa.table({"k": pa.array([k for k, _ in each], pa.int64()), "event_time": times(*(t for _, t in each))})
    said = point_in_time(engine(), spine, promised.lookups, tables).select(names).to_pylist()
    wanted = [
        (k, t, now)
        for (k, t), before, now in zip(each[1:], said, said[1:], strict=False)
        if t in span and now != before
    ]
    moments = shown["event_time"].cast("int64").to_pylist()
    assert list(zip(shown["k"].to_pylist(), moments, shown.select(names).to_pylist(), strict=True)) == wanted
