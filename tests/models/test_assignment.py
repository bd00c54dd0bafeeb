"""Laws of assignment: sticky, uniform, independent between experiments, monotone in the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windrow.models.assignment import rendezvous, uniform, unit_of
from windrow.models.experiment import HOLDOUT, Arm, Experiment, assigner, free_buckets, unit_reader

UNITS = [unit_of(card) for card in range(4000)]
CRITICAL = {1: 15.1, 2: 18.4, 9: 33.7, 19: 50.8}  # chi-square at one in ten thousand, by degrees of freedom

_weights = st.lists(st.floats(0.01, 10), min_size=2, max_size=5)
_units = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text()).map(unit_of)


def experiment(*weights: float, name: str = "trial", **facts: object) -> Experiment:
    total = sum(weights)
    golden, *others = (weight / total for weight in weights)
    arms = [Arm(f"arm_{i}", weight, f"fraud-{i}") for i, weight in enumerate(others)]
    return Experiment(service="fraud", name=name, arms=(Arm("golden", golden), *arms), **facts)  # type: ignore[arg-type]


def chi_square(found: Sequence[int], expected: Sequence[float]) -> float:
    return sum((f - e) ** 2 / e for f, e in zip(found, expected, strict=True))


def test_the_numbers_of_a_salt_are_uniform() -> None:
    number = uniform("a")
    tens = Counter(int(number(unit) * 10) for unit in UNITS)
    assert chi_square([tens[i] for i in range(10)], [400.0] * 10) < CRITICAL[9]


@given(weights=_weights, name=st.from_regex(r"[a-z]{1,8}", fullmatch=True))
@settings(max_examples=20, deadline=None)
def test_each_arm_gets_the_share_of_its_weight(weights: list[float], name: str) -> None:
    arm_of = assigner(experiment(*weights, name=name))
    found = Counter(arm_of(unit) for unit in UNITS)
    arms = experiment(*weights).arms
    for arm in arms:
        spread = (len(UNITS) * arm.weight * (1 - arm.weight)) ** 0.5
        assert abs(found[arm.name] - len(UNITS) * arm.weight) < 6 * spread + 1


def test_arms_pass_a_chi_square_test_against_their_weights() -> None:
    found = Counter(map(assigner(experiment(0.5, 0.3, 0.2)), UNITS))
    expected = [len(UNITS) * share for share in (0.5, 0.3, 0.2)]
    assert chi_square([found["golden"], found["arm_0"], found["arm_1"]], expected) < CRITICAL[2]


@given(weights=_weights, unit=_units)
def test_a_unit_gets_the_same_arm_whoever_asks_and_whenever(weights: list[float], unit: bytes) -> None:
    assert assigner(experiment(*weights))(unit) == assigner(experiment(*weights))(unit)


@given(before=_weights, data=st.data(), units=st.lists(_units, min_size=1, max_size=50))
@settings(deadline=None)
def test_a_unit_moves_only_to_an_arm_whose_weight_grew_by_a_larger_factor(
    before: list[float], data: st.DataObject, units: list[bytes]
) -> None:
    after = data.draw(st.lists(st.floats(0.01, 10), min_size=len(before), max_size=len(before)))
    old, new = experiment(*before), experiment(*after)
    grown = {a.name: b.weight / a.weight for a, b in zip(old.arms, new.arms, strict=True)}
    first, second = assigner(old), assigner(new)
    for unit in units:
        left, joined = str(first(unit)), str(second(unit))
        assert left == joined or grown[joined] > grown[left] * (1 - 1e-9)


@given(weights=_weights, factor=st.floats(1, 20), data=st.data())
@settings(max_examples=30, deadline=None)
def test_raising_one_weight_moves_units_only_into_that_arm(
    weights: list[float], factor: float, data: st.DataObject
) -> None:
    raised = data.draw(st.integers(0, len(weights) - 1))
    more = [weight * (factor if i == raised else 1) for i, weight in enumerate(weights)]
    old, new = experiment(*weights), experiment(*more)
    first, second = assigner(old), assigner(new)
    moved = {second(unit) for unit in UNITS[:300] if first(unit) != second(unit)}
    assert moved <= {new.arms[raised].name}


def test_the_arms_of_two_experiments_are_independent() -> None:
    one, other = (assigner(experiment(0.5, 0.5, name=name)) for name in ("first", "second"))
    pairs = Counter((one(unit), other(unit)) for unit in UNITS)
    assert len(pairs) == 4
    assert chi_square(list(pairs.values()), [1000.0] * 4) < CRITICAL[2]


def test_the_hold_out_is_independent_of_the_arms_and_keeps_its_units_when_weights_change() -> None:
    before = assigner(experiment(0.9, 0.1, holdout=0.2))
    after = assigner(experiment(0.1, 0.9, holdout=0.2))
    held = [unit for unit in UNITS if before(unit) == HOLDOUT]
    assert chi_square([len(held), 4000 - len(held)], [800.0, 3200.0]) < CRITICAL[1]
    assert {after(unit) for unit in held} == {HOLDOUT}
    assert all(after(unit) != HOLDOUT for unit in UNITS if before(unit) != HOLDOUT)


def test_the_propensities_of_all_arms_add_up_to_1_and_are_their_shares() -> None:
    trial = experiment(0.6, 0.3, 0.1, holdout=0.1)
    assert sum(trial.propensities.values()) == pytest.approx(1)
    found = Counter(map(assigner(trial), UNITS))
    expected = trial.propensities
    assert chi_square([found[arm] for arm in expected], [4000 * p for p in expected.values()]) < CRITICAL[9]


@given(
    shares=st.lists(st.floats(0.01, 0.4), min_size=1, max_size=6),
    gone=st.sets(st.integers(0, 5)),
    units=st.lists(_units, min_size=1, max_size=40),
)
@settings(max_examples=50, deadline=None)
def test_no_unit_is_in_two_experiments_of_one_layer(shares: list[float], gone: set[int], units: list[bytes]) -> None:
    running: list[Experiment] = []
    for number, share in enumerate([*shares, *shares]):
        if number == len(shares):  # some were stopped, so that what is free lies in pieces
            running = [one for i, one in enumerate(running) if i not in gone]
        buckets = free_buckets(running, share)
        if buckets is not None:
            running.append(experiment(0.5, 0.5, name=f"e{number}", share=share, buckets=buckets))
    draws = [assigner(one) for one in running]
    for unit in units:
        assert sum(arm_of(unit) is not None for arm_of in draws) <= 1
    assert sum(end - start for one in running for start, end in one.buckets) <= 1000


def test_experiments_of_two_layers_are_met_independently() -> None:
    one = assigner(experiment(0.5, 0.5, name="first", layer="prices", share=0.5, buckets=((0, 500),)))
    other = assigner(experiment(0.5, 0.5, name="second", layer="limits", share=0.5, buckets=((0, 500),)))
    met = Counter((one(unit) is None, other(unit) is None) for unit in UNITS)
    assert chi_square(list(met.values()), [1000.0] * 4) < CRITICAL[2]


def test_rows_of_one_request_share_its_arm_where_the_request_is_the_unit() -> None:
    unit = unit_reader(experiment(0.5, 0.5))
    assert unit("r1", {"card_id": 1}) == unit("r1", {"card_id": 2})
    assert unit("r1", {}) != unit("r2", {})


def test_a_key_of_several_fields_is_one_unit() -> None:
    unit = unit_reader(experiment(0.5, 0.5, unit=("card_id", "shop")))
    assert unit("r1", {"card_id": 1, "shop": "a"}) == unit("r2", {"shop": "a", "card_id": 1, "x": 3})
    assert unit("r1", {"card_id": 1, "shop": "a"}) != unit("r1", {"card_id": 1, "shop": "b"})


def test_a_weight_of_0_gets_nobody() -> None:
    choose = rendezvous({"golden": 0.0, "new": 1.0}, "x")
    assert {choose(unit) for unit in UNITS[:200]} == {"new"}
