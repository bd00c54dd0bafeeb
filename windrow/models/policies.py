"""What a service does when it cannot answer as it should: part of its release, read on every request."""

from __future__ import annotations

from typing import Literal

import msgspec

from windrow.models.cache import Cache

Policy = Literal["predict", "fallback", "refuse"]
POLICIES: tuple[Policy, ...] = ("predict", "fallback", "refuse")
DEADLINE_MS = 800.0  # before BentoML's own time-out, and before most callers give up
GOLDEN = "golden"
CONSTANT = "constant"
PRECOMPUTED = "precomputed"


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `windrow.models.online.Online` that a worker acts by; what stands here is what no declaration says.

    Attributes
    ----------
    deadline_ms
        Milliseconds that features and model may take together.
    expired, store_away
        What becomes of a row with a value past its TTL, and of one whose values the online store does not give.
    golden
        Whether the golden release answers where a challenger cannot.
    constant
        The last to answer: a value, the probability of class 1, or one of each class; None where nobody is.
    defaults
        Feature -> value that stands for a stored one while the store is away; missing where none is declared.
    cache
        What is kept of the model's outputs; None for nothing.
    precomputed
        How old a batch run's prediction may be that answers a request, microseconds; None where none does.

    Examples
    --------
    >>> Policies().store_away, Policies().golden
    ('refuse', True)
    """

    deadline_ms: float = DEADLINE_MS
    expired: Policy = "predict"
    store_away: Policy = "refuse"
    golden: bool = True
    constant: float | tuple[float, ...] | None = None
    defaults: dict[str, float | str | bool] = {}
    cache: Cache | None = Cache()
    precomputed: int | None = None
