"""What an explanation says: plain data, the same in a notebook, in an answer and in the side process."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from windrow.serving.answers import Output
from windrow.serving.explaining import plot

Kind = Literal["shap", "anchor", "counterfactual"]
KINDS: tuple[Kind, ...] = ("shap", "anchor", "counterfactual")
Value = float | str | None
Vector = dict[str, Value]


class Contribution(msgspec.Struct, frozen=True):
    """What one feature with its value adds to the raw score; of three classes or more, to the score of each."""

    feature: str
    value: Value
    contribution: Output


class SourceContribution(msgspec.Struct, frozen=True):
    """What is added by all the features that are computed from the same source columns."""

    columns: list[str]
    features: list[str]
    contribution: Output


class Shapley(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="shap"):
    """Shapley values: `base` and all contributions add up to `raw`, within 1e-4.

    Attributes
    ----------
    output
        What the service answers.
    raw, scale
        The score that is explained, and what it is: ``log-odds``, ``log of the value``, ``probability``, ``value`` or
        ``score``. Of three classes or more it is a list, one for each of `classes`.
    base
        The mean of the score over what `background` says.
    contributions
        The largest first.
    sources
        The same, rolled up to source columns; empty for a release that does not say where its features come from.
    method, background
        How they were computed, with the paper, and compared with which rows.
    """

    release: str
    output: Output
    scale: str
    raw: Output
    base: Output
    contributions: list[Contribution]
    sources: list[SourceContribution]
    classes: list[str]
    method: str
    background: str

    def _repr_html_(self) -> str:
        return plot.card(self.release, f"{self.scale} {_said(self.raw)}, on average {_said(self.base)}", self.plot())

    def plot(self) -> str:
        """Return the contributions as an SVG picture; of three classes or more, those to the most likely one."""
        rows = [(named(c.feature, c.value), self._of_one(c.contribution)) for c in self.contributions]
        return plot.bars(rows, title=f"Contributions to the {self._what()}")

    def _of_one(self, amount: Output) -> float:
        if not isinstance(amount, list) or not isinstance(self.output, list):
            return amount if isinstance(amount, float) else 0.0
        return amount[self.output.index(max(self.output))]

    def _what(self) -> str:
        if not isinstance(self.output, list):
            return self.scale
        place = self.output.index(max(self.output))
        return f"{self.scale} of {self.classes[place] if self.classes else f'class {place}'}"


class Condition(msgspec.Struct, frozen=True):
    """A condition on one feature: equal to a text, missing, or a number above `above` and at most `at_most`."""

    feature: str
    text: str
    equals: Value = None
    missing: bool = False
    above: float | None = None
    at_most: float | None = None


class Anchor(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="anchor"):
    """Conditions under which the decision stays what it is, whatever the other features are.

    Attributes
    ----------
    precision, at_least, confidence
        The share of rows with the same decision among `sampled` rows that meet the conditions; and what it is at
        least, with this confidence.
    target
        The share that was looked for, and whether it was `reached`.
    coverage
        The share of training rows that meet the conditions.
    """

    release: str
    output: Output
    decision: str
    conditions: list[Condition]
    precision: float
    at_least: float
    confidence: float
    target: float
    reached: bool
    coverage: float
    sampled: int
    method: str
    background: str

    def _repr_html_(self) -> str:
        rule = " and ".join(c.text for c in self.conditions) or "always"
        told = f"precision {self.precision:.1%} (at least {self.at_least:.1%} with {self.confidence:.0%} confidence), coverage {self.coverage:.1%}"
        return plot.card(self.release, f"{self.decision}, if {rule}", plot.text(told))


class Change(msgspec.Struct, frozen=True):
    """One feature that would have to be another."""

    feature: str
    before: Value
    after: Value


class Counterfactual(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="counterfactual"):
    """The nearest row found for which the decision is another.

    Attributes
    ----------
    changes
        What differs from the row that was explained.
    output_after, decision_after
        What the served model says of the changed row.
    distance
        Sum of the changes, each in units of its feature's typical deviation; a changed text counts 1.
    immutable
        Features that were not allowed to change.
    """

    release: str
    output: Output
    decision: str
    changes: list[Change]
    output_after: Output
    decision_after: str
    distance: float
    immutable: list[str]
    method: str
    background: str

    def _repr_html_(self) -> str:
        rows = [(c.feature, spoken(c.before), spoken(c.after)) for c in self.changes]
        return plot.card(
            self.release, f"{self.decision}; {self.decision_after}, if", plot.table(rows, ("feature", "is", "were"))
        )


Explanation = Shapley | Anchor | Counterfactual

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Explanation).decode


def decode(data: bytes) -> Explanation:
    """Return an explanation from the JSON of an answer; it shows itself in a notebook.

    Examples
    --------
    >>> found = decode(b'{"kind":"anchor","release":"r","output":0.9,"decision":"class 1","conditions":[],"precision":1.0,'
    ...                b'"at_least":0.96,"confidence":0.95,"target":0.95,"reached":true,"coverage":1.0,"sampled":100,'
    ...                b'"method":"","background":""}')
    >>> "class 1, if always" in found._repr_html_()
    True
    """
    found: Explanation = _decode(data)
    return found


def spoken(value: Any) -> str:
    """Return a value as people write it.

    Examples
    --------
    >>> spoken(1234.5678), spoken(None), spoken("gold")
    ('1234.57', 'missing', 'gold')
    """
    if value is None:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def named(feature: str, value: Value) -> str:
    """Return a feature with its value.

    Examples
    --------
    >>> named("amount", 20.0)
    'amount = 20'
    """
    return f"{feature} = {spoken(value)}"


def _said(amount: Output) -> str:
    return ", ".join(f"{a:.4g}" for a in amount) if isinstance(amount, list) else f"{amount:.4g}"
