"""Weights by Thompson sampling, and what a reward would be were every unit in one arm.

An arm's chance to be the best one, under Beta posteriors of its rewards of 0 and 1, is its weight (Thompson, 1933; as
weights between two updates: Scott, 2010). Units keep being assigned by hash, so that the weight is the propensity.
Rewards that were gathered under changing weights are compared by weighting each row with the inverse of its propensity
(Horvitz and Thompson, 1952), normalised by the weights' sum (Hájek, 1971).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.errors import DeclarationError

FLOOR = 0.02
"""No arm gets less, so that propensities stay away from 0 and a bad beginning can be made good."""
_DRAWS = 50_000
_DIGITS = 6


class Rewards(NamedTuple):
    """How many matured rows of an arm were worth 1, of how many."""

    won: int
    rows: int


def thompson_weights(rewards: Mapping[str, Rewards], *, floor: float = FLOOR, seed: int = 0) -> dict[str, float]:
    """Return the weights of arms: their chance to be the best, and `floor` at least; they add up to 1.

    Parameters
    ----------
    rewards
        By arm, two at least.
    floor
        Below 1 / arms.
    seed
        Of the draws: the same rewards, the same weights.

    Raises
    ------
    DeclarationError
        If the floor leaves no room.

    Examples
    --------
    >>> thompson_weights({"golden": Rewards(50, 100), "new": Rewards(80, 100)})
    {'golden': 0.02, 'new': 0.98}
    >>> thompson_weights({"golden": Rewards(0, 0), "new": Rewards(0, 0)}, floor=0.5)
    Traceback (most recent call last):
    windrow.errors.DeclarationError: 2 arms cannot each get 0.5 at least. Next: give a floor below 0.5.
    """
    if not floor >= 0:
        raise DeclarationError(f"the floor is {floor:g}", next_step="give a share from 0 up, such as 0.02")
    if not floor * len(rewards) < 1:
        raise DeclarationError(
            f"{len(rewards)} arms cannot each get {floor:g} at least",
            next_step=f"give a floor below {1 / max(len(rewards), 1):.2g}",
        )
    draws = np.random.default_rng(seed)
    drawn = [draws.beta(1 + arm.won, 1 + arm.rows - arm.won, _DRAWS) for arm in rewards.values()]
    best = np.bincount(np.argmax(drawn, axis=0), minlength=len(drawn)) / _DRAWS
    spread = (1 - floor * len(drawn)) * best + floor
    made = dict(zip(rewards, np.round(spread, _DIGITS).tolist(), strict=True))
    first = next(iter(made))
    return {**made, first: round(1 - sum(weight for name, weight in made.items() if name != first), _DIGITS)}


def reward_of_all(rewards: NDArray[np.float64], propensities: NDArray[np.float64]) -> float | None:
    """Return the mean reward to expect if every unit were in an arm, from the rows that were; None without a row.

    Parameters
    ----------
    rewards, propensities
        float64 of shape (n,): of the arm's rows, with the probability that each had to be among them.

    Examples
    --------
    >>> round(reward_of_all(np.array([1.0, 0.0]), np.array([0.5, 0.25])), 3)
    0.333
    """
    return float(np.average(rewards, weights=1 / propensities)) if len(rewards) else None
