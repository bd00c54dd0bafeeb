"""The lineage law on what the project itself declares: real definitions, rows of their simulators."""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import ROOT
from windrow.discover import groups, services
from windrow.features.aggregate import AggregateGroup
from windrow.features.group import FeatureGroup
from windrow.features.lineage import lineage
from windrow.features.probe import difference, variations
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.schema import EVENT_TIME
from windrow.stores.reader import read_source
from windrow.testing.answers import answers, identity

GROUPS = [g for g in groups(services("assets", project=ROOT).values()) if g.external is None]
FEW, MANY = 80, 700  # the second is longer than the longest window of the project's groups


@cache
def _rows(source: Source, count: int) -> pa.Table:
    assert source.simulator is not None
    made = read_source(source, ROOT / "no-data")
    entity = made.column_names[0]
    # The rows of few entities over a long time, so that windows and lags find something.
    few = made.sort_by([(entity, "ascending"), (EVENT_TIME, "ascending")]).slice(0, count)
    return few.sort_by([(EVENT_TIME, "ascending")])


def _sources(group: FeatureGroup) -> list[Source]:
    found = [[i] if isinstance(i, Source) else _sources(i) for i in group.inputs.values()]
    return list(dict.fromkeys(source for part in found for source in part))


def _named(group: FeatureGroup, feature: str) -> set[tuple[str, str]]:
    """Every source column that a feature depends on, through the groups that its group reads."""
    named: set[tuple[str, str]] = set()
    made = lineage(group)
    inner = {item.key: item for item in group.inputs.values() if isinstance(item, FeatureGroup)}
    for read in made.features[feature] | made.rows:
        if read.table not in inner:
            named.add((read.table, read.column))
            continue
        below = inner[read.table]
        features = [read.column] if read.column in below.features else list(below.features)[:0]
        named |= {place for name in features for place in _named(below, name)}
        named |= {(r.table, r.column) for r in lineage(below).rows}
    return named


def _answers(group: FeatureGroup, tables: dict[str, pa.Table], asked: dict[str, pa.Table]) -> pa.Table:
    if isinstance(group, AggregateGroup):
        # A time is no feature of a view as it is.
        features = [group[name] for name, dtype in group.features.items() if dtype != "timestamp"]
        view = FeatureView("law", spine=group.source, features=features)
        return answers(view, tables, asked=asked)
    return answers(group, tables)


def _changes(group: FeatureGroup, places: set[tuple[str, str]], rows: int) -> Any:
    tables = {source.name: _rows(source, rows) for source in _sources(group)}
    before = _answers(group, tables, tables)
    for key, column in sorted(places):
        name = key.removeprefix("sources/")
        index = tables[name].column_names.index(column)
        for changed in variations(tables[name].column(column)):
            replaced = {**tables, name: tables[name].set_column(index, column, changed)}
            yield (key, column), difference(before, _answers(group, replaced, tables), identity(group))


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.table_name)
def test_an_unnamed_column_never_changes_a_feature(group: FeatureGroup) -> None:
    named = {feature: _named(group, feature) for feature in group.features}
    places = {(s.key, c) for s in _sources(group) for c in s.fields}
    unnamed = {place for place in places if any(place not in found for found in named.values())}
    broken = [
        f"{place} changes {feature}"
        for place, change in _changes(group, unnamed, FEW)
        for feature in change.columns
        if place not in named[feature]
    ]
    assert broken == []


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.table_name)
def test_a_column_that_a_feature_is_computed_from_changes_it(group: FeatureGroup) -> None:
    made = lineage(group)
    # A time is two columns of the stored rows, which cannot be changed one at a time.
    inputs = {s.key: {*s.fields} - {*s.time_columns} for s in group.inputs.values() if isinstance(s, Source)}
    claimed = {
        (feature, (r.table, r.column)) for feature in made.features for r in made.features[feature]
        if r.kind == "value" and r.column in inputs.get(r.table, ())
    }  # fmt: skip
    seen = {(f, place) for place, change in _changes(group, {p for _, p in claimed}, MANY) for f in change.columns}
    assert sorted(claimed - seen) == []


def test_a_feature_of_the_project_needs_few_of_the_columns_that_there_are() -> None:
    shares = [
        len(_named(group, feature)) / sum(len(source.fields) for source in _sources(group))
        for group in GROUPS
        for feature in group.features
    ]
    assert sum(shares) / len(shares) < 0.7
