"""The graph of a project's lineage: from source columns to predictions, as data that outlives the declarations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.lineage_world import GROUPS, SERVICES, fraud, graph, older
from windrow.errors import StoreError
from windrow.models.graph import FILE, Edge, Graph, Live, load_graph, save_graph
from windrow.models.graph_build import write_lineage


def into(made: Graph, target: str) -> set[str]:
    return {f"{edge.source} {edge.kind}" for edge in made.edges if edge.target == target}


def test_every_edge_is_between_nodes_and_every_node_in_a_box() -> None:
    made = graph()
    ids, boxes = {node.id for node in made.nodes}, {box.key for box in made.boxes}
    assert [edge for edge in made.edges if edge.source not in ids or edge.target not in ids] == []
    assert {node.box for node in made.nodes} <= boxes
    assert len(ids) == len(made.nodes)


def test_a_feature_comes_from_its_columns_and_from_the_rows_of_its_group() -> None:
    assert into(graph(), "features/card_profile_v1.limit") == {
        "sources/cards.limit value",
        "features/card_profile_v1.* rows",
    }


def test_the_rows_of_a_group_are_decided_by_filters_keys_and_times() -> None:
    assert into(graph(), "features/card_profile_v1.*") == {
        "sources/cards.closed filter",
        "sources/cards.card_id key",
        "sources/cards.since time",
    }


def test_a_group_over_a_group_has_its_rows() -> None:
    assert "features/card_profile_v1.* rows" in into(graph(), "features/card_half_v1.*")


def test_an_input_comes_from_features_keys_and_the_time_that_is_asked_about() -> None:
    assert into(graph(), "fraud/input.margin") == {
        "features/shop_margin_v1.margin value",
        "features/card_profile_v1.home key",
        "sources/payments.card_id key",
        "sources/payments.ts time",
    }


def test_a_function_is_told_with_its_arguments() -> None:
    made = graph()
    assert made.node("fraud/input.distance").text == "distance(x, y)"
    assert into(made, "fraud/input.distance") >= {
        "sources/payments.amount value",
        "features/card_profile_v1.limit value",
    }


def test_an_aggregate_is_told_as_it_is_declared() -> None:
    assert graph().node("features/card_spend_v1.spend_1d").text == "sum(amount, 1d)"


def test_inputs_and_label_make_the_model_and_the_model_the_prediction() -> None:
    made = graph()
    assert into(made, "fraud/model") == {
        f"fraud/input.{name} value" for name in ("spend_1d", "half", "margin", "distance")
    } | {"fraud/label label"}
    assert into(made, "fraud/label") == {
        "sources/chargebacks.fee label",
        "sources/chargebacks.payment_id label",
        "sources/chargebacks.told label",
    }
    assert into(made, "fraud/prediction") == {"fraud/model value"}


def test_boxes_stand_right_of_what_they_need() -> None:
    levels = {box.key: box.level for box in graph().boxes}
    assert (levels["sources/cards"], levels["features/card_profile_v1"], levels["features/card_half_v1"]) == (0, 1, 2)
    assert (levels["fraud/view"], levels["fraud/model"], levels["fraud/predictions"]) == (3, 4, 5)


def test_everything_downstream_is_found_with_how_it_depends() -> None:
    found = graph().downstream(["sources/cards.closed"])
    assert found["features/card_profile_v1.limit"] == ("filter", "features/card_profile_v1.*")
    assert found["fraud/prediction"][0] == "filter"
    assert "features/card_spend_v1.spend_1d" not in found


def test_a_way_along_which_values_flow_counts_before_one_that_only_filters() -> None:
    nodes = graph().nodes[:4]
    a, b, c, d = (node.id for node in nodes)
    made = Graph((), nodes, (Edge(a, d, "filter"), Edge(a, b, "value"), Edge(b, c, "value"), Edge(c, d, "value")))
    assert made.downstream([a])[d] == ("value", c)


def test_one_services_part_has_nothing_of_the_others() -> None:
    made = graph().part("limits")
    assert {box.key for box in made.boxes} == {
        "sources/payments", "sources/cards", "sources/chargebacks", "features/card_profile_v1",
        "limits/view", "limits/model", "limits/predictions",
    }  # fmt: skip
    ids = {node.id for node in made.nodes}
    assert all(edge.source in ids and edge.target in ids for edge in made.edges)


def test_a_live_release_of_what_is_declared_needs_no_nodes_of_its_own() -> None:
    assert graph(fraud=None).live == (Live("fraud", "fraud-1", declared=True),)
    assert len(graph(fraud=None).nodes) == len(graph().nodes)


def test_a_live_release_of_an_earlier_declaration_has_inputs_of_its_own() -> None:
    made = graph(fraud=older(fraud.view.contract, without="half"))
    assert made.live == (Live("fraud", "fraud-1", declared=False),)
    assert "fraud-1/input.margin" in {node.id for node in made.nodes}
    assert "fraud-1/input.half" not in {node.id for node in made.nodes}


def test_a_graph_is_written_once_and_read_as_it_was(tmp_path: Path) -> None:
    assert load_graph(tmp_path) is None
    assert write_lineage(SERVICES, GROUPS, tmp_path)
    assert not write_lineage(SERVICES, GROUPS, tmp_path)
    assert load_graph(tmp_path) == graph()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "{}", "[", '{"boxes":[],"nodes":[],"edges":[],"format":99}'])
def test_a_file_that_is_no_graph_of_this_windrow_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert load_graph(tmp_path) is None


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StoreError, match="the lineage cannot be written .*Next: set WINDROW_HOME to a writable folder"):
        save_graph(graph(), tmp_path / "home")
