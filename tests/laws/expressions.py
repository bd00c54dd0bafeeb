"""Random feature definitions: projections, filters, windows, joins, self-joins, unions, subqueries, aggregations.

Nothing in them depends on the order in which rows lie (ties, LIMIT without an order), and all numbers are whole, so
that a definition evaluated twice on the same rows gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

PAYMENTS = {
    "id": "int64", "card": "int64", "shop": "int64", "eur": "float64", "fee": "float64", "pieces": "int64",
    "kind": "string", "ok": "bool", "event_time": "timestamp('UTC', 6)", "known_at": "timestamp('UTC', 6)",
}  # fmt: skip
SHOPS = {
    "shop": "int64", "margin": "float64", "rating": "int64", "town": "string",
    "event_time": "timestamp('UTC', 6)", "known_at": "timestamp('UTC', 6)",
}  # fmt: skip
IDENTITY = ["card", "event_time", "known_at"]
_NUMBERS = ("eur", "fee", "pieces", "margin", "rating")
_DAY = 86_400_000_000


def tables(seed: int, rows: int = 40) -> dict[str, pa.Table]:
    """Rows of both inputs, with nulls and keys that meet."""
    random = np.random.default_rng(seed)

    def holey(values: Any, share: float = 0.1) -> pa.Array:
        return pa.array(values, mask=random.random(len(values)) < share)

    times = pa.array(np.sort(random.integers(0, 60, rows)) * _DAY).cast(pa.timestamp("us", "UTC"))
    payments = {
        "id": np.arange(rows), "card": random.integers(1, 6, rows), "shop": holey(random.integers(1, 5, rows)),
        "eur": holey(random.integers(-5, 20, rows).astype(float)), "fee": holey(random.integers(0, 9, rows).astype(float)),
        "pieces": holey(random.integers(0, 5, rows)), "kind": holey(random.choice(["a", "b", "c"], rows)),
        "ok": holey(random.random(rows) < 0.6), "event_time": times, "known_at": times,
    }  # fmt: skip
    shop_times = pa.array([0] * 6).cast(pa.timestamp("us", "UTC"))
    shops = {
        "shop": [1, 2, 3, 4, 4, 9], "margin": [1.0, 2.0, None, 5.0, 7.0, 8.0], "rating": [5, None, 3, 2, 1, 4],
        "town": ["x", "y", None, "z", "x", "y"], "event_time": shop_times, "known_at": shop_times,
    }  # fmt: skip
    return {"payments": pa.table(payments), "shops": pa.table(shops)}


def definition(seed: int) -> ibis.Table:
    """Return one random definition with keys, times and up to four features."""
    random = Random(seed)
    payments, shops = ibis.table(PAYMENTS, name="payments"), ibis.table(SHOPS, name="shops")
    made = payments
    for _ in range(random.randint(1, 4)):
        made = random.choice(_STEPS)(made, payments, shops, random)
    # By then a step may have left only the identity: then the definition counts.
    names = [c for c in made.columns if c not in IDENTITY]
    chosen = random.sample(names, min(len(names), 4)) or ["count"]
    made = made if names else made.mutate(count=ibis.literal(1))
    return made.select(*IDENTITY, *chosen)


def _numbers(table: ibis.Table) -> list[str]:
    return [c for c in table.columns if table[c].type().is_numeric()]


def _plain(table: ibis.Table, random: Random) -> Any:
    """A number computed row by row."""
    names = _numbers(table)
    one, other = table[random.choice(names)], table[random.choice(names)]
    return random.choice([
        lambda: one + other,
        lambda: one - 2 * other.fill_null(0),
        lambda: ibis.cases((one > other, one), else_=other),
        lambda: one.fill_null(0).cast("int64") % 3,
        lambda: ibis.coalesce(one, other),
        lambda: (one == other).ifelse(1, 0),
        lambda: ibis.greatest(one, other),
    ])()  # fmt: skip


def _condition(table: ibis.Table, random: Random) -> Any:
    number = table[random.choice(_numbers(table))]
    choices: list[Callable[[], Any]] = [
        lambda: number > random.randint(-2, 4),
        lambda: number.notnull(),
        lambda: number.fill_null(0) != 2,
    ]
    if "kind" in table.columns and table.kind.type().is_string():
        choices += [lambda: table.kind != "a", lambda: table.kind.isin(["a", "b"]) | table.ok]
    return random.choice(choices)()


def _project(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    return table.mutate(**{f"m{random.randint(0, 99)}": _plain(table, random)})


def _filter(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    return table.filter(_condition(table, random))


def _window(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    number = table[random.choice(_numbers(table))]
    by = random.choice(["card", random.choice(table.columns)])
    order = random.choice(_numbers(table))
    window = random.choice([
        ibis.window(group_by=by),
        ibis.cumulative_window(group_by=by).copy(how="range", orderings=[table.event_time]),
        ibis.range_window(group_by=by, order_by=table.event_time, preceding=ibis.interval(days=9), following=ibis.interval(days=0)),
    ])  # fmt: skip
    value = random.choice([
        lambda: number.sum().over(window),
        lambda: number.max().over(window),
        lambda: number.count().over(window),
        lambda: table.count().over(window),
        lambda: number.sum(where=_condition(table, random)).over(window),
        lambda: ibis.rank().over(ibis.window(group_by=by, order_by=order)),
        lambda: number.nunique().over(ibis.window(group_by=by)),
    ])()  # fmt: skip
    return table.mutate(**{f"w{random.randint(0, 99)}": value})


def _qualify(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    ranked = table.mutate(place=ibis.rank().over(ibis.window(group_by="card", order_by=random.choice(_numbers(table)))))
    return ranked.filter(ranked.place < 3).drop("place")


def _join(table: ibis.Table, _p: Any, shops: Any, random: Random) -> ibis.Table:
    if "shop" not in table.columns:
        return table
    side = shops.filter(shops.rating > 1) if random.random() < 0.3 else shops
    right = side.select(f"s{'hop'}", **{f"j{random.randint(0, 99)}": side[random.choice(("margin", "rating", "town"))]})
    how = random.choice(["inner", "left", "semi", "anti"])
    made = table.join(right, "shop", how=how)
    return made.drop("shop_right") if "shop_right" in made.columns else made


def _self_join(table: ibis.Table, payments: Any, _s: Any, random: Random) -> ibis.Table:
    other = random.choice([payments, table]).view()
    value = random.choice(_numbers(other))
    right = other.group_by("card").agg(**{f"o{random.randint(0, 99)}": other[value].max(), "windrow_n": other.count()})
    made = table.left_join(right, "card")
    return made.drop([c for c in ("card_right", "windrow_n") if c in made.columns])


def _asof(table: ibis.Table, payments: Any, _s: Any, random: Random) -> ibis.Table:
    other = payments.view()
    name = random.choice(["eur", "fee", "pieces"])
    last = other.group_by("card", "event_time").agg(**{f"a{random.randint(0, 99)}": other[name].max()})
    made = table.asof_join(last, on="event_time", predicates="card")
    return made.drop([c for c in made.columns if c.endswith("_right")])


def _union(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    other = table.filter(_condition(table, random))
    how = random.choice(["union", "union", "distinct", "except", "intersect"])
    if how == "except":
        return table.difference(other)
    if how == "intersect":
        return table.intersect(other)
    return table.union(other, distinct=how == "distinct")


def _aggregate(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    names = _numbers(table)
    one, other = table[random.choice(names)], table[random.choice(names)]
    number = random.randint(0, 99)
    made = table.group_by(*dict.fromkeys(["card", random.choice(["card", *names])])).agg(
        **{
            f"g{number}": one.sum(),
            f"h{number}": other.max(where=_condition(table, random)),
            f"n{number}": table.count(),
            "event_time": table.event_time.max(),
            "known_at": table.known_at.max(),
        }
    )
    return made.filter(made[f"n{number}"] > 1) if random.random() < 0.3 else made


def _ordered(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    """Firsts, lags and texts in an order that has no ties: rows of one id are one payment."""
    if not {"id", "eur", "kind", "pieces"} <= set(table.columns):
        return table
    number = random.randint(0, 99)
    if random.random() < 0.5:
        window = ibis.window(group_by="card", order_by="id")
        return table.mutate(
            **{f"l{number}": random.choice([table.eur.lag(), table.eur.first(), table.pieces.lead()]).over(window)}
        )
    made = table.group_by("card").agg(
        **{f"l{number}": table.eur.first(order_by=table.id, include_null=True)},
        **{f"x{number}": table.kind.group_concat(",", order_by=table.id), f"y{number}": table.eur.argmax(table.id)},
        event_time=table.event_time.max(),
        known_at=table.known_at.max(),
    )
    return made.mutate(**{f"z{number}": made[f"x{number}"].length()})


def _distinct(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    kept = random.sample(_numbers(table), min(2, len(_numbers(table))))
    return table.select(*dict.fromkeys([*IDENTITY, *kept])).distinct()


def _subquery(table: ibis.Table, payments: Any, shops: Any, random: Random) -> ibis.Table:
    if "shop" in table.columns and random.random() < 0.5:
        return table.filter(table.shop.isin(shops.filter(shops.rating > 2).shop))
    number = payments.view()[random.choice(["eur", "fee", "pieces"])]
    return table.mutate(**{f"q{random.randint(0, 99)}": _plain(table, random) - number.max().as_scalar()})


def _outer(table: ibis.Table, payments: Any, _s: Any, random: Random) -> ibis.Table:
    """Joins on more than equality, and such that keep the rows of both sides."""
    other = payments.view()
    value = random.choice(["eur", "fee", "pieces"])
    side = other.filter(other[value] > 3).select(o_card="card", o_value=value)
    predicates = [table.card == side.o_card] + (
        [table.event_time.day() > side.o_value] if random.random() < 0.5 else []
    )
    made = table.join(side, predicates, how=random.choice(["left", "inner", "outer", "right"]))
    return made.drop("o_card").rename({f"p{random.randint(0, 99)}": "o_value"})


def _longer(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    kept = [c for c in _numbers(table) if c != "card"][:3]
    if not kept or "name" in table.columns:
        return table
    plain = table.select(*IDENTITY, *(table[c].cast("float64").name(c) for c in kept))
    return plain.pivot_longer(kept, values_to=f"v{random.randint(0, 99)}").filter(ibis._.name != kept[0]).drop("name")


def _limit(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    # Every column orders, so that equal rows are the only ties.
    return table.order_by([ibis.desc(c) if random.random() < 0.5 else c for c in table.columns]).limit(15)


def _nulls(table: ibis.Table, _p: Any, _s: Any, random: Random) -> ibis.Table:
    name = random.choice([c for c in _numbers(table) if c != "card"] or ["card"])
    return table.drop_null(name) if random.random() < 0.5 or name == "card" else table.fill_null({name: 3})


_STEPS: list[Callable[[Any, Any, Any, Random], ibis.Table]] = [
    _project, _project, _filter, _window, _window, _qualify, _join, _join, _self_join, _asof, _union, _aggregate,
    _ordered, _ordered, _distinct, _subquery, _limit, _nulls, _outer, _longer,
]  # fmt: skip
