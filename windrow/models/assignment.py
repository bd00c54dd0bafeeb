"""Which arm a unit gets: a pure function of experiment and unit, so that nothing has to be remembered.

Uniform numbers come of BLAKE2b over a salt and the unit: other salts, other numbers, independent of each other.
Arms are chosen by weighted rendezvous hashing (Thaler and Ravishankar, 1998; weighted as by Schindelhauer and
Schomaker, 2005): each arm runs a race of its own against the same unit, exponentially distributed with the weight as
rate, and the first one wins. So an arm gets exactly its weight's share of the units, and when weights change a unit
moves from one arm to another only if the other's weight grew by a larger factor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import log
from typing import Any

import msgspec

_encode = msgspec.msgpack.Encoder().encode
_BITS = 52  # all of them, and the half behind them, fit into a float
_SCALE = 2.0**-_BITS


def unit_of(*values: Any) -> bytes:
    """Return the bytes that stand for a unit: the values of its key, or the id of its request.

    Examples
    --------
    >>> unit_of(7) == unit_of("7")
    False
    """
    return _encode(values)


def uniform(*salt: str) -> Callable[[bytes], float]:
    """Return the function that gives each unit its number between 0 and 1, for a salt.

    Examples
    --------
    >>> one, other = uniform("a"), uniform("b")
    >>> one(unit_of(7)) == one(unit_of(7)), one(unit_of(7)) == other(unit_of(7))
    (True, False)
    """
    fresh = blake2b(_encode(salt), digest_size=8).copy

    def number(unit: bytes) -> float:
        made = fresh()
        made.update(unit)
        return between(made.digest())

    return number


def between(digest: bytes) -> float:
    """Return the number of 8 bytes: above 0 and below 1, whatever they are.

    Examples
    --------
    >>> between(bytes(8)) > 0, between(bytes([255] * 8)) < 1
    (True, True)
    """
    return ((int.from_bytes(digest, "little") >> (64 - _BITS)) + 0.5) * _SCALE


def rendezvous(weights: Mapping[str, float], *salt: str) -> Callable[[bytes], str]:
    """Return the function that gives each unit one of the names, each with the probability of its weight.

    Parameters
    ----------
    weights
        Name -> weight, not negative and not all 0; a name of weight 0 gets nobody.
    *salt
        Of the experiment.

    Examples
    --------
    >>> choose = rendezvous({"golden": 0.9, "new": 0.1}, "fraud", "trial")
    >>> [choose(unit_of(card)) for card in range(1000)].count("new")
    94
    """
    runners = [(name, 1 / weight, uniform(*salt, name)) for name, weight in weights.items() if weight > 0]
    if len(runners) == 1:
        only = runners[0][0]
        return lambda unit: only

    def first(unit: bytes) -> str:
        return min((-log(number(unit)) * pace, name) for name, pace, number in runners)[1]

    return first
