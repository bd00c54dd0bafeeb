"""Nothing that is known later changes an answer about now."""

from __future__ import annotations

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.on_demand_functions import above
from tests.laws.oracle import Row
from tests.laws.test_point_in_time import CALM, answers, join
from tests.laws.worlds import World, worlds
from windrow import Entity, FeatureView, Source, feature_group, on_demand
from windrow.testing import no_look_ahead

card = Entity("card", card_id="int64")
payments = Source("payments", event_time="ts", columns={"card_id": "int64", "amount": "float64"})
reports = Source("reports", event_time="ts", known_at="loaded", columns={"card_id": "int64", "score": "float64"})
ROWS = [{"card_id": i % 2, "amount": float(i), "ts": f"2026-01-0{1 + i}"} for i in range(6)]


@settings(max_examples=4, **CALM)
@given(worlds(), st.integers(0, 15), st.integers(0, 3))
def test_rows_known_later_than_t_change_nothing_at_t(world: World, t: int, move: int) -> None:
    def past(rows: list[Row]) -> list[Row]:
        return [r for r in rows if max(r.event_time, r.known_at) <= t]

    def other(rows: list[Row]) -> list[Row]:
        later = [r for r in rows if max(r.event_time, r.known_at) > t]
        return [r._replace(event_time=r.event_time - move, known_at=t + 1, values={**r.values, "n": -1}) for r in later]

    now = world._replace(asked=[(request, at) for request, at in world.asked if at <= t])
    expected = answers(join(now))
    assert answers(join(now.with_rows(past))) == expected
    assert answers(join(now.with_rows(lambda rows: [*other(rows), *past(rows)]))) == expected


def before(payments):
    """Mean of the payments so far."""
    so_far = ibis.cumulative_window(group_by=payments.card_id, order_by=payments.ts)
    return payments.select("card_id", mean=payments.amount.mean().over(so_far))


def after(payments):
    """The next payment: what no prediction can know."""
    by_time = ibis.window(group_by=payments.card_id, order_by=payments.ts)
    return payments.select("card_id", following=payments.amount.lead().over(by_time))


def of_all(payments):
    """A statistic of all rows, before any split."""
    return payments.select("card_id", scaled=payments.amount - payments.amount.mean())


def loaded(reports):
    """The newest report by event time, although reports arrive late."""
    so_far = ibis.cumulative_window(group_by=reports.card_id, order_by=reports.ts)
    return reports.select("card_id", worst=reports.score.max().over(so_far))


def test_a_window_over_the_past_passes() -> None:
    no_look_ahead(feature_group(card)(before), payments=ROWS)


def test_a_shift_into_the_future_is_caught() -> None:
    with pytest.raises(
        AssertionError, match=r"'following' of 'after' reads the future: at 2026-01-01.* it is 2\.0, but None"
    ):
        no_look_ahead(feature_group(card)(after), payments=ROWS)


def test_a_statistic_of_all_rows_is_caught() -> None:
    with pytest.raises(AssertionError, match="'scaled' of 'of_all' reads the future"):
        no_look_ahead(feature_group(card)(of_all), payments=ROWS)


def test_a_window_over_rows_that_arrive_late_is_caught() -> None:
    late = [
        {"card_id": 1, "score": 9.0, "ts": "2026-01-01", "loaded": "2026-01-05"},
        {"card_id": 1, "score": 1.0, "ts": "2026-01-02", "loaded": "2026-01-02"},
    ]
    with pytest.raises(AssertionError, match="'worst' of 'loaded' reads the future"):
        no_look_ahead(feature_group(card)(loaded), reports=late)


def test_a_view_of_a_group_that_reads_the_past_passes() -> None:
    group = feature_group(card)(before)
    view = FeatureView(
        "v", spine=payments, features=[group, payments.amount, on_demand(above, a=payments.amount, b=group.mean)]
    )
    no_look_ahead(view, payments=ROWS)


def test_a_view_of_a_group_that_reads_the_future_is_caught() -> None:
    view = FeatureView("v", spine=payments, features=[feature_group(card)(after)])
    with pytest.raises(AssertionError, match="'following' of 'v' reads the future"):
        no_look_ahead(view, payments=ROWS)
