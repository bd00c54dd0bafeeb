"""How long each stage of the request path takes: put down as it is on the path, counted a few hundred requests at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

STAGES = ("validate", "features", "model", "log", "answer")
# Nanoseconds: 35 from 1 us to 0.7 s.
BOUNDS = tuple(int(digit * 10**power) for power in range(2, 8) for digit in (10, 15, 20, 30, 50, 70))[:-1]
_ROOM = 256  # requests: counting so many takes a tenth of a millisecond
_ROW = Struct(f"{len(STAGES) + 1}q")


class Histogram:
    """Counts of durations, by bucket.

    Examples
    --------
    >>> spent = Histogram()
    >>> for _ in range(100):
    ...     spent.observe(2_500_000)
    >>> round(spent.quantile(0.5) * 1000, 1)
    2.5
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts, self.total = [0] * (len(BOUNDS) + 1), 0

    def observe(self, nanoseconds: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, nanoseconds)] += 1
        self.total += nanoseconds

    def observe_all(self, nanoseconds: Any, times: Any) -> None:
        """Count durations, each as often as it says; two vectors of the same shape (n,)."""
        found = np.bincount(np.searchsorted(BOUNDS, nanoseconds), times, len(self.counts)).astype(int).tolist()
        self.counts = [had + more for had, more in zip(self.counts, found, strict=True)]
        self.total += int(nanoseconds @ times)

    @property
    def seconds(self) -> float:
        """All durations together."""
        return self.total / 1e9

    def cumulated(self) -> list[tuple[str, int]]:
        """Return each bucket's upper bound (seconds, as text), and how many durations are not above it."""
        names = [*(f"{bound / 1e9:.6g}" for bound in BOUNDS), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))

    def quantile(self, share: float) -> float | None:
        """Return the seconds that this share of the durations does not exceed, interpolated in its bucket; None of none."""
        reached = list(accumulate(self.counts))
        wanted = share * reached[-1]
        if not wanted:
            return None
        place = bisect_left(reached, wanted)
        if place == len(BOUNDS):
            return BOUNDS[-1] / 1e9
        low, before = (BOUNDS[place - 1], reached[place - 1]) if place else (0, 0)
        return (low + (BOUNDS[place] - low) * (wanted - before) / self.counts[place]) / 1e9


class Spent(NamedTuple):
    """What a stage costs: quantiles in milliseconds, and the share of the service's latency budget that its p99 is."""

    p50_ms: float
    p99_ms: float
    share: float | None


class _Service:
    """The stages of one service, and the requests that are put down and not counted yet."""

    __slots__ = ("at", "rows", "stages")

    def __init__(self) -> None:
        self.stages = tuple(Histogram() for _ in STAGES)
        self.rows, self.at = bytearray(_ROOM * _ROW.size), 0

    def count(self) -> tuple[Histogram, ...]:
        rows = np.frombuffer(self.rows, np.int64)[: self.at // 8].reshape(-1, len(STAGES) + 1)
        for histogram, spent in zip(self.stages, rows.T[:-1] if self.at else (), strict=False):
            histogram.observe_all(spent, rows[:, -1])
        self.at = 0
        return self.stages


class Stages:
    """The stages of every service, and what the arms of experiments take for features and model.

    For the event loop's thread alone.

    Examples
    --------
    >>> stages = Stages()
    >>> stages.observe("churn", 3_000, 20_000, 30_000, 8_000, 5_000, 1)
    >>> list(stages.spent("churn", budget_ms=20))
    ['validate', 'features', 'model', 'log', 'answer']
    """

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}
        self.arms: dict[tuple[str, str, str], Histogram] = {}

    @property
    def services(self) -> dict[str, tuple[Histogram, ...]]:
        """Of each service, one for each of `STAGES`."""
        return {name: service.count() for name, service in self._services.items()}

    def observe(self, service: str, *nanoseconds: int) -> None:
        """Put down what a run took in each of `STAGES`, and after them how many requests it answered."""
        held = self._services.get(service)
        if held is None:
            held = self._services[service] = _Service()
        at = held.at
        _ROW.pack_into(held.rows, at, *nanoseconds)
        held.at = at = at + _ROW.size
        if at == len(held.rows):
            held.count()

    def observe_arms(self, service: str, arms: Mapping[str, str], nanoseconds: int) -> None:
        """Count what one row took in its arms (by experiment)."""
        for arm in arms.items():
            self.arms.setdefault((service, *arm), Histogram()).observe(nanoseconds)

    def spent(self, service: str, *, budget_ms: float | None) -> dict[str, Spent]:
        """Return what each stage of a service costs; nothing before its first answer."""
        held = self._services.get(service)
        return {} if held is None else {n: _spent(h, budget_ms) for n, h in zip(STAGES, held.count(), strict=True)}


def _spent(histogram: Histogram, budget_ms: float | None) -> Spent:
    p50, p99 = (1000 * (histogram.quantile(share) or 0.0) for share in (0.5, 0.99))
    return Spent(round(p50, 4), round(p99, 4), round(p99 / budget_ms, 4) if budget_ms else None)
