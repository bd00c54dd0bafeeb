"""The lineage law from end to end: a source column that the graph does not lead to a model input never changes it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from tests.models.lineage_world import SERVICES, cards, fraud, graph, payments, shops
from windrow import Source
from windrow.features.probe import variations
from windrow.testing.answers import answers
from windrow.testing.given import table_of

DAY = 86_400_000_000
Place = tuple[str, str]


@cache
def _tables() -> dict[str, pa.Table]:
    random = np.random.default_rng(11)

    def rows(source: Source, count: int, **columns: object) -> pa.Table:
        plain = [{name: np.asarray(values)[i].item() for name, values in columns.items()} for i in range(count)]
        return table_of(source, plain)

    n = 60
    return {
        "payments": rows(
            payments, n, payment_id=np.arange(n), card_id=random.integers(1, 5, n), shop_id=random.integers(1, 4, n),
            amount=random.integers(1, 50, n).astype(float), note=random.choice(["a", "b"], n),
            ts=np.sort(random.integers(0, 20 * DAY, n)),
        ),
        "cards": rows(
            cards, 24, card_id=np.tile([1, 2, 3, 4], 6), limit=random.integers(1, 9, 24) * 100.0,
            shop_id=random.integers(1, 4, 24), closed=random.random(24) < 0.2, since=np.sort(random.integers(0, 15 * DAY, 24)),
        ),
        "shops": rows(
            shops, 6, shop_id=[1, 2, 3, 1, 2, 3], margin=random.integers(1, 9, 6) / 10, town=["x", "y", "z"] * 2,
            since=[0, 0, 0, 9 * DAY, 9 * DAY, 9 * DAY],
        ),
    }  # fmt: skip


@cache
def _leads_to() -> dict[str, set[Place]]:
    """Model input of the service fraud -> every source column that leads to it."""
    made = graph()
    found: dict[str, set[Place]] = {name: set() for name in fraud.view.contract.feature_names}
    for node in made.nodes:
        if node.kind == "column":
            for id in made.downstream([node.id]):
                if id.startswith("fraud/input."):
                    found[id.removeprefix("fraud/input.")].add((node.box.removeprefix("sources/"), node.name))
    return found


@cache
def _changed(place: Place, *, in_request: bool) -> set[str]:
    """Inputs that differ in a row when a column is changed: of the stored rows, or of the request."""
    table, column = place
    tables, view = _tables(), SERVICES["fraud"].view
    before, names = answers(view, tables), view.contract.feature_names
    differ = set[str]()
    for changed in variations(tables[table].column(column)):
        index = tables[table].column_names.index(column)
        other = {**tables, table: tables[table].set_column(index, column, changed)}
        after = answers(view, tables if in_request else other, asked=other if in_request else tables)
        differ |= {name for name in names if before[name].to_pylist() != after[name].to_pylist()}
    return differ


PLACES = [(name, c) for name, s in (("payments", payments), ("cards", cards), ("shops", shops)) for c in s.columns]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_an_input_that_no_way_leads_to_never_changes(place: Place) -> None:
    leads = _leads_to()
    free = {name for name, places in leads.items() if place not in places}
    changed = _changed(place, in_request=False) | (
        _changed(place, in_request=True) if place[0] == "payments" else set()
    )
    assert changed & free == set()


@pytest.mark.parametrize(
    ("place", "inputs"),
    [
        (("payments", "amount"), {"spend_1d", "distance"}),
        (("cards", "limit"), {"half", "distance"}),
        (("cards", "shop_id"), {"margin"}),
        (("cards", "closed"), {"half", "margin", "distance"}),
        (("shops", "margin"), {"margin"}),
        (("payments", "note"), set()),
    ],
    ids=["amount", "limit", "shop_id", "closed", "margin", "note"],  # a set has no order that two processes share
)
def test_the_inputs_that_a_column_leads_to_are_those_that_it_changes(place: Place, inputs: set[str]) -> None:
    assert {name for name, places in _leads_to().items() if place in places} == inputs
    changed = _changed(place, in_request=False) | (
        _changed(place, in_request=True) if place[0] == "payments" else set()
    )
    assert changed == inputs
