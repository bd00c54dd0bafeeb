"""What counts as a decision: the class of an answer, or on which side of the usual one it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.models.release import Release

THRESHOLD = 0.5


class Decisions:
    """Reads the decision off answers.

    Parameters
    ----------
    release
        Says whether answers are probabilities, and of which classes.
    usual
        Answers to the background rows: the median of numbers is what they are compared with.

    Examples
    --------
    >>> from tests.models.making import bare_release
    >>> made = Decisions(bare_release(), np.array([0.1, 0.2]))
    >>> made.of(np.array([0.4, 0.5])).tolist(), made.spoken(1)
    ([0, 1], 'a probability of at least 0.5')
    """

    def __init__(self, release: Release, usual: NDArray[np.float64]) -> None:
        self._release = release
        self._cut = float(np.median(usual)) if release.task == "regression" else THRESHOLD

    def of(self, answers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the decision of each answer, shape (n,): the place of a class, or 1 from the cut on."""
        made: Any = answers.argmax(axis=1) if answers.ndim == 2 else answers >= self._cut
        return np.asarray(made, dtype=np.int64)

    def spoken(self, decision: int) -> str:
        """Return a decision in words."""
        if self._release.task == "multiclass":
            names = self._release.classes
            return f"class {names[decision]!r}" if names else f"class {decision}"
        side = "at least" if decision else "below"
        if self._release.task == "classification":
            return f"a probability {'of at least' if decision else 'below'} {THRESHOLD:g}"
        return f"{side} {self._cut:.6g}, the median answer to the background rows"
