"""What a SQL query reads: which columns go into each of its columns, and which decide its rows."""

from __future__ import annotations

from collections import Counter
from functools import cache

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from windrow.errors import DeclarationError
from windrow.features.probe import variations
from windrow.features.query_lineage import Reads, query_lineage

T = {"t": ["k", "a", "b", "c", "ts"], "u": ["k", "x", "y"]}


def told(reads: Reads | None) -> str:
    """``t.a`` for values, ``t.b:filter`` for the rest, sorted."""
    assert reads is not None
    return " ".join(sorted(f"{r.table}.{r.column}" + ("" if r.kind == "value" else f":{r.kind}") for r in reads))


def of(query: str, column: str = "f") -> tuple[str, str]:
    made = query_lineage(query, T)
    return told(made.column(column)), told(made.rows)


ONE = [
        ("select a + b as f from t", "t.a t.b", ""),
        ("select 1 as f from t", "", ""),
        ("select case when c > 0 then a else b end as f from t", "t.a t.b t.c", ""),
        ("select a as f from t where b > 0 and c is not null", "t.a", "t.b:filter t.c:filter"),
        ("select sum(a) as f from t group by k having max(b) > 1", "t.a", "t.b:filter t.k:group"),
        ("select sum(a) as f, k from t group by 2", "t.a", "t.k:group"),
        ("select sum(a) as f, k, b from t group by all", "t.a", "t.b:group t.k:group"),
        ("select sum(a) as f from t group by grouping sets ((k), (b))", "t.a", "t.b:group t.k:group"),
        ("select sum(a) filter (where b > 0) as f from t", "t.a t.b:filter", ""),
        ("select count(*) as f from t where a > 0", "", "t.a:filter"),
        ("select first(a order by ts) as f from t", "t.a t.ts:window", ""),
        ("select sum(a) over (partition by k order by ts) as f from t", "t.a t.k:window t.ts:window", ""),
        ("select sum(a) over w as f from t window w as (partition by k order by ts)", "t.a t.k:window t.ts:window", ""),
        ("select row_number() over (order by ts) as f from t", "t.ts:window", ""),
        ("select a as f from t qualify row_number() over (partition by k order by ts) = 1", "t.a", "t.k:filter t.ts:filter"),
        ("select distinct a as f, b from t", "t.a", "t.a:group t.b:group"),
        ("select distinct on (k) a as f from t order by ts", "t.a", "t.k:group t.ts:group"),
        ("select a as f from t order by ts", "t.a", ""),
        ("select a as f from t order by ts limit 3", "t.a", "t.ts:filter"),
        ("select a as f from t order by 1 limit 3", "t.a", "t.a:filter"),
        ("select f from (select a as f from t order by ts) limit 3", "t.a", "t.ts:filter"),
        ("select unnest(a) as f from t", "t.a", "t.a:join"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "values", "rows"), ONE)
def test_one_table(query: str, values: str, rows: str) -> None:
    assert of(query) == (values, rows)


SEVERAL = [
        ("select t.a * u.x as f from t join u on t.k = u.k", "t.a u.x", "t.k:join u.k:join"),
        ("select x as f from t left join u using (k)", "u.x", "t.k:join u.k:join"),
        ("select x as f from t natural join u", "u.x", "t.k:join u.k:join"),
        ("select x as f from t, u where t.k = u.k", "u.x", "t.k:filter u.k:filter"),
        ("select a as f from t semi join u on t.k = u.k", "t.a", "t.k:join u.k:join"),
        ("select a as f from t anti join u using (k)", "t.a", "t.k:join u.k:join"),
        ("select u.x as f from t asof join u on t.k = u.k and t.ts >= u.y", "u.x", "t.k:join t.ts:join u.k:join u.y:join"),
        ("select two.a as f from t one join t two on one.k = two.b", "t.a", "t.b:join t.k:join"),
        ("select f from (select a as f, k from t where b > 0) s join u on s.k = u.k", "t.a", "t.b:filter t.k:join u.k:join"),
        ("select a as f from t where k in (select k from u where x > 0)", "t.a", "t.k:filter u.k:filter u.x:filter"),
        ("select a as f from t where exists (select 1 from u where u.k = t.k)", "t.a", "t.k:filter u.k:filter"),
        ("select a - (select max(x) from u) as f from t", "t.a u.x", ""),
        ("select (select max(x) from u where u.k = t.k and y > 0) as f from t", "t.k:filter u.k:filter u.x u.y:filter", ""),
        ("select l.f from t, lateral (select x + t.a as f from u) l", "t.a u.x", ""),
        ("select n.f from t, unnest(t.a) as n(f)", "t.a", "t.a:join"),
        ("select v.f from t, (values (1), (2)) v(f)", "", ""),
        ("select a as f from t union all select x from u", "t.a u.x", ""),
        ("select a as f from t union select x from u", "t.a u.x", "t.a:group u.x:group"),
        ("select a as f from t except select x from u", "t.a u.x", "t.a:group u.x:group"),
        ("select a as f, b from t union all by name select x as b, y as f from u", "t.a u.y", ""),
]  # fmt: skip


@pytest.mark.parametrize(("query", "values", "rows"), SEVERAL)
def test_several_tables(query: str, values: str, rows: str) -> None:
    assert of(query) == (values, rows)


@pytest.mark.parametrize(
    ("query", "column", "values"),
    [
        ("select * from t", "b", "t.b"),
        ("select t.*, x from t join u on t.k = u.k", "b", "t.b"),
        ("select * exclude (b) replace (a + c as a) from t", "a", "t.a t.c"),
        ("select * rename (b as f) from t", "f", "t.b"),
        ("with w as (select a as g from t) select g + 1 as f from w", "f", "t.a"),
        ("with w(f) as (select a from t) select f from w", "f", "t.a"),
        ("select s.f from (select a from t) s(f)", "f", "t.a"),
        ("select A as F from T", "f", "t.a"),
        ("select a as g, g * 2 as f from t", "f", "t.a"),
        ("select t.c.part as f from t", "f", "t.c"),
        ("select c.part as f from t", "f", "t.c"),
        ("select list_transform(c, z -> z + a) as f from t", "f", "t.a t.c"),
        ("select t as f from t", "f", "t.a t.b t.c t.k t.ts"),
        ("from t select a as f", "f", "t.a"),
        (
            "with recursive r as (select k, a as f from t union all select r.k, u.x from r join u on r.k = u.k) select f from r",
            "f",
            "t.a u.x",
        ),
    ],
)
def test_names_are_found_as_sql_finds_them(query: str, column: str, values: str) -> None:
    assert of(query, column)[0] == values


def test_both_sides_of_a_recursive_query_decide_its_rows() -> None:
    query = "with recursive r as (select k from t where a > 0 union all select u.k from r join u on r.k = u.y) select k as f from r"
    assert of(query) == ("t.k u.k", "t.a:filter t.k:join u.k:join u.y:join")


@pytest.mark.parametrize(
    "query",
    [
        "pivot t on k using sum(a)",
        "select * from t pivot (sum(a) for k in (1, 2))",
        "select columns('a|b') from t",
        "select a from elsewhere",
        "select a as f from t union all select k, x from u",
    ],
)
def test_what_cannot_be_read_is_assumed_to_depend_on_everything(query: str) -> None:
    made = query_lineage(query, T)
    assert {(r.table, r.column) for r in made.rows} == {(t, c) for t, columns in T.items() for c in columns}
    assert {r.kind for r in made.rows} == {"assumed"}


def test_a_limit_without_an_order_may_look_at_any_column() -> None:
    assert of("select a as f from t limit 3") == (
        "t.a",
        "t.a:filter t.b:filter t.c:filter t.k:filter t.ts:filter",
    )


def test_what_was_assumed_stays_so_when_it_is_filtered_by() -> None:
    made = query_lineage("select a as f from t where #2 > 0", T)
    assert {r.kind for r in made.rows} == {"assumed"}


def test_a_text_that_is_not_sql_is_refused() -> None:
    with pytest.raises(DeclarationError, match="the text is not SQL of duckdb: .*Next: correct it"):
        query_lineage("selec a fro", T)


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def _rows(table: str) -> pa.Table:
    random = np.random.default_rng(len(table) + len(T[table]))
    return pa.table({name: pa.array(random.integers(0, 4, 30), mask=random.random(30) < 0.1) for name in T[table]})


@pytest.mark.parametrize("query", [query for query, *_ in (*ONE, *SEVERAL) if "unnest" not in query])
def test_the_engine_agrees_that_no_other_column_changes_anything(query: str) -> None:
    made, con = query_lineage(query, T), _connection()
    named = {(r.table, r.column) for r in (made.column("f") or frozenset()) | made.rows}
    given = {name: _rows(name) for name in T}
    for name, table in given.items():
        con.register(name, table)

    def answer() -> Counter[object]:
        return Counter(con.execute(f"select f from ({query})").to_arrow_table()["f"].to_pylist())

    before = answer()
    for table, column in sorted({(t, c) for t, columns in T.items() for c in columns} - named):
        index = T[table].index(column)
        for changed in variations(given[table].column(column)):
            con.register(table, given[table].set_column(index, column, changed))
            assert answer() == before, f"{table}.{column}"
        con.register(table, given[table])
