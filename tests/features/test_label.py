"""Labels: what is asked, when it matures, and what absence means."""

from __future__ import annotations

from typing import Any

import pytest

from windrow import Entity, Label, Source, feature_group
from windrow.errors import DeclarationError, UnknownNameError

DAY = 86_400_000_000
chargebacks = Source("chargebacks", event_time="ts", columns={"payment_id": "int64", "cost": "float64"})
demand = Source("demand", event_time="ts", delay="15d", columns={"area": "string", "mw": "float64"})


def test_a_joined_label_is_a_class_unless_a_column_is_named() -> None:
    assert Label.joined(chargebacks, on="payment_id", matures_after="30d").binary
    assert not Label.joined(chargebacks, on="payment_id", matures_after="30d", column="cost").binary


def test_absence_is_unknown_unless_it_is_declared() -> None:
    assert Label.joined(chargebacks, on="payment_id", matures_after="30d").absent is None
    assert Label.joined(chargebacks, on="payment_id", matures_after="30d", absent=0).absent == 0


def test_an_event_within_a_window_matures_when_the_window_and_the_delay_are_over() -> None:
    label = Label.within(demand, "30d")
    assert (label.window, label.matures_after, label.absent, label.binary) == (30 * DAY, 45 * DAY, 0, True)


def test_a_value_ahead_matures_when_it_is_there() -> None:
    label = Label.value(demand, "mw", ahead="24h")
    assert (label.window, label.matures_after, label.absent, label.binary) == (DAY, 16 * DAY, None, False)


arrivals = Source("arrivals", event_time="ts", known_at="came", columns={"area": "string", "mw": "float64"})


@feature_group(Entity("area", area="string"))
def rise(demand):
    return demand.select("area", up=demand.mw > 100, size=demand.mw)


@pytest.mark.parametrize(
    ("declare", "called"),
    [
        (lambda: Label.value(arrivals, "mw", ahead="1d"), "source 'arrivals'"),
        (lambda: Label.within(arrivals, "1d"), "source 'arrivals'"),
        (lambda: Label.value(rise, "size", ahead="1d"), "feature group 'rise'"),
    ],
)
def test_where_outcomes_may_come_at_any_time_after_their_own_the_label_says_how_late(declare: Any, called: str) -> None:
    with pytest.raises(DeclarationError, match=f"a label from {called} does not say how long.*write matures_after="):
        declare()


def test_a_label_may_be_what_a_feature_group_says_later_and_a_bool_of_it_is_a_class() -> None:
    up, size = (Label.value(rise, name, ahead="5m", matures_after="6m") for name in ("up", "size"))
    assert (up.source, up.binary, size.binary) == (rise, True, False)
    assert (up.matures_after, up.columns) == (360_000_000, {"area": "string", "up": "bool", "size": "float64"})


def test_an_unknown_feature_of_a_group_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="feature group 'rise' has no column 'upp'.*did you mean 'up'"):
        Label.value(rise, "upp", ahead="5m", matures_after="6m")


def test_a_declared_maturity_is_kept() -> None:
    assert Label.value(demand, "mw", ahead="24h", matures_after="20d").matures_after == 20 * DAY


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(
        UnknownNameError, match="source 'chargebacks' has no column 'payment'.*did you mean 'payment_id'"
    ):
        Label.joined(chargebacks, on="payment", matures_after="30d")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Label.value(demand, "mv", ahead="1h"),
        lambda: Label.joined(demand, on="area", column="mv", matures_after="1d"),
    ],
)
def test_an_unknown_column_is_refused(declare: Any) -> None:
    with pytest.raises(UnknownNameError, match="source 'demand' has no column 'mv'.*did you mean 'mw'"):
        declare()


def test_a_value_must_be_a_number() -> None:
    with pytest.raises(
        DeclarationError, match="label column 'area' of source 'demand' is string. Next: choose a number"
    ):
        Label.value(demand, "area", ahead="1h")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Label.within(demand, "month"),
        lambda: Label.value(demand, "mw", ahead="month"),
        lambda: Label.joined(demand, on="area", matures_after="month"),
    ],
)
def test_a_window_is_a_duration(declare: Any) -> None:
    with pytest.raises(DeclarationError, match="is 'month', which is not a duration"):
        declare()


def test_the_fingerprint_changes_with_every_part() -> None:
    labels = [
        Label.joined(chargebacks, on="payment_id", matures_after="30d"),
        Label.joined(chargebacks, on="payment_id", matures_after="31d"),
        Label.joined(chargebacks, on="payment_id", matures_after="30d", absent=0),
        Label.joined(chargebacks, on="payment_id", matures_after="30d", column="cost"),
        Label.within(chargebacks, "30d"),
        Label.within(demand, "30d"),
        Label.value(demand, "mw", ahead="24h"),
    ]
    assert len({label.fingerprint for label in labels}) == 7
