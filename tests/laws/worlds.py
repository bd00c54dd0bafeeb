"""Small worlds in which ties, late rows and expiry are the rule and not the exception."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from tests.laws.oracle import Row
from windrow.features.contract import Lookup
from windrow.testing import MemoryTable, times

NAMES = ("n", "s")  # the values: a number that tells rows apart, and a text that is often missing
HOURS = st.integers(0, 9)
AREAS = st.sampled_from(["N", "S"])


class World(NamedTuple):
    """Stored rows, the times and keys asked about, and the rule of expiry."""

    rows: list[Row]
    asked: list[tuple[tuple[Any, ...], int]]
    ttl: int | None

    @property
    def table(self) -> MemoryTable:
        """The rows as a stored group with keys ``id`` and ``area``."""
        return MemoryTable("features/world_v1", table(self.rows))

    @property
    def spine(self) -> pa.Table:
        """The rows asked about, numbered."""
        return spine(self.asked)

    @property
    def lookup(self) -> Lookup:
        """All values by both keys."""
        return lookup(self.ttl)


def lookup(ttl: int | None, **fields: str) -> Lookup:
    """A look-up of the world's group by the spine fields `fields` (default: the keys' own names)."""
    keys = {"id": "id", "area": "area"} | fields
    return Lookup("world_v1", "", keys, {n: n for n in NAMES}, {"n": "int64", "s": "string"}, ttl)


def table(rows: list[Row]) -> pa.Table:
    """Stored rows as Arrow, in the order given."""
    return pa.table(
        {
            "id": pa.array([r.key[0] for r in rows], pa.int64()),
            "area": pa.array([r.key[1] for r in rows], pa.string()),
            "n": pa.array([r.values["n"] for r in rows], pa.int64()),
            "s": pa.array([r.values["s"] for r in rows], pa.string()),
            "event_time": times(*(r.event_time for r in rows)),
            "known_at": times(*(r.known_at for r in rows)),
            "_seq": pa.array([r.seq for r in rows], pa.int64()),
        }
    )


def spine(asked: list[tuple[tuple[Any, ...], int]]) -> pa.Table:
    """Keys and times asked about as Arrow, with a column that numbers the rows."""
    return pa.table(
        {
            "row": pa.array(range(len(asked)), pa.int64()),
            "id": pa.array([key[0] for key, _ in asked], pa.int64()),
            "area": pa.array([key[1] for key, _ in asked], pa.string()),
            "event_time": times(*(t for _, t in asked)),
        }
    )


CASES = 5  # keys of one case are no keys of another, so that one join answers for all of them


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world of `CASES` independent cases; delays are none, all the same, or any."""
    delay = draw(st.sampled_from([st.just(0), st.just(3), st.integers(0, 5), st.integers(0, 5)]))
    rows: list[Row] = []
    asked: list[tuple[tuple[Any, ...], int]] = []
    for case in range(CASES):
        ids = st.integers(2 * case, 2 * case + 1)
        stored = draw(st.lists(st.tuples(ids, AREAS, HOURS, delay, st.none() | st.just("a")), max_size=12))
        rows += [Row((i, a), hour, hour + late, 0, {"n": 0, "s": s}) for i, a, hour, late, s in stored]
        asked += draw(
            st.lists(st.tuples(st.tuples(st.none() | ids, st.none() | AREAS), st.integers(-1, 15)), max_size=6)
        )
    order = draw(st.permutations(range(len(rows))))
    rows = [row._replace(seq=seq, values=row.values | {"n": seq}) for row, seq in zip(rows, order, strict=True)]
    return World(rows, draw(st.permutations(asked)), draw(st.none() | st.integers(0, 6)))
