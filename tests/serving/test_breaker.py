from __future__ import annotations

import pytest

from windrow.serving.breaker import Breaker


class Hand:
    """A clock whose hand is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def breaker(hand: Hand) -> Breaker:
    return Breaker(threshold=3, cool_down=1.0, longest=4.0, clock=hand)


def opened(breaker: Breaker) -> Breaker:
    for _ in range(3):
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not(breaker: Breaker) -> None:
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        outcome()
    assert (breaker.state, breaker.allows()) == ("closed", True)
    breaker.failed()
    assert (breaker.state, breaker.allows(), breaker.retry_after) == ("open", False, 1.0)


def test_after_the_cool_down_one_probe_is_let_through_and_its_success_closes(breaker: Breaker, hand: Hand) -> None:
    opened(breaker)
    hand.now += 1.0
    assert breaker.state == "half_open"
    assert [breaker.allows() for _ in range(4)] == [True, False, False, False]
    breaker.succeeded()
    assert (breaker.state, breaker.allows(), breaker.failures) == ("closed", True, 0)


def test_each_probe_that_fails_doubles_the_rest_up_to_the_longest(breaker: Breaker, hand: Hand) -> None:
    rests = []
    opened(breaker)
    for _ in range(4):
        hand.now += breaker.retry_after
        assert breaker.allows()
        breaker.failed()
        rests.append(breaker.retry_after)
    assert rests == [2.0, 4.0, 4.0, 4.0]
    hand.now += 4.0
    assert breaker.allows()
    breaker.succeeded()
    assert opened(breaker).retry_after == 1.0


def test_answers_that_were_under_way_when_it_opened_do_not_lengthen_its_rest(breaker: Breaker, hand: Hand) -> None:
    opened(breaker)
    hand.now += 0.5
    for _ in range(60):
        breaker.failed()
    assert breaker.retry_after == 0.5


def test_a_probe_that_never_says_how_it_ended_is_not_the_last(breaker: Breaker, hand: Hand) -> None:
    opened(breaker)
    hand.now += 1.0
    assert (breaker.allows(), breaker.allows()) == (True, False)
    hand.now += 1.0
    assert breaker.allows()


def test_what_costs_callers_a_wait_opens_it_at_once(breaker: Breaker) -> None:
    breaker.failed(times=3)
    assert breaker.state == "open"
