"""Exactly the spine's rows, in the spine's order, whatever is joined to them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tests.laws.oracle import Stored
from tests.laws.test_point_in_time import CALM, join
from tests.laws.worlds import KEYS, STATUS, World, worlds
from windrow.features.contract import Lookup
from windrow.features.join import point_in_time
from windrow.stores.engine import engine
from windrow.testing import MemoryTable

HOUR = 3_600_000_000


@settings(max_examples=3, **CALM)
@given(worlds())
def test_every_spine_row_comes_back_once_and_in_its_place(world: World) -> None:
    assert join(world).select(world.spine.column_names).equals(world.spine)


EMPTY = {group: Stored([]) for group in KEYS}


def test_a_repeated_spine_row_is_answered_each_time() -> None:
    world = World(EMPTY, [({"id": 1, "other": 1, "area": "N"}, 5)] * 3)
    assert join(world).column("card_v1__status").to_pylist() == [2, 2, 2]


def test_an_empty_spine_gives_an_empty_answer_with_every_column() -> None:
    made = join(World(EMPTY, []))
    assert made.num_rows == 0
    assert made.column_names[:7] == ["row", "id", "other", "area", "event_time", "tariff.n", "tariff.s"]
    assert set(made.column_names[-14:]) == {
        f"{s}__{what}" for s in STATUS.values() for what in ("status", "event_time")
    }


@pytest.mark.parametrize("late", [0, 2 * HOUR])
@pytest.mark.parametrize("stored_as", ["sorted", "two runs", "shuffled"])
def test_150000_rows_in_any_order_agree_with_a_binary_search(late: int, stored_as: str) -> None:
    # So many rows are found in one pass where the table lies in order, and by an ASOF join where it does not.
    rng = np.random.default_rng(7)
    spine_key, spine_at = rng.integers(0, 500, 150_000), rng.integers(0, 1000, 150_000) * HOUR
    flat = rng.permutation(500 * 1000)[:200_000]
    runs = {"sorted": [np.sort(flat)], "two runs": [np.sort(half) for half in np.split(flat, 2)], "shuffled": [flat]}
    key, at = np.divmod(np.concatenate(runs[stored_as]), 1000)
    at = at * HOUR
    known = at + late * (rng.random(len(at)) < 0.01)

    made = _join(spine_key, spine_at, key, at, known)

    assert made.column("x").fill_null(-1).to_pylist() == _searched(key, at, known, spine_key, spine_at)
    assert made.column("event_time").cast("int64").to_pylist() == spine_at.tolist()


def test_150000_rows_over_an_empty_table_find_nothing_and_keep_the_types() -> None:
    none = np.array([], dtype=np.int64)
    made = _join(np.zeros(150_000, dtype=np.int64), np.zeros(150_000, dtype=np.int64), none, none, none)
    assert (made.column("x").type, made.column("x").null_count) == (pa.int64(), 150_000)


def _join(spine_key: np.ndarray, spine_at: np.ndarray, key: np.ndarray, at: np.ndarray, known: np.ndarray) -> pa.Table:
    names = [f"é{k:03}" for k in range(500)]
    micros = pa.timestamp("us", "UTC")
    stored = {"k": pa.array([names[k] for k in key], pa.string()), "x": np.arange(len(key))}
    stored |= {"event_time": pa.array(at).cast(micros), "known_at": pa.array(known).cast(micros)}
    spine = pa.table({"k": [names[k] for k in spine_key], "event_time": pa.array(spine_at).cast(micros)})
    lookup = Lookup("g_v1", "", {"k": "k"}, {"x": "x"}, {"x": "int64"})
    return point_in_time(engine(), spine, [lookup], {"g_v1": MemoryTable("g_v1", pa.table(stored))})


def _searched(
    key: np.ndarray, at: np.ndarray, known: np.ndarray, spine_key: np.ndarray, spine_at: np.ndarray
) -> list[int]:
    # Event times of a key are all different here, so the newest known row is the greatest event time.
    order = np.lexsort((at, key))
    flat, wanted = (key * 10_000 + at // HOUR)[order], spine_key * 10_000 + spine_at // HOUR
    place = np.searchsorted(flat, wanted, side="right") - 1
    for _ in range(8):  # step back over rows that are not known yet
        mine = (place >= 0) & (flat[place] // 10_000 == spine_key)
        place = np.where(mine & (known[order][place] > spine_at), place - 1, place)
    mine = (place >= 0) & (flat[place] // 10_000 == spine_key)
    return np.where(mine, order[place], -1).tolist()
