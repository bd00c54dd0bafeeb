"""Shapley values of a release: of its final estimator, rolled up to features and to source columns.

Columns behind the preprocessing are players of their own: what a feature gets is the sum over its columns. That is
exact for linear models; for trees it is a sum of exact values. A model of another kind is asked with every combination
of its features replaced by those of background rows (Shapley's formula; Lundberg and Lee, 2017), up to 12 features.
"""

from __future__ import annotations

from functools import cached_property
from math import factorial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.errors import RequestError
from windrow.features.contract import Frame
from windrow.serving.answers import Output
from windrow.serving.explaining.additive import KNOWN, Additive, Parts, UnsupportedError
from windrow.serving.explaining.columns import made_of
from windrow.serving.explaining.explanation import Contribution, Shapley, SourceContribution
from windrow.serving.explaining.subject import Subject, output_of

Numbers = NDArray[np.float64]

TOLERANCE = 1e-4
MOST_FEATURES = 12
"""Of a model that is neither linear nor of trees: it is asked 2 ** features times."""
_CHECKED = 50
_ASKED = 150_000  # rows that such a model is asked about at most
_EVERY = "exact over all combinations of features, interventional (Lundberg and Lee 2017)"


class Explained(NamedTuple):
    """Scores of n rows and what each feature adds: (n, outputs), (outputs,), (n, features, outputs)."""

    raw: Numbers
    base: Numbers
    values: Numbers


class ShapleyValues:
    """Shapley values of one release; made once, asked often.

    Parameters
    ----------
    subject
        The release.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def explain(self, frame: Frame) -> list[Shapley]:
        """Return the explanation of each row.

        Raises
        ------
        RequestError
            501 for a model that is neither linear nor of trees and has more than 12 features, and where shap is not
            installed; 500 if the values did not add up.
        """
        found, way = self._explained(frame)
        apart = np.abs(found.base + found.values.sum(axis=1) - found.raw).max()
        if not apart <= TOLERANCE:
            raise RequestError(
                500,
                "not-additive",
                f"The Shapley values of release {self._subject.release.id} do not add up to its score, by {apart:g}",
                next_step="tell windrow's maintainers which estimator it is",
            )
        answers = self._subject.bundle.predict(frame)
        return [self._one(frame, found, row, answers[row], way) for row in range(len(answers))]

    def _explained(self, frame: Frame) -> tuple[Explained, _Way]:
        pipeline = self._pipeline
        if pipeline is None:
            return self._every(frame), _Way(_EVERY, self._output_scale, self._subject.background)
        inputs = pipeline.inputs(frame)
        parts = pipeline.additive.parts(inputs)
        values = np.zeros((len(inputs), len(self._subject.names), parts.values.shape[2]))
        for column, feature in enumerate(pipeline.features):
            values[:, feature] += parts.values[:, column]
        known = "the training rows, as counted in the trees"
        background = self._subject.background if pipeline.additive.method.startswith("exact for linear") else known
        made = Explained(pipeline.additive.raw(inputs), parts.base, values)
        return made, _Way(pipeline.additive.method, pipeline.additive.scale, background)

    @cached_property
    def _pipeline(self) -> _Pipeline | None:
        """The original in two parts; None where its columns cannot be led back to single features."""
        if self._subject.estimator is None:
            return None
        try:
            return _Pipeline(self._subject)
        except UnsupportedError:
            return None

    @property
    def _output_scale(self) -> str:
        return "value" if self._subject.release.task == "regression" else "probability"

    def _every(self, frame: Frame) -> Explained:
        names = self._subject.names
        if len(names) > MOST_FEATURES:
            raise RequestError(
                501,
                "not-explainable",
                f"Release {self._subject.release.id} is neither a linear model nor one of trees, and has {len(names)} features",
                next_step=f"ask for explain=anchor or explain=counterfactual; Shapley values are made of {KNOWN}, and of any model of up to {MOST_FEATURES} features",
            )
        rows = [self._of_all(frame, row) for row in range(len(frame[names[0]]))]
        raw = np.atleast_2d(self._subject.bundle.predict(frame).T).T
        return Explained(raw, rows[0].base, np.stack([made.values[0] for made in rows]))

    def _of_all(self, frame: Frame, row: int) -> Parts:
        """Return the values of one row from the mean answer of every combination of its features."""
        width = len(self._subject.names)
        means = self._coalitions(frame, row)
        sets = np.arange(1 << width)
        sizes = np.array([bin(s).count("1") for s in sets])
        weight = np.array([factorial(s) * factorial(width - s - 1) / factorial(width) for s in range(width)])
        values = np.zeros((1, width, means.shape[1]))
        for feature in range(width):
            without = sets[(sets >> feature) & 1 == 0]
            gained = means[without | (1 << feature)] - means[without]
            values[0, feature] = weight[sizes[without]] @ gained
        return Parts(means[0], values)

    def _coalitions(self, frame: Frame, row: int) -> Numbers:
        width = len(self._subject.names)
        usual = self._subject.rows
        every = len(next(iter(usual.values())))
        kept = np.linspace(0, every - 1, max(1, min(every, _ASKED >> width))).astype(int)
        sets = np.arange(1 << width)
        mixed = {}
        for place, name in enumerate(self._subject.names):
            theirs = np.broadcast_to(usual[name][kept], (len(sets), len(kept)))
            ours = (sets >> place) & 1 == 1
            mixed[name] = np.where(ours[:, None], frame[name][row], theirs).ravel().astype(usual[name].dtype)
        answers = self._subject.bundle.predict(mixed)
        means: Numbers = answers.reshape(len(sets), len(kept), -1).mean(axis=1)
        return means

    def _one(self, frame: Frame, found: Explained, row: int, answer: Any, way: _Way) -> Shapley:
        values, shown = self._subject.values(frame, row), found.values[row]
        order = np.argsort(-np.abs(shown).max(axis=1), kind="stable")
        names = self._subject.names
        made = [Contribution(names[i], values[names[i]], _output(shown[i])) for i in order]
        return Shapley(
            release=self._subject.release.id, output=output_of(answer), scale=way.scale, raw=_output(found.raw[row]),
            base=_output(found.base), contributions=made, sources=self._rolled_up(shown),
            classes=list(self._subject.release.classes), method=way.method, background=way.background,
        )  # fmt: skip

    def _rolled_up(self, shown: Numbers) -> list[SourceContribution]:
        """Features of the same source columns together: what two columns do to one feature cannot be told apart."""
        together: dict[tuple[str, ...], list[int]] = {}
        for place, name in enumerate(self._subject.names):
            columns = self._subject.facts.origins.get(name)
            if columns is not None:
                together.setdefault(tuple(columns), []).append(place)
        rows = [(columns, places, shown[places].sum(axis=0)) for columns, places in together.items()]
        rows.sort(key=lambda found: -float(np.abs(found[2]).max()))
        names = self._subject.names
        return [SourceContribution(list(c), [names[i] for i in places], _output(v)) for c, places, v in rows]


class _Way(NamedTuple):
    method: str
    scale: str
    background: str


class _Pipeline:
    """A fitted pipeline in two parts: the preprocessing, and the estimator with its exact values."""

    def __init__(self, subject: Subject) -> None:
        self._steps, final = _parts(subject.estimator)
        inputs = self.inputs(subject.rows)
        self.features = _single(made_of(self._steps, len(subject.names)), inputs.shape[1])
        self.additive = Additive(final, inputs, task=subject.release.task)
        if not self.gap(inputs[:_CHECKED]) <= TOLERANCE:  # such as boosting that starts from another model
            raise UnsupportedError

    def gap(self, inputs: Numbers) -> float:
        """Return by how much the values of rows miss the estimator's own score at most."""
        parts = self.additive.parts(inputs)
        return float(np.abs(parts.base + parts.values.sum(axis=1) - self.additive.raw(inputs)).max())

    def inputs(self, frame: Frame) -> Numbers:
        """Return rows as the final estimator sees them, float64 of shape (n, columns)."""
        from windrow.features.arrow import to_pandas

        made: Any = to_pandas(frame)
        for step in self._steps:
            made = step.transform(made)
        made = made.toarray() if hasattr(made, "toarray") else made
        try:
            return np.asarray(made, dtype=np.float64)
        except ValueError as error:  # text reaches the estimator itself
            raise UnsupportedError from error


def _parts(estimator: Any) -> tuple[list[Any], Any]:
    if type(estimator).__name__ != "Pipeline":
        return [], estimator
    *steps, (_, last) = estimator.steps
    below, final = _parts(last)
    return [step for _, step in steps if step not in (None, "passthrough")] + below, final


def _single(parts: list[frozenset[int]], width: int) -> list[int]:
    if len(parts) != width or any(len(made) != 1 for made in parts):
        raise UnsupportedError
    return [next(iter(made)) for made in parts]


def _output(amounts: Numbers) -> Output:
    return [float(a) for a in amounts] if len(amounts) > 1 else float(amounts[0])
