"""Small worlds in which ties, late rows, corrections, duplicates, nulls and expiry are the rule and not the exception.

A world has six groups and a view that looks them up in every way there is:

    card       by id             ``card``, and in a second role by ``other``
    place      by (id, area)     a composite key
    market     no key            by time only
    region     by region         through card.region
    zone       by zone           through region.zone: two steps
    tariff     by (area, region) one key of the request, one through card.region
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from tests.laws.oracle import Asks, Row, Stored
from windrow.features.contract import Lookup
from windrow.testing import MemoryTable, times

CASES = 100  # keys of one case are no keys of another, so that one join answers for all of them
HOURS = 10

KEYS = {
    "card": {"id": "int64"},
    "place": {"id": "int64", "area": "string"},
    "market": {},
    "region": {"region": "int64"},
    "zone": {"zone": "string"},
    "tariff": {"area": "string", "region": "int64"},
}
VALUES = {"n": "int64", "s": "string", "region": "int64", "zone": "string"}
HOLDS = {"card": ("n", "s", "region"), "region": ("n", "s", "zone")}  # the others: n and s

# The view, once in the oracle's words and once in windrow's; earlier look-ups come first.
ASKS = {
    "card": Asks("card", ("id",)),
    "other": Asks("card", ("other",)),
    "place": Asks("place", ("id", "area")),
    "market": Asks("market", ()),
    "region": Asks("region", (("card", "region"),)),
    "zone": Asks("zone", (("region", "zone"),)),
    "tariff": Asks("tariff", ("area", ("card", "region"))),
}
STATUS = {
    "card": "card_v1", "other": "other.card_v1", "place": "place_v1", "market": "market_v1",
    "region": "stored.card.region.region_v1", "zone": "stored.region.zone.zone_v1",
    "tariff": "area.stored.card.region.tariff_v1",
}  # fmt: skip
FIELDS = {"id": "int64", "other": "int64", "area": "string"}
_ARROW = {"int64": pa.int64(), "string": pa.string()}


class World(NamedTuple):
    """What is stored of each group, and the requests with their times."""

    groups: dict[str, Stored]
    asked: list[tuple[dict[str, Any], int]]

    @property
    def tables(self) -> dict[str, MemoryTable]:
        """The groups as stored tables, rows in the order given: of key and time, or none."""
        return {f"{g}_v1": MemoryTable(f"features/{g}_v1", table(g, stored.rows)) for g, stored in self.groups.items()}

    @property
    def lookups(self) -> list[Lookup]:
        """The view's look-ups, later ones first: their order must not matter."""
        return [lookup(name, self.groups[asks.group].ttl) for name, asks in reversed(ASKS.items())]

    @property
    def spine(self) -> pa.Table:
        """The requests as Arrow, with a column that numbers the rows."""
        columns = {f: pa.array([request[f] for request, _ in self.asked], _ARROW[d]) for f, d in FIELDS.items()}
        return pa.table({"row": range(len(self.asked)), **columns, "event_time": times(*(t for _, t in self.asked))})

    def with_rows(self, change: Any) -> World:
        """The world with every group's rows as `change` (rows -> rows) makes them."""
        return self._replace(groups={g: Stored(change(s.rows), s.ttl) for g, s in self.groups.items()})


def held(group: str) -> tuple[str, ...]:
    """The values of a group."""
    return HOLDS.get(group, ("n", "s"))


def lookup(name: str, ttl: int | None) -> Lookup:
    """Return a look-up of the view in windrow's words; its values are called ``<look-up>.<value>``."""
    group, parts = ASKS[name]
    keys = dict(zip(KEYS[group], parts, strict=True))
    columns = {f"{name}.{value}": value for value in held(group)}
    return Lookup(
        f"{group}_v1",
        "",
        {key: part if isinstance(part, str) else ".".join(part) for key, part in keys.items()},
        columns,
        {value: VALUES[column] for value, column in columns.items()},
        ttl,
        tuple(key for key, part in keys.items() if not isinstance(part, str)),
    )


def table(group: str, rows: Any) -> pa.Table:
    """Stored rows as Arrow, in the order given."""
    keys = {k: pa.array([r.key[i] for r in rows], _ARROW[d]) for i, (k, d) in enumerate(KEYS[group].items())}
    values = {v: pa.array([r.values[v] for r in rows], _ARROW[VALUES[v]]) for v in held(group)}
    moments = {"event_time": times(*(r.event_time for r in rows)), "known_at": times(*(r.known_at for r in rows))}
    # A value may be called as a key of another group, never as one of its own.
    return pa.table({**keys, **values, **moments, "_seq": pa.array([r.seq for r in rows], pa.int64())})


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world of `CASES` independent cases; delays of a group are none, all the same, or any.

    Hypothesis draws the sizes (and makes them smaller when something fails); what fills them is drawn evenly, because
    Hypothesis alone likes missing keys and equal numbers so much that little is ever found.
    """
    dice = Random(draw(st.integers(0, 2**32)))
    most, asks = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    groups = {group: Stored(_rows(dice, group, most), dice.choice([None, None, None, 0, 2, 4, 8])) for group in KEYS}
    asked = [(_request(dice, case), dice.randrange(-1, HOURS + 6)) for case in range(CASES) for _ in range(asks)]
    dice.shuffle(asked)
    return World(groups, asked)


def _rows(dice: Random, group: str, most: int) -> list[Row]:
    delays = dice.choice([(0,), (3,), range(6), range(6)])
    rows = []
    for case in range(CASES if KEYS[group] else 1):
        for _ in range(dice.randint(0, most)):
            hour, values = dice.randrange(HOURS), {v: _value(dice, v, case) for v in held(group)}
            rows.append(Row(_key(dice, group, case), hour, hour + dice.choice(delays), 0, values))
    dice.shuffle(rows)
    count = len(rows)
    order = dice.sample(range(count), count)
    rows = [row._replace(seq=seq, values=row.values | {"n": seq}) for row, seq in zip(rows, order, strict=True)]
    rows += [dice.choice(rows) for _ in range(count // 8)]  # the same row twice, to the last bit
    return rows if dice.random() < 0.4 else sorted(rows, key=_place)


def _place(row: Row) -> tuple[Any, ...]:
    """Where a row lies in a table that is in order."""
    return ([(part is None, part or 0) for part in row.key], row.event_time, row.known_at, row.seq)


def _key(dice: Random, group: str, case: int) -> tuple[Any, ...]:
    return tuple(_value(dice, key, case) for key in KEYS[group])


def _value(dice: Random, name: str, case: int) -> Any:
    """A value that belongs to a case, and now and then a missing one."""
    numbers = dice.choice((2 * case,) * 5 + (2 * case + 1,))
    made = {"id": numbers, "other": numbers, "region": numbers, "n": 0, "s": dice.choice(["a", None])}
    made |= {"area": dice.choice("NNS"), "zone": f"é{numbers}"}
    return None if dice.random() < 0.04 else made[name]


def _request(dice: Random, case: int) -> dict[str, Any]:
    return {field: _value(dice, field, case) for field in FIELDS}
