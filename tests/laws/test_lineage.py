"""The lineage law: changing a column that the lineage does not name for a feature never changes the feature."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import duckdb
import pytest
from ibis.backends.sql.compilers.duckdb import compiler

from tests.laws.expressions import IDENTITY, definition, tables
from windrow.features.probe import Change, difference, variations
from windrow.features.query_lineage import query_lineage

Place = tuple[str, str]


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    offline = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    made = duckdb.connect(config={"threads": 1, **offline})
    made.execute("set TimeZone = 'UTC'")
    return made


class Case:
    """One definition, what its lineage says, and how to run it on other rows."""

    def __init__(self, seed: int, *, without: str = "") -> None:
        made = definition(seed)
        tree = compiler.to_sqlglot(made)
        self.rows, self.sql = tables(seed), tree.sql("duckdb")
        self.features = [c for c in made.columns if c not in IDENTITY]
        lineage = query_lineage(tree, {n: t.column_names for n, t in self.rows.items()})
        deciding = (lineage.rows, *(lineage.columns[name] for name in IDENTITY))
        self.deciding: set[Place] = {(r.table, r.column) for part in deciding for r in part if r.kind != without}
        self.values = {f: {(r.table, r.column) for r in lineage.columns[f] if r.kind != without} for f in self.features}
        self.con = _connection()
        for name, table in self.rows.items():
            self.con.register(name, table)

    @property
    def places(self) -> list[Place]:
        return [(name, column) for name, table in self.rows.items() for column in table.column_names]

    def named(self, feature: str) -> set[Place]:
        return self.values[feature] | self.deciding

    def changes(self, places: list[Place]) -> Iterator[tuple[Place, Change]]:
        before = self.con.execute(self.sql).to_arrow_table()
        for table, column in places:
            given = self.rows[table]
            for changed in variations(given.column(column)):
                self.con.register(table, given.set_column(given.column_names.index(column), column, changed))
                after = self.con.execute(self.sql).to_arrow_table()
                yield (table, column), difference(before, after, IDENTITY)
            self.con.register(table, given)

    def broken(self) -> list[str]:
        unnamed = [p for p in self.places if any(p not in self.named(f) for f in self.features)]
        told = []
        for place, change in self.changes(unnamed):
            told += [f"{place} decides rows"] if change.rows != "same" and place not in self.deciding else []
            told += [f"{place} changes {name}" for name in change.columns if place not in self.named(name)]
        return [f"{line}: {self.sql}" for line in dict.fromkeys(told)]


def _broken(seeds: range) -> list[str]:
    return [f"seed {seed}: {line}" for seed in seeds for line in Case(seed).broken()]


@pytest.mark.parametrize(("kind", "seed"), [("value", 0), ("window", 0), ("filter", 0), ("join", 13), ("group", 5)])
def test_the_law_finds_a_lineage_that_leaves_one_kind_of_reads_out(kind: str, seed: int) -> None:
    assert Case(seed, without=kind).broken() != []


@pytest.mark.parametrize("block", range(3))
def test_changing_an_unnamed_column_never_changes_a_feature(block: int) -> None:
    assert _broken(range(block * 8, (block + 1) * 8)) == []


@pytest.mark.slow
@pytest.mark.parametrize("block", range(3, 120))
def test_changing_an_unnamed_column_never_changes_a_feature_in_many_definitions(block: int) -> None:
    assert _broken(range(block * 8, (block + 1) * 8)) == []


def test_not_everything_depends_on_everything() -> None:
    cases = [Case(seed) for seed in range(36)]
    places = [[p for p in case.places if p[1] not in IDENTITY] for case in cases]
    shares = [
        len(case.named(feature) & set(columns)) / len(columns)
        for case, columns in zip(cases, places, strict=True)
        for feature in case.features
    ]
    assert sum(shares) / len(shares) < 0.4
    assert sum(share > 0.9 for share in shares) / len(shares) < 0.1


def test_most_columns_that_are_named_do_change_something() -> None:
    named, seen = 0, 0
    for case in map(Case, range(8)):
        claimed = {place for feature in case.features for place in case.named(feature)}
        acting = {p for p, change in case.changes(sorted(claimed)) if change.rows != "same" or change.columns}
        named, seen = named + len(claimed), seen + len(acting)
    assert seen / named > 0.6
