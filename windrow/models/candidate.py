"""The candidate: what its gates may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windrow.features.contract import MISSING_TEXT

if TYPE_CHECKING:
    from windrow.models.bundle import Bundle
    from windrow.models.dataset import Split
    from windrow.models.release import Release


@dataclass(frozen=True)
class Candidate:
    """A model that is not released yet, with the test rows that it is judged on.

    Attributes
    ----------
    bundle
        The model as it would be served; its release has metrics, baseline and parity, and no gates yet.
    test
        The test split.
    live
        The release that answers now, or None.
    golden
        The same, loaded; None where it cannot be.
    seen
        Which test rows `live` was trained on, shape (n,).
    """

    bundle: Bundle
    test: Split
    live: Release | None = None
    golden: Bundle | None = None
    seen: NDArray[np.bool_] | None = None

    @property
    def truth(self) -> NDArray[np.float64]:
        """What came true, shape (n,): of classes their places."""
        return self.test.y

    @cached_property
    def answers(self) -> NDArray[np.float64]:
        """What the served model says of the test rows, shape (n,), or (n, classes) of three classes or more."""
        return self.bundle.predict(self.test.frame)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the label's classes, in the order of their places; none where they have none."""
        found: Sequence[str] = self.bundle.release.label.get("classes", ())
        return found

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of all test rows."""
        return self.bundle.release.metrics

    @property
    def baseline(self) -> Mapping[str, float]:
        """The naive prediction's, on the same rows; see `windrow.models.training.evaluate`."""
        return self.bundle.release.baseline

    def groups(self, by: Sequence[str]) -> NDArray[Any]:
        """Return to which group each test row belongs, such as ``sex=f, age=old``; shape (n,), text."""
        parts = [_named(name, self._column(name)) for name in by]
        return np.array([", ".join(values) for values in zip(*parts, strict=True)], dtype=object)

    def _column(self, name: str) -> Sequence[Any]:
        if name in self.test.rows.column_names:
            found: list[Any] = self.test.rows[name].to_pylist()
            return found
        return list(self.test.frame[name])


def _named(name: str, values: Sequence[Any]) -> list[str]:
    return [f"{name}={_text(value)}" for value in values]


def _text(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is what differs from itself
        return MISSING_TEXT
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)
