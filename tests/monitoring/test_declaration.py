from __future__ import annotations

from typing import Any

import pytest

from windrow.errors import DeclarationError, UnknownNameError
from windrow.features.label import Label
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.models.service import Drift, PredictionService, RandomSplit

customers = Source(
    "customers",
    id="customer_id",
    event_time="at",
    columns={"customer_id": "int64", "tenure": "int64", "month": "int64"},
)
left = Source("left", id="customer_id", event_time="at", columns={"customer_id": "int64"})


def service(*monitors: Drift) -> PredictionService:
    view = FeatureView("churn", spine=customers, features=[customers.tenure, customers.month])
    label = Label.joined(left, on="customer_id", absent=0, matures_after="30d")
    return PredictionService("churn", view, label, model="train:model", split=RandomSplit(), monitors=monitors)


def test_an_ignored_feature_must_be_one_of_the_view() -> None:
    with pytest.raises(
        UnknownNameError, match=r"ignored by monitor 'drift'\) has no feature 'mont'.*did you mean 'month'"
    ):
        service(Drift(ignore=["mont"]))


def test_an_ignored_feature_changes_the_fingerprint_of_the_service() -> None:
    assert service(Drift()).fingerprint != service(Drift(ignore=["month"])).fingerprint


def test_two_monitors_need_two_names() -> None:
    with pytest.raises(DeclarationError, match=r"two monitors called 'drift'. Next: tell them apart: Drift\(name="):
        service(Drift(window="7d"), Drift(window="30d"))


def test_two_monitors_with_two_names_are_fine() -> None:
    assert [m.name for m in service(Drift(), Drift(window="7d", name="last_week")).monitors] == ["drift", "last_week"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"window": "30 days"}, "'30 days', which is not a duration"),
        ({"window": "0d"}, "holds nothing"),
        ({"effect": 0.0}, "never or always exceeded. Next: give a distance between 0 and 0.83"),
        ({"effect": 0.9}, "never or always exceeded"),
        ({"min_rows": 0}, "judges nothing"),
        ({"name": "../../etc"}, "monitor name '../../etc' is not lower snake case"),
        ({"ignore": "month"}, r"is one text. Next: write ignore=\['month'\]"),
    ],
)
def test_a_monitor_that_cannot_work_is_refused_when_declared(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        Drift(**wrong)
