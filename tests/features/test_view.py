"""Feature views and the contract they promise, checked when they are declared."""

from __future__ import annotations

from typing import Any

import pytest

from tests.features.on_demand_functions import distance, hour_of
from windrow import Entity, Every, FeatureView, Source, feature_group, on_demand
from windrow.errors import DeclarationError, UnknownNameError

team = Entity("team", team="string")
card = Entity("card", card_id="int64")
games = Source(
    "games", event_time="ts", columns={"home": "string", "away": "string", "rank": "int64", "odds": "float64"}
)
payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64", "lat": "float64"})
customers = Source("customers", event_time="ts", columns={"card_id": "int64", "home_lat": "float64", "plan": "string"})
results = Source("results", event_time="ts", columns={"team": "string", "goals": "int64"})
other = Source("other", event_time="ts", columns={"x": "float64"})


@feature_group(team, ttl="30d")
def form(results):
    return results.select("team", "goals", doubled=results.goals * 2)


@feature_group(card)
def profile(customers):
    return customers.select("card_id", "home_lat", "plan")


def view(*features: Any, spine: Source | Every = payments) -> FeatureView:
    return FeatureView("v", spine=spine, features=features)


def test_features_keep_the_order_of_the_declaration() -> None:
    made = view(payments.amount, profile, on_demand(hour_of, at=payments.ts))
    assert made.contract.feature_names == ("amount", "home_lat", "plan", "hour_of")


def test_a_request_brings_what_is_used_and_may_bring_the_rest() -> None:
    contract = view(profile, payments.amount).contract
    assert [f.name for f in contract.request] == ["card_id", "amount"]
    assert [f.name for f in contract.optional] == ["lat"]


def test_two_roles_of_one_entity_are_two_lookups() -> None:
    made = view(form.of("home", prefix="home_"), form["goals"].of("away", prefix="away_"), spine=games)
    assert made.contract.feature_names == ("home_goals", "home_doubled", "away_goals")
    assert [lookup.keys for lookup in made.contract.lookups] == [{"team": "home"}, {"team": "away"}]
    assert made.groups == (form,)


def test_a_lookup_carries_the_ttl_and_fingerprint_of_its_group() -> None:
    lookup = view(form.of("home"), spine=games).contract.lookups[0]
    assert (lookup.group, lookup.ttl, lookup.fingerprint) == ("form_v1", 2_592_000_000_000, form.fingerprint)


def test_an_on_demand_input_that_is_no_feature_is_looked_up_without_becoming_one() -> None:
    contract = view(on_demand(distance, x=payments.lat, y=profile.home_lat)).contract
    assert contract.feature_names == ("distance",)
    assert contract.on_demand[0].inputs == {"x": "request.lat", "y": "stored.profile.home_lat"}
    assert contract.lookups[0].columns == {"profile.home_lat": "home_lat"}


def test_an_on_demand_input_that_is_a_feature_is_looked_up_once() -> None:
    contract = view(profile["home_lat"], on_demand(distance, x=payments.lat, y=profile.home_lat)).contract
    assert contract.on_demand[0].inputs["y"] == "stored.home_lat"
    assert len(contract.lookups) == 1


def test_the_time_of_the_spine_is_an_input() -> None:
    hourly = Every("1h", team)
    assert view(on_demand(hour_of, at=payments.ts)).contract.on_demand[0].inputs == {"at": "event_time"}
    assert view(on_demand(hour_of, at=hourly.event_time), spine=hourly).contract.on_demand[0].inputs == {
        "at": "event_time"
    }


def test_a_contract_carries_the_text_of_its_on_demand_module() -> None:
    assert "def hour_of(at):" in view(on_demand(hour_of, at=payments.ts)).contract.on_demand_source
    assert view(payments.amount).contract.on_demand_source == ""


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(DeclarationError, match="view cannot be called 'requests'"):
        FeatureView("requests", spine=payments, features=[payments.amount])


def test_a_view_without_features_is_refused() -> None:
    with pytest.raises(DeclarationError, match="view 'v' has no feature"):
        view()


def test_a_spine_that_lacks_a_key_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"the spine of view 'v' \(key of group 'form'\) has no column 'team'"):
        view(form, spine=games)


def test_a_role_under_an_unknown_field_is_refused() -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"the spine of view 'v' \(key of group 'form'\) has no column 'hom'.*did you mean 'home'",
    ):
        view(form.of("hom"), spine=games)


def test_a_key_of_another_dtype_is_refused() -> None:
    with pytest.raises(
        DeclarationError,
        match="view 'v': spine column 'rank' is int64, but key 'team' of group 'form' is string. Next: declare both with one dtype",
    ):
        view(form.of("rank"), spine=games)


@pytest.mark.parametrize("twice", [(form.of("home"), form.of("away")), (games.odds, games.odds)])
def test_two_features_of_one_name_are_refused(twice: tuple[Any, Any]) -> None:
    with pytest.raises(
        DeclarationError,
        match=r"view 'v' has two features called '(doubled|odds)'. Next: tell them apart with .of\(..., prefix",
    ):
        view(*twice, spine=games)


def test_a_column_of_another_source_is_no_feature() -> None:
    with pytest.raises(
        DeclarationError, match="view 'v': other.x cannot be a feature by itself. Next: select it from a group"
    ):
        view(other.x)


def test_the_time_itself_is_no_feature() -> None:
    with pytest.raises(DeclarationError, match=r"view 'v': payments.ts cannot be a feature by itself.*on_demand"):
        view(payments.ts)


def test_an_on_demand_input_from_elsewhere_is_refused() -> None:
    with pytest.raises(
        DeclarationError,
        match="on-demand feature 'hour_of' of view 'v' reads other.ts, which is neither a column of its spine nor of a feature group",
    ):
        view(on_demand(hour_of, at=other.ts))


def test_the_fingerprint_changes_with_the_order_of_features() -> None:
    assert view(payments.amount, payments.lat).fingerprint != view(payments.lat, payments.amount).fingerprint


def test_the_fingerprint_changes_with_a_group_below() -> None:
    @feature_group(card)
    def profile(customers):
        return customers.select("card_id", "plan", home_lat=customers.home_lat + 1)

    assert view(profile).contract.feature_names == ("plan", "home_lat")
    assert view(profile["plan"]).fingerprint != view(globals()["profile"]["plan"]).fingerprint


def test_a_time_is_no_model_input_by_itself() -> None:
    accounts = Source("accounts", event_time="ts", columns={"card_id": "int64", "opened": "timestamp"})
    card = Entity("card", card_id="int64")

    def profile(accounts: Any) -> Any:
        return accounts.select("card_id", "opened")

    profile.__globals__["accounts"] = accounts
    group = feature_group(card)(profile)
    with pytest.raises(DeclarationError, match="feature 'opened' is a time.*compute what matters from it"):
        FeatureView("fraud", spine=accounts, features=[group])
