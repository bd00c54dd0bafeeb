"""One feature's verdict: whether the window is still what the model was trained on.

Drift needs an effect (a distance that matters) *and* evidence (more than chance gives at this many
rows, over this many features). A p-value alone calls everything drift at a million rows and nothing
at thirty; a distance alone calls noise drift at thirty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from windrow.errors import DataError, UnknownNameError
from windrow.features.contract import Frame
from windrow.models.service import Drift
from windrow.monitoring.distance import (
    chance_distance,
    counted,
    jensen_shannon,
    null_rate_by_chance,
    present,
    unseen_share,
)
from windrow.monitoring.history import Past, past_distance
from windrow.schema import Field

FALSE_ALARMS = 0.01  # of a whole report when nothing drifted, shared by its columns
NULL_RATE_RISE = 0.1
UNSEEN_SHARE = 0.05
_ROUNDING = 1e-9

Word = Literal["ok", "drift", "missing", "too few rows"]


class Finding(msgspec.Struct, frozen=True):
    """What was found of one feature: the word, the reason, and the distance with its threshold if taken."""

    verdict: Word
    why: str
    distance: float | None = None
    threshold: float | None = None


class ColumnVerdict(msgspec.Struct, frozen=True):
    """What is known of one feature.

    Attributes
    ----------
    kind
        ``number`` or ``text``.
    distance, threshold
        Jensen-Shannon distance (0 to 0.83) and what it must exceed to count as drift here, or None
        where it was not taken.
    null_rate_reference, null_rate_current
        Share of rows without a (finite) value.
    verdict
        ``ok``, ``drift``, ``missing`` (values stopped coming) or ``too few rows``.
    why
        One sentence with the figures that decided.
    """

    feature: str
    kind: str
    distance: float | None
    threshold: float | None
    null_rate_reference: float
    null_rate_current: float
    verdict: Word
    why: str

    @property
    def passed(self) -> bool:
        """Whether nothing was found; too few rows is nothing found."""
        return self.verdict not in ("drift", "missing")


class Sample(msgspec.Struct, frozen=True):
    """One feature's values without the missing ones, and of how many rows they are."""

    values: NDArray[Any]
    rows: int

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return self.rows - len(self.values)

    @property
    def null_rate(self) -> float:
        """Share of rows without a value."""
        return self.nulls / self.rows if self.rows else 0.0


def compare(
    reference: Frame, current: Frame, fields: Sequence[Field], monitor: Drift, *, past: Past | None = None
) -> list[ColumnVerdict]:
    """Judge every feature of the window against the training data.

    Parameters
    ----------
    reference, current
        Feature -> values in canonical form (see `windrow.features.contract.canonical`).
    fields
        The features to judge, in order; those in `monitor.ignore` are left out.
    monitor
        Effect, minimum of rows, and what to ignore.
    past
        The training rows with their times, so that what each stretch of them does anyway (a season) is
        not called drift; see `windrow.monitoring.history`.

    Raises
    ------
    UnknownNameError
        If a frame lacks a feature.
    DataError
        If the training data has no row.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> before, after = {"x": rng.normal(0, 1, 5000)}, {"x": rng.normal(1, 1, 300)}
    >>> [(v.feature, v.verdict) for v in compare(before, after, [Field("x", "float64")], Drift(effect=0.2))]
    [('x', 'drift')]
    >>> compare(before, {"x": after["x"][:20]}, [Field("x", "float64")], Drift(min_rows=200))[0].why
    'the window has 20 rows, 200 are wanted'
    """
    judged = [field for field in fields if field.name not in monitor.ignore]
    tail = FALSE_ALARMS / max(len(judged), 1)
    verdicts = []
    for field in judged:
        before = sample(_column(reference, field, "training data"), field)
        after = sample(_column(current, field, "window"), field)
        finding = _find(before, after, monitor, tail=tail)
        if past is not None and field.name in past.frame:
            finding = _unless_usual(finding, past, field, rows=len(after.values))
        verdicts.append(_verdict(field, before, after, finding))
    return verdicts


def sample(values: NDArray[Any], field: Field) -> Sample:
    """Return the values that are there; a number that is not finite counts as missing."""
    return Sample(values[present(values, field)], len(values))


def _column(frame: Frame, field: Field, where: str) -> NDArray[Any]:
    if field.name not in frame:
        raise UnknownNameError("feature", field.name, list(frame), where=f"the {where}")
    return frame[field.name]


def _verdict(field: Field, before: Sample, after: Sample, finding: Finding) -> ColumnVerdict:
    return ColumnVerdict(
        feature=field.name,
        kind="text" if field.dtype == "string" else "number",
        null_rate_reference=before.null_rate,
        null_rate_current=after.null_rate,
        **msgspec.structs.asdict(finding),
    )


def _find(before: Sample, after: Sample, monitor: Drift, *, tail: float) -> Finding:
    wanted, there = monitor.min_rows, len(after.values)
    if not before.rows:
        raise DataError(
            "the training data has no row to compare with", next_step="materialize the training dataset again"
        )
    if after.rows < wanted:
        return Finding("too few rows", f"the window has {after.rows} rows, {wanted} are wanted")
    if _values_stopped(before, after, tail=tail):
        return Finding(
            "missing", f"{after.null_rate:.1%} of the rows have no value, {before.null_rate:.1%} in the training data"
        )
    if there < wanted:
        return Finding("too few rows", f"only {there} of {after.rows} rows have a value, {wanted} are wanted")
    if not len(before.values):
        return Finding("drift", "the training data has no value at all, the window has")
    return _find_drift(before, after, monitor, tail=tail)


def _values_stopped(before: Sample, after: Sample, *, tail: float) -> bool:
    if not len(after.values):  # all null: caught even where nulls were common, unless that explains it
        return before.null_rate**after.rows < tail
    rise = after.null_rate - before.null_rate
    pooled = (before.nulls + after.nulls) / (before.rows + after.rows)
    return rise > max(NULL_RATE_RISE, null_rate_by_chance(pooled, (before.rows, after.rows), tail=tail))


def _find_drift(before: Sample, after: Sample, monitor: Drift, *, tail: float) -> Finding:
    effect, counts = monitor.effect, counted(before.values, after.values)
    distance = float(jensen_shannon(*counts))
    if distance > effect:  # shuffling costs milliseconds: only where it can matter
        chance = chance_distance(*counts, tail=tail)
        if distance > chance:
            why = f"distance {distance:.3f} is above {effect:g}, and above {chance:.3f} that chance can give here"
            return Finding("drift", why, distance, max(effect, chance))
        return Finding(
            "ok", f"distance {distance:.3f} is within {chance:.3f} that chance can give here", distance, chance
        )
    if before.values.dtype == object:
        share, chance = unseen_share(before.values, after.values, tail=tail)
        if share > max(UNSEEN_SHARE, chance):
            why = f"{share:.1%} of the values are categories that the training data does not have"
            return Finding("drift", why, distance, effect)
    return Finding("ok", f"distance {distance:.3f} is within {effect:g}", distance, effect)


def _unless_usual(finding: Finding, past: Past, field: Field, *, rows: int) -> Finding:
    distance, bar = finding.distance, finding.threshold
    if distance is None or bar is None or distance <= bar:
        return finding
    usual = past_distance(past, field, rows=rows)
    if usual is None:
        return finding
    if distance > usual + _ROUNDING:
        why = f"{finding.why}, and further than any such time of the training data ({usual:.3f})"
        return Finding(finding.verdict, why, distance, max(usual, bar))
    why = f"distance {distance:.3f} is usual: a time of the training data was {usual:.3f} from the rest of it"
    return Finding("ok", why, distance, usual)
