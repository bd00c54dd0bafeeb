"""Anchors: conditions that hold a decision whatever the other features are.

Ribeiro, Singh and Guestrin, "Anchors: high-precision model-agnostic explanations" (2018): rows that meet the
conditions are drawn, and the share with the same decision is the precision. Their beam search is kept, with batches
of a fixed size in place of adaptive ones, and a fresh sample judges what it finds, under the same bound (of Chernoff,
with the divergence of Kullback and Leibler), shared out over all that are judged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import Frame
from windrow.serving.explaining.conditions import Met, condition_of
from windrow.serving.explaining.decision import Decisions
from windrow.serving.explaining.explanation import Anchor
from windrow.serving.explaining.subject import Subject, output_of, repeated

TARGET, CONFIDENCE = 0.95, 0.95
MOST_CONDITIONS, BEAM = 4, 3
_BATCH, _JUDGED = 150, 1500
_METHOD = (
    "beam search for anchors (Ribeiro, Singh and Guestrin 2018), precision on a fresh sample with a Chernoff bound"
)

Chosen = tuple[int, ...]


class _Found(NamedTuple):
    chosen: Chosen
    precision: float
    at_least: float


def anchor_of(subject: Subject, frame: Frame, row: int, *, seed: int) -> Anchor:
    """Return the anchor of one row: of those that are precise enough the one that covers most.

    Parameters
    ----------
    seed
        The same one finds the same anchor.
    """
    search = _Search(subject, frame, row, np.random.default_rng(seed))
    found = search.best()
    answer = subject.bundle.predict({name: values[row : row + 1] for name, values in frame.items()})
    return Anchor(
        release=subject.release.id, output=output_of(answer[0]), decision=search.said,
        conditions=[search.met[place].condition for place in found.chosen],
        precision=found.precision, at_least=found.at_least, confidence=CONFIDENCE, target=TARGET,
        reached=found.at_least >= TARGET, coverage=search.coverage(found.chosen), sampled=_JUDGED,
        method=_METHOD, background=subject.background,
    )  # fmt: skip


class _Search:
    """Beam search over sets of conditions."""

    def __init__(self, subject: Subject, frame: Frame, row: int, random: np.random.Generator) -> None:
        self._subject, self._frame, self._row, self._random = subject, frame, row, random
        decisions = Decisions(subject.release, subject.usual)
        one = {name: values[row : row + 1] for name, values in frame.items()}
        self._decisions, self._decided = decisions, int(decisions.of(subject.bundle.predict(one))[0])
        self.said = decisions.spoken(self._decided)
        self.met: list[Met] = [condition_of(name, frame[name][row], subject.rows[name]) for name in subject.names]

    def best(self) -> _Found:
        """Return the anchor, or the most precise that there was."""
        beam: list[Chosen] = [()]
        judged = [self._judged(())]
        for _ in range(min(MOST_CONDITIONS, len(self.met))):
            good = [found for found in judged if found.at_least >= TARGET]
            if good:
                return max(good, key=lambda found: (self.coverage(found.chosen), found.precision))
            beam = self._grown(beam)
            judged += [self._judged(chosen) for chosen in beam]
        good = [found for found in judged if found.at_least >= TARGET]
        if good:
            return max(good, key=lambda found: (self.coverage(found.chosen), found.precision))
        return max(judged, key=lambda found: (found.at_least, -len(found.chosen)))

    def coverage(self, chosen: Chosen) -> float:
        """Return the share of background rows that meet conditions."""
        return float(self._meeting(chosen).mean())

    def _meeting(self, chosen: Chosen) -> NDArray[np.bool_]:
        rows = np.ones(len(self.met[0].rows), dtype=bool)
        for place in chosen:
            rows &= self.met[place].rows
        return rows

    def _grown(self, beam: list[Chosen]) -> list[Chosen]:
        more = sorted(
            {tuple(sorted({*chosen, place})) for chosen in beam for place in range(len(self.met))} - set(beam)
        )
        shares = self._precision(more, _BATCH)
        order = sorted(range(len(more)), key=lambda i: (-shares[i], -self.coverage(more[i]), more[i]))
        return [more[i] for i in order[:BEAM]]

    def _judged(self, chosen: Chosen) -> _Found:
        share = self._precision([chosen], _JUDGED)[0]
        # At most so many are judged, so that all bounds hold together.
        most = 1 + BEAM * MOST_CONDITIONS
        return _Found(chosen, share, lower_bound(share, _JUDGED, (1 - CONFIDENCE) / most))

    def _precision(self, sets: list[Chosen], rows: int) -> list[float]:
        """Return for each set of conditions the share of `rows` drawn rows with the decision, in one run of the model."""
        drawn = [self._drawn(chosen, rows) for chosen in sets]
        joined = {name: np.concatenate([d[name] for d in drawn]) for name in self._subject.names}
        same = self._decisions.of(self._subject.bundle.predict(joined)) == self._decided
        return [float(part.mean()) for part in same.reshape(len(sets), rows)]

    def _drawn(self, chosen: Chosen, rows: int) -> Frame:
        """Draw background rows, and give each chosen feature a value that meets its condition."""
        usual = self._subject.rows
        picked = self._random.integers(0, len(self.met[0].rows), rows)
        made = {name: values[picked].copy() for name, values in usual.items()}
        for place in chosen:
            name, meeting = self._subject.names[place], np.flatnonzero(self.met[place].rows)
            if len(meeting):
                made[name] = usual[name][self._random.choice(meeting, rows)]
            else:  # a value that no background row has: the row's own
                made[name] = repeated(self._frame, self._row, rows)[name]
        return made


def lower_bound(share: float, rows: int, chance: float) -> float:
    """Return what a share is at least, but for `chance`.

    The smallest q with rows * KL(share, q) <= log(1 / chance): Chernoff's bound.

    Examples
    --------
    >>> round(lower_bound(1.0, 1500, 0.05), 4), round(lower_bound(0.9, 1500, 0.05), 3)
    (0.998, 0.88)
    """
    allowed = np.log(1 / chance) / rows
    low, high = 0.0, share
    for _ in range(50):
        middle = (low + high) / 2
        if _divergence(share, middle) > allowed:
            low = middle
        else:
            high = middle
    return float(high)


def _divergence(p: float, q: float) -> float:
    if not 0 < q < 1:
        return 0.0 if p == q else float("inf")
    first = p * np.log(p / q) if p > 0 else 0.0
    second = (1 - p) * np.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return float(first + second)
