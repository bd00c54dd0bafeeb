"""What a service does when it cannot answer as it should is declared, checked, and in its fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.models.football import football
from tests.models.worlds import fraud
from windrow import Online
from windrow.errors import DeclarationError
from windrow.models.policies import Policies


def test_what_is_not_declared_is_as_it_always_was() -> None:
    assert Online().policies_for(()) == Policies() == Policies(
        deadline_ms=800, expired="predict", store_away="refuse", golden=True, constant=None, defaults={}
    )  # fmt: skip


def test_a_fallback_is_golden_a_constant_or_both_in_this_order() -> None:
    made = [Online(fallback=chain).policies_for(()) for chain in ("golden", 0.1, ["golden", 0.1], [])]
    assert [(p.golden, p.constant) for p in made] == [(True, None), (False, 0.1), (True, 0.1), (False, None)]


def test_probabilities_by_name_come_in_the_order_of_the_classes() -> None:
    online = Online(fallback={"away": 0.75, "home": 0.25})
    assert online.policies_for(["home", "draw", "away"]).constant == (0.25, 0.0, 0.75)


@pytest.mark.parametrize(
    "change", [{"deadline_ms": 100}, {"fallback": 0.1}, {"expired": "refuse"}, {"store_away": "predict"}]
)
def test_every_part_of_it_is_in_the_fingerprint(change: dict[str, Any]) -> None:
    assert fraud(online=Online(**change)).fingerprint != fraud(online=Online()).fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Online(deadline_ms=0), r"Online\(deadline_ms=0\) is no deadline. Next: give milliseconds"),
        (lambda: Online(deadline_ms=10), r"Online\(p99_ms=50\) is longer than its deadline of 10 ms. Next: raise the deadline"),
        (lambda: Online(expired="drop"), "has no policy expired 'drop'"),
        (lambda: Online(store_away="fallback"), r"Online\(store_away='fallback'\) has nothing to fall back to"),
        (lambda: Online(fallback="silver"), "names 'silver', and only the golden release has a name there"),
        (lambda: Online(fallback=[0.1, "golden"]), "what follows a constant in .* would never answer. Next: write \"golden\" first"),
        (lambda: Online(fallback=["golden", "golden"]), "would never answer"),
        (lambda: Online(fallback=[None]), r"Online\(fallback=...\) holds NoneType"),
        (lambda: Online(fallback=float("nan")), r"Online\(fallback=...\) holds float"),
        (lambda: fraud(online=Online(fallback=1.5)), "fallback= of service 'fraud' is 1.5, which is no probability"),
        (lambda: fraud(online=Online(fallback={"a": 1.0})), "fallback= of service 'fraud' is no number"),
        (lambda: fraud(online=Online(defaults={"amount": 1.0})), "has no stored feature 'amount'"),
        (lambda: fraud(online=Online(defaults={"limit": "much"})), "the default 'much' of feature 'limit' .* is no"),
        (lambda: football(online=Online(fallback=0.5)), "is one number for 3 classes. Next: give probabilities"),
        (lambda: football(online=Online(fallback={"hme": 1.0})), "has no class 'hme'"),
        (lambda: football(online=Online(fallback={"home": 0.5})), "holds no probabilities: they are from 0 to 1 and add up to 1"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_when_it_is_declared(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make()
