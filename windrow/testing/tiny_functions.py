"""The on-demand function of the tiny service: releases carry this file, so it imports NumPy at most."""

from typing import Any

from numpy.typing import NDArray


def share(amount: NDArray[Any], limit: NDArray[Any]) -> NDArray[Any]:
    """Return how much of its card's limit a payment takes; float64 of shape (n,), missing where the limit is."""
    taken: NDArray[Any] = amount / limit
    return taken
