"""Thompson sampling on simulated rewards whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace

from windrow.errors import DeclarationError
from windrow.models.assignment import unit_of
from windrow.models.experiment import Arm, Experiment, assigner, weighed
from windrow.models.thompson import Rewards, reward_of_all, thompson_weights

TRUTH = {"golden": 0.50, "new": 0.60, "other": 0.45}
BATCHES, BATCH = 20, 100


class Simulated(NamedTuple):
    """What came of one simulated experiment: rows of (arm, propensity, reward), and the regret per row."""

    rows: list[tuple[str, float, float]]
    regret: float


def simulated(seed: int, *, learning: bool) -> Simulated:
    """Give each batch of new units its arms by hash, and learn weights from the rewards of all before."""
    draws = np.random.default_rng(seed)
    third = 1 / 3
    arms = weighed({"new": ("fraud-2", third), "other": ("fraud-3", third)})
    trial = Experiment(service="fraud", name=f"trial_{seed}", arms=arms)
    rows: list[tuple[str, float, float]] = []
    for batch in range(BATCHES):
        if learning and rows:
            weights = thompson_weights(_rewards(rows), floor=0.05, seed=batch)
            trial = replace(trial, arms=tuple(replace(arm, weight=weights[arm.name]) for arm in trial.arms))
        rows += _answered(trial, range(batch * BATCH, (batch + 1) * BATCH), draws)
    regret = float(np.mean([max(TRUTH.values()) - TRUTH[arm] for arm, _, _ in rows]))
    return Simulated(rows, regret)


def _answered(trial: Experiment, units: range, draws: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    arm_of, propensities = assigner(trial), trial.propensities
    for unit in units:
        arm = str(arm_of(unit_of(unit)))
        yield arm, propensities[arm], float(draws.random() < TRUTH[arm])


def _rewards(rows: list[tuple[str, float, float]]) -> dict[str, Rewards]:
    return {
        arm: Rewards(sum(int(r) for a, _, r in rows if a == arm), sum(a == arm for a, _, _ in rows)) for arm in TRUTH
    }


@pytest.fixture(scope="module")
def learned() -> list[Simulated]:
    return [simulated(seed, learning=True) for seed in range(40)]


def test_it_loses_less_than_a_fixed_split(learned: list[Simulated]) -> None:
    fixed = [simulated(seed, learning=False).regret for seed in range(5)]
    assert np.mean(fixed) == pytest.approx(0.25 / 3, abs=0.005)
    assert np.mean([one.regret for one in learned]) < 0.5 * np.mean(fixed)


def test_its_rewards_weighted_by_inverse_propensity_are_unbiased(learned: list[Simulated]) -> None:
    for arm, truth in TRUTH.items():
        found = []
        for one in learned:
            own = [(propensity, reward) for a, propensity, reward in one.rows if a == arm]
            likely, won = (np.array(column) for column in zip(*own, strict=True))
            found.append(reward_of_all(won, likely))
        error = float(np.std(found)) / len(found) ** 0.5
        assert np.mean(found) == pytest.approx(truth, abs=4 * error), arm
        assert error < 0.02


def test_the_inverse_propensities_of_an_arms_rows_count_all_rows(learned: list[Simulated]) -> None:
    rows = [row for one in learned for row in one.rows]
    for arm in TRUTH:
        assert sum(1 / p for a, p, _ in rows if a == arm) == pytest.approx(len(rows), rel=0.05)


def test_arms_without_rewards_have_equal_weights_and_golden_what_rounding_leaves() -> None:
    weights = thompson_weights({name: Rewards(0, 0) for name in ("golden", "a", "b")})
    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
    assert list(weights.values()) == pytest.approx([1 / 3] * 3, abs=0.01)


def test_the_weights_are_weights_of_an_experiment() -> None:
    weights = thompson_weights({"golden": Rewards(900, 1000), "new": Rewards(1, 1000)}, floor=0.1)
    assert weights == {"golden": 0.9, "new": 0.1}
    Experiment(service="fraud", name="trial", arms=(Arm("golden", weights["golden"]), Arm("new", weights["new"], "f")))


def test_a_floor_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(DeclarationError, match="3 arms cannot each get 0.4 at least. Next: give a floor below 0.33"):
        thompson_weights({name: Rewards(1, 2) for name in "abc"}, floor=0.4)


@pytest.mark.parametrize("floor", [-1.0, float("nan")])
def test_a_floor_that_is_no_share_is_refused(floor: float) -> None:
    with pytest.raises(DeclarationError, match="the floor is .*Next: give a share from 0 up"):
        thompson_weights({name: Rewards(1, 2) for name in "abc"}, floor=floor)
