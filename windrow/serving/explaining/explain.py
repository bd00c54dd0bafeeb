"""Explanations of a release, without HTTP and without another process: a bundle and rows in, explanations out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from windrow.features.contract import Frame
from windrow.models.bundle import Bundle
from windrow.serving.explaining.anchor import anchor_of
from windrow.serving.explaining.counterfactual import counterfactual_of
from windrow.serving.explaining.explanation import Explanation, Kind, Vector
from windrow.serving.explaining.messages import checked_kind, key_of
from windrow.serving.explaining.shapley import ShapleyValues
from windrow.serving.explaining.subject import Subject


class Explaining:
    """A release that explains its answers; what is costly to make is made once.

    Parameters
    ----------
    bundle
        The loaded release.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.subject = Subject(bundle)

    def frame(self, frame: Frame, kind: Kind) -> Sequence[Explanation]:
        """Explain each row of canonical arrays; see `explain`."""
        subject = self.subject
        rows = range(len(next(iter(frame.values()))))
        if kind == "shap":
            return self._shapley.explain(frame)
        if kind == "anchor":
            return [anchor_of(subject, frame, row, seed=self._seed(frame, row)) for row in rows]
        return [counterfactual_of(subject, frame, row) for row in rows]

    def vector(self, vector: Vector, kind: Kind) -> Explanation:
        """Explain one row by name, as the log has it."""
        return self.frame(self.subject.frame([vector]), kind)[0]

    def _seed(self, frame: Frame, row: int) -> int:
        key = key_of(self.subject.release.id, "anchor", self.subject.values(frame, row))
        return int.from_bytes(key[:8], "little")

    @cached_property
    def _shapley(self) -> ShapleyValues:
        return ShapleyValues(self.subject)


def explain(bundle: Bundle, frame: Frame, kind: str = "shap") -> Sequence[Explanation]:
    """Return why a release answers each row as it does.

    Parameters
    ----------
    bundle
        A loaded release, such as `windrow.models.registry.Registry.load` returns.
    frame
        Canonical arrays of shape (n,), as `windrow.features.contract.canonical` makes them.
    kind
        ``shap``, ``anchor`` or ``counterfactual``.

    Returns
    -------
    list
        One `Shapley`, `Anchor` or `Counterfactual` a row; each shows itself in a notebook.

    Raises
    ------
    RequestError
        If this model or this row cannot be explained in this way.
    """
    return Explaining(bundle).frame(frame, checked_kind(kind))
