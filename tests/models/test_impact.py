"""If a column goes, what breaks: named one by one, down to the live releases."""

from __future__ import annotations

import pytest

from tests.models.lineage_world import GROUPS, fraud, graph, older
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.contract import Contract
from windrow.models.graph import Box, Edge, Graph, Live, Node
from windrow.models.impact import broken_releases, find_column, needs


def told(column: str, made: Graph | None = None) -> list[str]:
    made = made or graph()
    found = needs(made, find_column(made, column), GROUPS)
    return [f"{n.kind} {n.name}: {n.effect} ({n.how}{', through ' + n.through if n.through else ''})" for n in found]


def test_everything_computed_from_a_column_is_named_in_the_order_of_the_data() -> None:
    assert told("cards.limit") == [
        "feature group card_profile_v1: must be edited (definition)",
        "check tests.models.lineage_world:Checks, limit: breaks (value, through card_profile_v1.limit)",
        "feature card_profile_v1.limit: breaks (value)",
        "feature card_half_v1.half: breaks (value, through card_profile_v1.limit)",
        "on-demand function fraud: distance(x, y): breaks (value, through card_profile_v1.limit)",
        "model input fraud.distance: breaks (value, through card_profile_v1.limit)",
        "model input limits.limit: breaks (value, through card_profile_v1.limit)",
        "model input fraud.half: breaks (value, through card_half_v1.half)",
        "view fraud: breaks (value, through 2 of its inputs)",
        "view limits: breaks (value, through 1 of its inputs)",
        "service fraud: breaks (value, through 2 of its inputs)",
        "service limits: breaks (value, through 1 of its inputs)",
    ]


def test_a_filters_column_concerns_every_feature_of_the_group() -> None:
    lines = told("cards.closed")
    assert "feature card_profile_v1.limit: breaks (filter, through card_profile_v1.rows)" in lines
    assert "feature card_half_v1.half: breaks (filter, through card_profile_v1.limit)" in lines
    assert "model input limits.limit: breaks (filter, through card_profile_v1.limit)" in lines


def test_a_request_column_is_needed_by_functions_windows_and_keys() -> None:
    lines = told("payments.amount")
    assert "feature card_spend_v1.spend_1d: breaks (value)" in lines
    assert "on-demand function fraud: distance(x, y): breaks (value)" in lines
    assert not any("limits" in line for line in lines)


def test_a_label_column_stops_training_only() -> None:
    assert told("chargebacks.fee", graph(fraud=None)) == [
        "label fraud: breaks (label)",
        "service fraud: cannot be trained again (label, through its label)",
    ]


def test_a_column_that_nothing_reads_is_needed_by_nothing() -> None:
    assert told("note") == []


def broken(column: str, **live: Contract | None) -> list[str]:
    made = graph(**live)
    return broken_releases(needs(made, find_column(made, column), GROUPS))


def test_a_live_release_breaks_with_one_of_its_inputs() -> None:
    assert broken("cards.limit", fraud=None, limits=None) == ["fraud-1", "limits-1"]
    assert broken("payments.amount", fraud=None, limits=None) == ["fraud-1"]
    assert broken("chargebacks.fee", fraud=None, limits=None) == []


def test_a_live_release_is_judged_by_its_own_inputs_not_by_the_declared_ones() -> None:
    contract = older(older(fraud.view.contract, without="margin"), without="distance")
    assert broken("shops.margin", fraud=contract) == []
    assert broken("shops.margin", fraud=None) == ["fraud-1"]


def test_a_release_whose_group_must_be_edited_is_told_that_it_gets_no_new_rows() -> None:
    lines = told("shops.town", graph(fraud=None))
    assert lines == [
        "feature group shop_margin_v1: must be edited (definition)",
        "feature shop_margin_v1.town: breaks (value)",
        "live release fraud-1: gets no new rows (value, through shop_margin_v1, until it is edited)",
    ]


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("margin", "sources/shops.margin"),
        ("shops.margin", "sources/shops.margin"),
        ("sources/shops.margin", "sources/shops.margin"),
        ("shop_margin.margin", "features/shop_margin_v1.margin"),
        ("shop_margin_v1.margin", "features/shop_margin_v1.margin"),
        ("half", "features/card_half_v1.half"),
    ],
)
def test_a_column_is_found_by_any_of_its_names(text: str, id: str) -> None:
    assert find_column(graph(), text).id == id


def test_an_ambiguous_name_is_refused_with_what_it_may_mean() -> None:
    with pytest.raises(
        DeclarationError, match="'card_id' is the name of 2 columns. They are 'cards.card_id', 'payments.card_id'"
    ):
        find_column(graph(), "card_id")


@pytest.mark.parametrize(("text", "close"), [("amout", "amount"), ("payments.amout", "payments.amount")])
def test_an_unknown_name_offers_the_closest(text: str, close: str) -> None:
    with pytest.raises(UnknownNameError, match=f"the project has no column '{text}'.*did you mean '{close}'"):
        find_column(graph(), text)


def test_what_only_an_assumption_leads_to_may_break_and_counts_as_not_safe() -> None:
    nodes = (
        Node("sources/t.a", "column", "sources/t", "a"), Node("features/g_v1.f", "feature", "features/g_v1", "f"),
        Node("s/input.f", "input", "s/view", "f"),
    )  # fmt: skip
    boxes = (
        Box("sources/t", "source", "t", 0, ("s",)), Box("features/g_v1", "group", "g_v1", 1, ("s",)),
        Box("s/view", "view", "s", 2, ("s",)),
    )  # fmt: skip
    edges = (Edge("sources/t.a", "features/g_v1.f", "assumed"), Edge("features/g_v1.f", "s/input.f", "value"))
    made = Graph(boxes, nodes, edges, (Live("s", "s-1"),))
    found = needs(made, find_column(made, "t.a"), [])
    assert [(n.kind, n.effect) for n in found] == [
        ("feature group", "may break"), ("feature", "may break"), ("model input", "may break"), ("view", "may break"), ("service", "may break"),
        ("live release", "may break"),
    ]  # fmt: skip
    assert broken_releases(found) == ["s-1"]
