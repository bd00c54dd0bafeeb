from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from windrow.errors import RequestError, StoreError
from windrow.features.contract import Contract, Lookup, OnDemand, canonical, on_demand_input
from windrow.features.on_demand import load_functions
from windrow.schema import Field, Status
from windrow.serving.transformer import Transformer
from windrow.stores.online.store import OnlineStore, Row, open_online

SOURCE = """
import numpy as np

def distance(x, y):
    return np.abs(x - y)

def hour(at):
    return at.astype("datetime64[h]").astype(int) % 24

def speak(plan, amount):
    return np.array([f"{p}:{a:.0f}" for p, a in zip(plan, amount)], dtype=object)
"""
CARD = Lookup(
    "card_v1",
    "f",
    {"card_id": "card_id"},
    {"limit": "limit", "opened": "opened", "plan": "plan", "vip": "vip", "card.x": "x"},
    {"limit": "int64", "opened": "timestamp", "plan": "string", "vip": "bool", "card.x": "float64"},
    ttl=100,
)
SHOP = Lookup("shop_v1", "f", {"shop": "shop", "area": "area"}, {"size": "size"}, {"size": "float32"})
FUNCTIONS = (
    OnDemand(
        "distance", "distance", "float32", {"x": "request.x", "y": "stored.card.x"}, {"x": "float64", "y": "float64"}
    ),
    OnDemand("hour", "hour", "int64", {"at": "event_time"}, {"at": "timestamp"}),
    OnDemand(
        "speak",
        "speak",
        "string",
        {"plan": "stored.plan", "amount": "request.amount"},
        {"plan": "string", "amount": "float64"},
    ),
)
REQUEST = (
    Field("card_id", "int64"),
    Field("shop", "string"),
    Field("area", "int32"),
    Field("x", "float64"),
    Field("amount", "float64"),
)
NUMBERS = ("opened", "size", "amount", "limit", "vip", "distance", "hour")
DTYPES = {"opened": "timestamp", "size": "float32", "amount": "float64", "limit": "int64", "vip": "bool"}
DTYPES |= {"distance": "float32", "hour": "int64", "plan": "string", "speak": "string"}


def contract(*features: str) -> Contract:
    used = [f for f in FUNCTIONS if f.name in features]
    fields = tuple(Field(name, DTYPES[name]) for name in features)
    return Contract(
        view="v", spine="s", request=REQUEST, optional=(), lookups=(CARD, SHOP), on_demand=tuple(used),
        features=fields, on_demand_source=SOURCE,
    )  # fmt: skip


AT = 5 * 3_600_000_000  # when the cards were stored, and what they are asked about: 05:00
CARDS = {1: (500, 7_500_000, "gold", True, 1.5), 2: (None, None, None, None, None), 3: (2**53 + 1, 0, "", False, -2.25)}


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    url = f"lmdb://{tmp_path_factory.mktemp('store')}/online"
    with open_online(url, write=True) as store:
        columns = ["limit", "vip", "plan", "x", "opened"]
        cards = [((k,), Row(AT, AT, k, (v[0], v[3], v[2], v[4], v[1]))) for k, v in CARDS.items()]
        late = ((9,), Row(AT, AT + 1000, 9, (1, True, "late", 0.0, 0)))
        store.write("card_v1", columns, [*cards, late])
        store.write("shop_v1", ["size"], [(("corner", 5), Row(0, 0, 1, (3.25,)))])
    with open_online(url) as store:
        yield store


def row(card: int = 1, **values: Any) -> dict[str, Any]:
    return {"card_id": card, "shop": "corner", "area": 5, "x": 4.0, "amount": 20.0, **values}


def statuses(made: Any, row: int = 0) -> dict[str, str]:
    return {name: Status(status).name.lower() for name, status in made.statuses[row].items()}


def test_a_vector_has_the_contracts_order_whatever_the_stored_order(online: OnlineStore) -> None:
    made = Transformer(contract(*NUMBERS), online).vectors([row()], [AT])
    assert made.names == NUMBERS
    assert made.matrix is not None
    assert made.matrix.dtype == np.float32
    assert made.matrix.tolist() == [[7.5, 3.25, 20.0, 500.0, 1.0, 2.5, 5.0]]
    assert set(statuses(made).values()) == {"present"}


def test_text_features_come_as_columns_with_one_word_for_missing(online: OnlineStore) -> None:
    made = Transformer(contract("plan", "amount", "speak"), online).vectors([row(1), row(2)], [AT, AT])
    assert made.matrix is None
    assert {name: values.tolist() for name, values in made.frame.items()} == {
        "plan": ["gold", "(missing)"],
        "amount": [20.0, 20.0],
        "speak": ["gold:20", "(missing):20"],
    }


def test_a_null_value_is_missing_and_its_status_says_null(online: OnlineStore) -> None:
    made = Transformer(contract("limit", "size", "distance"), online).vectors([row(2)], [AT])
    assert statuses(made) == {"limit": "null", "size": "present", "distance": "null"}
    assert made.rows() == [{"limit": None, "size": 3.25, "distance": None}]
    assert made.unknown == {}


def test_an_unknown_entity_is_missing_and_its_status_says_not_found(online: OnlineStore) -> None:
    made = Transformer(contract("limit", "size"), online).vectors([row(77), row(1, area=6)], [AT, AT])
    assert statuses(made, 0) == {"limit": "not_found", "size": "present"}
    assert statuses(made, 1) == {"limit": "present", "size": "not_found"}
    assert made.unknown == {0: ("card_v1",), 1: ("shop_v1",)}


def test_a_time_before_the_newest_stored_values_is_refused_as_they_would_look_ahead(online: OnlineStore) -> None:
    transformer = Transformer(contract("limit"), online)
    for card, time in [(1, AT - 1), (9, AT + 999)]:
        with pytest.raises(RequestError, match="event_time lies before the newest stored values of group 'card_v1'"):
            transformer.vectors([row(card)], [time])
    assert statuses(transformer.vectors([row(1)], [AT])) == {"limit": "present"}


def test_a_value_older_than_its_ttl_at_the_time_asked_about_is_expired(online: OnlineStore) -> None:
    transformer = Transformer(contract("limit", "size"), online)
    assert statuses(transformer.vectors([row()], [AT + 100])) == {"limit": "present", "size": "present"}
    made = transformer.vectors([row()], [AT + 101])
    assert statuses(made) == {"limit": "expired", "size": "present"}
    assert made.rows()[0]["limit"] is None
    assert made.unknown == {}


def test_a_group_that_was_never_published_is_not_found_until_it_is(tmp_path: Path) -> None:
    with open_online(f"lmdb://{tmp_path}/online", write=True) as store:
        transformer = Transformer(contract("size"), store)
        assert statuses(transformer.vectors([row()], [5])) == {"size": "not_found"}
        store.write("shop_v1", ["other", "size"], [(("corner", 5), Row(0, 0, 1, (9.0, 3.25)))])
        assert transformer.vectors([row()], [5]).rows() == [{"size": 3.25}]


def test_a_stored_group_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    with open_online(f"lmdb://{tmp_path}/online", write=True) as store:
        store.write("shop_v1", ["sise"], [(("corner", 5), Row(0, 0, 1, (9.0,)))])
        with pytest.raises(StoreError, match="'shop_v1' is stored without the column 'size'. It has 'sise'"):
            Transformer(contract("size"), store)


@st.composite
def _requests(draw: st.DrawFn) -> list[dict[str, Any]]:
    number = st.none() | st.floats(-3e38, 3e38) | st.sampled_from([0.0, -0.0, 1e-45, 16777217.0])
    one = st.builds(
        row, st.sampled_from([1, 2, 3, 77]), x=number, amount=number, shop=st.sampled_from(["corner", "none"])
    )
    return draw(st.lists(one, min_size=1, max_size=5))


@pytest.mark.parametrize("features", [NUMBERS, (*NUMBERS, "plan", "speak"), ("limit",), ("plan",)])
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_requests())
def test_vectors_equal_the_canonical_form_of_the_same_values(
    online: OnlineStore, features: tuple[str, ...], rows: list[dict[str, Any]]
) -> None:
    wanted = contract(*features)
    times = [AT + i * 20 for i in range(len(rows))]
    with np.errstate(all="ignore"):
        made = Transformer(wanted, online).vectors(rows, times)
        expected = canonical(wanted, _by_hand(wanted, rows, times))
    for name in features:
        np.testing.assert_array_equal(made.frame[name], expected[name], err_msg=name, strict=True)


def _by_hand(wanted: Contract, rows: list[dict[str, Any]], times: list[int]) -> dict[str, Any]:
    """The columns of the same rows, put together without the transformer."""
    nothing = (None,) * 5
    cards = [CARDS.get(r["card_id"], nothing) for r in rows]
    columns: dict[str, Any] = dict(
        zip(("limit", "opened", "plan", "vip", "card.x"), zip(*cards, strict=True), strict=True)
    )
    columns["opened"] = np.array(columns["opened"], dtype="datetime64[us]")
    columns["size"] = [3.25 if r["shop"] == "corner" else None for r in rows]
    columns |= {name: [r[name] for r in rows] for name in ("x", "amount")}
    functions = load_functions(SOURCE, ["distance", "hour", "speak"], where="test")
    for spec in wanted.on_demand:
        given_ = {p: times if ref == "event_time" else columns[ref.partition(".")[2]] for p, ref in spec.inputs.items()}
        inputs = {p: on_demand_input(spec.dtypes[p], values) for p, values in given_.items()}
        columns[spec.name] = functions[spec.function](**inputs)
    return columns
