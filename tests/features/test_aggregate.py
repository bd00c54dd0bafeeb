from __future__ import annotations

from typing import Any

import msgspec
import pytest

from windrow import Entity, FeatureView, Source, agg, aggregate
from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.agg import Agg, Aggregate
from windrow.features.contract import Contract
from windrow.features.source import Constant

DAY = 86_400_000_000
card, merchant = Entity("card", card_id="int64"), Entity("merchant", merchant_id="string")
COLUMNS = {"card_id": "int64", "merchant_id": "string", "amount": "float64", "won": "bool"}
payments = Source("payments", id="payment_id", event_time="ts", columns={"payment_id": "int64", **COLUMNS})


def declared(**features: Any) -> Any:
    return aggregate("spend", payments, by=card, features=features)


def test_features_have_the_dtypes_of_their_functions() -> None:
    made = declared(n=agg.count("1h"), s=agg.sum("won", "1h"), low=agg.min("amount", "1d"), who=agg.last("merchant_id", "7d"),
                    at=agg.first("ts", "7d"), d=agg.distinct("merchant_id", "7d"), run=agg.streak("won", "90d"))  # fmt: skip
    assert made.features == {
        "n": "int64", "s": "float64", "low": "float64", "who": "string", "at": "timestamp", "d": "int64", "run": "int64",
    }  # fmt: skip
    assert (made.table_name, made.key, made.inputs) == ("spend_v1", "features/spend_v1", {"payments": payments})


@pytest.mark.parametrize(
    ("window", "hop"),
    [("1h", 60), ("61m", 300), ("1d", 300), ("2d", 3600), ("14d", 3600), ("15d", 86_400), ("90d", 86_400)],
)
def test_the_hop_follows_from_the_window(window: str, hop: int) -> None:
    assert agg.count(window).hop == hop * 1_000_000


def test_a_delay_rounds_the_head_of_the_window_too() -> None:
    made = agg.count("1d", delay="1d", hop="1h")
    assert (made.head(3 * DAY + 7), made.tail(3 * DAY + 7)) == (2 * DAY, DAY)
    exact = agg.count("1d", delay="1d", hop=None)
    assert (exact.head(3 * DAY + 7), exact.tail(3 * DAY + 7)) == (2 * DAY + 7, DAY + 7)


def test_the_fingerprint_changes_with_a_function_and_not_with_the_description() -> None:
    one = aggregate("spend", payments, by=card, features={"n": agg.count("1h")}, description="a")
    same = aggregate("spend", payments, by=card, features={"n": agg.count("1h")}, description="b")
    other = [
        declared(n=agg.count("1h", hop="5m")),
        declared(n=agg.count("2h")),
        declared(n=agg.count("1h", where="won")),
    ]
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, *(group.fingerprint for group in other)}) == 4


def test_each_feature_names_the_column_it_comes_from() -> None:
    made = declared(s=agg.sum("amount", "1d"), big=agg.count("1d", where="won"), n=agg.count("1d"))
    assert made.column_origins == {
        "s": [("sources/payments", "amount")], "big": [("sources/payments", "won")], "n": [("sources/payments", "ts")],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: declared(x=agg.sum("amout", "1d")), "did you mean 'amount'"),
        (lambda: declared(x=agg.sum("merchant_id", "1d")), "sum of 'merchant_id', which is string. sum takes bool"),
        (lambda: declared(x=agg.streak("amount", "1d")), "streak takes bool"),
        (lambda: declared(x=agg.count("1d", where="amount")), "where='amount' is float64. Bool columns of source 'payments': 'won'"),
        (lambda: declared(card_id=agg.count("1d")), "has a feature called 'card_id', like a key or a time"),
        (lambda: declared(X=agg.count("1d")), "is not lower snake case"),
        (lambda: declared(x="1d"), "is the text '1d'. Next: write agg.sum"),
        (lambda: declared(), "makes no feature"),
        (lambda: declared(x=agg.last("ts", "1d", include_current=True)), "it is the time asked about"),
        (lambda: agg.count("1h", hop="2h"), "has a hop of 2h"),
        (lambda: agg.count("0h"), "window of no length"),
        (lambda: agg.count("1h", delay="1h", include_current=True), "includes the current event, which its delay keeps out"),
        (lambda: aggregate("spend", payments, by=Entity("shop", shop_id="int64"), features={"n": agg.count("1h")}),
         "has no column 'shop_id'"),
        (lambda: aggregate("spend", payments, by=Entity("card", card_id="string"), features={"n": agg.count("1h")}),
         "key 'card_id' is int64 in source 'payments', but entity 'card' says string"),
        (lambda: aggregate("spend", Source("s", event_time=Constant("2020-01-01"), columns=COLUMNS), by=card,
                           features={"n": agg.count("1h")}), "all rows of source 's' have one time"),
        (lambda: aggregate("spend", payments, by=card, features={"n": agg.count("1h")}, version=0), "has version 0"),
        (lambda: aggregate("spend", "payments", by=card, features={"n": agg.count("1h")}), "is the text 'payments'"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_when_it_is_declared(made: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message.replace("(", r"\(")):
        made()


def test_an_unknown_feature_is_refused_with_the_closest_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'spend_1d'"):
        declared(spend_1d=agg.sum("amount", "1d"))["spend_1h"]


def test_a_view_carries_the_functions_and_asks_for_what_they_read_of_the_request() -> None:
    group = declared(n=agg.count("1h"), top=agg.max("amount", "1d", include_current=True))
    contract = FeatureView("fraud", spine=payments, features=[group]).contract
    assert contract.lookups[0].aggregate == Aggregate(
        source="sources/payments", keys=("card_id",), id="payment_id", columns={"amount": "float64"},
        features={"n": Agg("count", DAY // 24, 60_000_000), "top": Agg("max", DAY, 300_000_000, "amount", include_current=True)},
    )  # fmt: skip
    assert [f.name for f in contract.request] == ["card_id", "amount"]
    assert msgspec.json.decode(msgspec.json.encode(contract), type=Contract) == contract
    assert contract.timed


def test_a_view_on_another_spine_cannot_include_the_current_event() -> None:
    group = declared(n=agg.count("1h", include_current=True), m=agg.count("1h"))
    loans = Source("loans", event_time="ts", columns={"card_id": "int64"})
    with pytest.raises(DeclarationError, match="feature 'n' of group 'spend' includes the current event"):
        FeatureView("v", spine=loans, features=[group])
    view = FeatureView("v", spine=loans, features=[group["m"]])
    assert [f.name for f in view.contract.request] == ["card_id"]
    assert not view.contract.timed


def test_a_group_in_a_role_cannot_include_the_current_event() -> None:
    pairs = Source("pairs", event_time="ts", columns={"card_id": "int64", "other": "int64"})
    group = aggregate("seen", pairs, by=card, features={"n": agg.count("1h", include_current=True)})
    with pytest.raises(DeclarationError, match="includes the current event, which is no row of its spine"):
        FeatureView("v", spine=pairs, features=[group.of("other", prefix="other_")])


def test_its_card_in_a_notebook_names_functions_and_source() -> None:
    card_html = declared(spend_1d=agg.sum("amount", "1d"))._repr_html_()
    assert "sum(amount, 1d)" in card_html
    assert "sources/payments" in card_html


def test_a_condition_that_is_no_name_of_a_column_is_refused() -> None:
    with pytest.raises(
        DeclarationError, match="a column of feature 'x' of aggregate group 'spend' is the function '<lambda>'"
    ):
        aggregate("spend", payments, by=card, features={"x": agg.count("1d", where=lambda row: row.amount > 1)})  # type: ignore[arg-type, misc]


def test_a_version_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(DeclarationError, match="version= of aggregate group 'spend' is the text '1'"):
        aggregate("spend", payments, by=card, version="1", features={"x": agg.count("1d")})  # type: ignore[arg-type]
