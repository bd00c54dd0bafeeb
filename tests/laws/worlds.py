"""Small worlds in which ties, late rows and expiry are the rule and not the exception."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from tests.laws.oracle import Row
from windrow.features.contract import Lookup
from windrow.testing import MemoryTable, times

NAMES = ("n", "s")  # the values: a number that tells rows apart, and a text that is often missing


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
    """Draw a world of `CASES` independent cases; delays are none, all the same, or any.

    Hypothesis draws sizes (and makes them smaller when something fails); what fills them is drawn evenly, because
    Hypothesis alone likes missing keys and equal numbers so much that little is ever found.
    """
    dice = Random(draw(st.integers(0, 2**32)))
    delays = dice.choice([(0,), (3,), range(6), range(6)])
    rows: list[Row] = []
    asked: list[tuple[tuple[Any, ...], int]] = []
    for case in range(CASES):
        ids = (2 * case,) * 5 + (2 * case + 1,)
        for _ in range(draw(st.integers(0, 12))):
            hour = dice.randrange(10)
            text = dice.choice(["a", None])
            rows.append(Row((dice.choice(ids), dice.choice("NNS")), hour, hour + dice.choice(delays), 0, {"s": text}))
        for _ in range(draw(st.integers(0, 6))):
            key = (dice.choice((*ids, *ids, None)), dice.choice([*"NNSNNSNNS", None]))
            asked.append((key, dice.randrange(-1, 16)))
    dice.shuffle(rows)
    order = dice.sample(range(len(rows)), len(rows))
    rows = [row._replace(seq=seq, values=row.values | {"n": seq}) for row, seq in zip(rows, order, strict=True)]
    dice.shuffle(asked)
    return World(rows, asked, dice.choice([None, None, None, 0, 2, 4, 8]))
