"""Counterfactuals: what would have to be another for the decision to be another.

The nearest row in the sense of Wachter, Mittelstadt and Russell (2017): absolute changes in units of each feature's
median absolute deviation, so that few features change. It is looked for from rows of the training data with the other
decision, as Keane and Smyth (2020) do: their values are taken over, taken back where that changes nothing, and numbers
moved towards the row's own as far as the decision allows. So every value lies between the row's own and a real one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.errors import RequestError, listed
from windrow.features.contract import MISSING_TEXT, Frame
from windrow.serving.explaining.decision import Decisions
from windrow.serving.explaining.explanation import Change, Counterfactual
from windrow.serving.explaining.subject import Subject, output_of, plain, repeated

_STARTS = 5  # training rows from which it is looked for
_STEPS = 16
_WHOLE = ("int32", "int64", "bool")
_METHOD = "nearest by MAD-weighted distance (Wachter et al. 2017), from training rows with another decision (Keane and Smyth 2020)"

Numbers = NDArray[np.float64]


class _Row(NamedTuple):
    values: Frame  # one row
    distance: float
    changed: int


def counterfactual_of(subject: Subject, frame: Frame, row: int) -> Counterfactual:
    """Return the nearest row found with another decision; the served model was asked about it.

    Raises
    ------
    RequestError
        422 where no change of the features that may change makes another decision.
    """
    search = _Search(subject, {name: values[row : row + 1] for name, values in frame.items()})
    found = search.nearest()
    if found is None:
        raise RequestError(
            422,
            "no-contrast",
            f"No training row of release {subject.release.id} has features that would change the decision of this row",
            where="$",
            next_step=f"declare fewer features immutable; now they are {listed(subject.immutable)}",
        )
    after = subject.bundle.predict(found.values)
    return Counterfactual(
        release=subject.release.id, output=output_of(search.answer[0]), decision=search.said(search.answer),
        changes=search.changes(found.values), output_after=output_of(after[0]), decision_after=search.said(after),
        distance=round(found.distance, 6), immutable=subject.immutable, method=_METHOD, background=subject.background,
    )  # fmt: skip


class _Search:
    def __init__(self, subject: Subject, row: Frame) -> None:
        self._subject, self._row = subject, row
        self._decisions = Decisions(subject.release, subject.usual)
        self.answer = subject.bundle.predict(row)
        self._decided = self._decisions.of(self.answer)[0]
        self._free = [name for name in subject.names if name not in subject.immutable]
        self._units = {name: _unit(values) for name, values in subject.rows.items() if values.dtype != object}
        self._whole = {field.name for field in subject.contract.features if field.dtype in _WHOLE}

    def said(self, answer: Numbers) -> str:
        return self._decisions.spoken(int(self._decisions.of(answer)[0]))

    def changes(self, made: Frame) -> list[Change]:
        """Return what differs, the largest change first."""
        apart = self._apart(made)
        changed = sorted((name for name in self._free if apart[name][0] > 0), key=lambda name: -apart[name][0])
        return [Change(name, plain(self._row[name][0]), plain(made[name][0])) for name in changed]

    def nearest(self) -> _Row | None:
        """Return the best of what is found from a few training rows."""
        starts = self._starts()
        best: _Row | None = None
        for at in range(len(starts[self._subject.names[0]])):
            found = self._nearer({name: values[at : at + 1] for name, values in starts.items()})
            if best is None or (found.changed, found.distance) < (best.changed, best.distance):
                best = found
        return best

    def _starts(self) -> Frame:
        """Return the nearest rows with another decision that the row becomes with features of a training row."""
        usual = self._subject.rows
        rows = len(self._subject.usual)
        made = repeated(self._row, 0, rows)
        for name in self._free:
            made[name] = np.where(_missing(usual[name]), made[name], usual[name]).astype(made[name].dtype)
        other = np.flatnonzero(self._flips(made))
        distance = sum(self._apart(made).values(), np.zeros(rows))
        chosen = other[np.argsort(distance[other], kind="stable")[:_STARTS]]
        return {name: values[chosen] for name, values in made.items()}

    def _nearer(self, made: Frame) -> _Row:
        made = self._fewer(made)
        for name in self._free:
            if made[name].dtype != object and self._apart(made)[name][0] > 0:
                made = self._moved(made, name)
        apart = self._apart(made)
        return _Row(made, float(sum(a[0] for a in apart.values())), sum(bool(a[0] > 0) for a in apart.values()))

    def _fewer(self, made: Frame) -> Frame:
        """Take back one change after the other, the cheapest to keep last, while the decision stays another."""
        for _ in self._free:
            apart = self._apart(made)
            changed = [name for name in self._free if apart[name][0] > 0]
            tries = repeated(made, 0, max(1, len(changed)))
            for at, name in enumerate(changed):
                tries[name][at] = self._row[name][0]
            kept = [name for name, flips in zip(changed, self._flips(tries), strict=False) if flips]
            if not kept or len(changed) < 2:
                break
            back = max(kept, key=lambda name: apart[name][0])
            made = {**made, back: self._row[back]}
        return made

    def _moved(self, made: Frame, name: str) -> Frame:
        """Move one number towards the row's own, as near as the decision stays another; looked for twice, by sixteenths."""
        own, theirs = float(self._row[name][0]), float(made[name][0])
        if not np.isfinite(theirs - own):
            return made
        near, far = 0.0, 1.0
        for _ in range(2):
            parts = np.linspace(near, far, _STEPS + 1)[1:]
            flips = self._flips({**repeated(made, 0, _STEPS), name: self._between(name, own, theirs, parts)})
            if not flips.any():
                break
            first = int(flips.argmax())
            near, far = (near if first == 0 else float(parts[first - 1])), float(parts[first])
        moved = {**made, name: self._between(name, own, theirs, np.array([far]))}
        return moved if self._flips(moved)[0] else made

    def _between(self, name: str, own: float, theirs: float, parts: Numbers) -> NDArray[np.float32]:
        values = own + parts * (theirs - own)
        if name in self._whole:
            values = np.ceil(values) if theirs > own else np.floor(values)
        return values.astype(np.float32)

    def _flips(self, frame: Frame) -> NDArray[np.bool_]:
        return np.asarray(self._decisions.of(self._subject.bundle.predict(frame)) != self._decided)

    def _apart(self, made: Frame) -> dict[str, Numbers]:
        """Return feature -> how far each row is from the row that is explained."""
        found = {}
        for name in self._free:
            own, theirs = self._row[name], made[name]
            if theirs.dtype == object:
                found[name] = (theirs != own).astype(np.float64)
                continue
            with np.errstate(invalid="ignore"):
                gap = np.abs(theirs.astype(np.float64) - own) / self._units[name]
            same = (theirs == own) | (np.isnan(own) & np.isnan(theirs))
            found[name] = np.where(same, 0.0, np.where(np.isfinite(gap), gap, 1.0))  # known instead of missing
        return found


def _unit(values: NDArray[Any]) -> float:
    """Return the median absolute deviation, or what there is where more than half of the values are one."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return 1.0
    return float(np.median(np.abs(known - np.median(known))) or known.std() or 1.0)


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(values == MISSING_TEXT if values.dtype == object else np.isnan(values), dtype=bool)
