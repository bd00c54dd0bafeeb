"""The bars of a stream are the bars of history: however trades come in, the same rows are there in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assets.crypto import simulate
from assets.crypto.features import BAR, LATENESS, bars, moves, ticks
from tests.models.worlds import World
from windrow.stores.engine import engine
from windrow.stores.materialize import materialize_group, read_current

MINUTES, SECOND = 8, 1_000_000


def first_minutes() -> dict[str, Any]:
    """Trades of the simulator's first minutes, as they arrive: late ones, and some of them twice."""
    rows = simulate.deliveries()
    early = rows["ts"] < simulate.START + np.timedelta64(MINUTES, "m")
    return {name: values[early] for name, values in rows.items()}


def batches(rows: dict[str, Any], cuts: list[int]) -> Iterator[dict[str, Any]]:
    """Cut the deliveries into batches; of a trade that comes twice the first one counts, as in any stream."""
    seen: set[str] = set()
    for part in np.split(np.arange(rows["ts"].size), cuts):
        new = [i for i in part if not (rows["trade"][i] in seen or seen.add(rows["trade"][i]))]  # type: ignore[func-returns-value]
        yield {name: values[new] for name, values in rows.items()}


def add(world: World, rows: dict[str, Any]) -> None:
    columns = {n: (v.astype(np.int64) if v.dtype.kind == "M" else v).tolist() for n, v in rows.items()}
    world.add(ticks, **columns)


def streamed(home: Path, cuts: list[int]) -> World:
    """Make bars of each batch as it comes in."""
    world = World(home)
    for part in batches(first_minutes(), cuts):
        if part["ts"].size:
            add(world, part)
            materialize_group(bars, world.lake, world.metadata)
            materialize_group(moves, world.lake, world.metadata)
    return world


def rows_of(world: World, group: Any) -> list[dict[str, Any]]:
    found = read_current(group, world.lake, engine()).order_by("product", "event_time", "known_at").to_pyarrow()
    times = {name: found[name].cast("int64") for name in ("event_time", "known_at")}
    for name, values in times.items():
        found = found.set_column(found.column_names.index(name), name, values)
    return list(found.to_pylist())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> World:
    return streamed(tmp_path_factory.mktemp("history"), cuts=[])


@pytest.mark.parametrize("seed", range(2))
def test_however_the_trades_are_cut_into_batches_the_bars_are_the_same(
    history: World, tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    cuts = sorted(random.integers(0, first_minutes()["ts"].size, random.integers(2, 4)).tolist())
    world = streamed(tmp_path, cuts)
    assert rows_of(world, bars) == rows_of(history, bars)
    assert rows_of(world, moves) == rows_of(history, moves)


def test_bars_are_what_a_plain_loop_over_the_trades_makes(history: World) -> None:
    made = {(r["product"], r["event_time"], r["known_at"]): r for r in rows_of(history, bars)}
    assert made == {key: {**row, "volume": pytest.approx(row["volume"], abs=1e-7)} for key, row in by_hand().items()}


def by_hand() -> dict[tuple[str, int, int], dict[str, Any]]:
    """Every version of every bar, by going through the trades."""
    rows = next(batches(first_minutes(), []))
    trades = sorted(zip(*(rows[name].tolist() for name in ("product", "trade", "price", "size")), micros(rows["ts"]), micros(rows["received"]), strict=True))  # fmt: skip
    bar, lateness, made = BAR * SECOND, LATENESS * SECOND, dict[tuple[str, int, int], dict[str, Any]]()
    for product, _, _, _, ts, received in trades:
        close = ts // bar * bar + bar
        seen = max(received, close + lateness)
        known = [
            t for t in trades if t[0] == product and t[4] // bar == ts // bar and max(t[5], close + lateness) <= seen
        ]
        order = sorted(known, key=lambda t: (t[4], t[1]))
        prices = [t[2] for t in order]
        made[product, close, seen] = {
            "product": product, "event_time": close, "known_at": seen, "open": prices[0], "high": max(prices),
            "low": min(prices), "close": prices[-1], "volume": sum(t[3] for t in order), "trades": len(order),
            "late": sum(t[5] > close + lateness for t in order),
        }  # fmt: skip
    return made


def micros(times: Any) -> list[int]:
    return [int(t) for t in times.astype(np.int64)]


def test_the_first_minutes_have_late_trades_and_trades_that_came_twice(history: World) -> None:
    rows = first_minutes()
    assert rows["trade"].size > np.unique(rows["trade"]).size
    assert max(row["late"] for row in rows_of(history, bars)) >= 1
    assert isinstance(history.lake.table(ticks.key).scan(engine()).to_pyarrow(), pa.Table)
