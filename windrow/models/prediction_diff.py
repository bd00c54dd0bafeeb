"""Two releases asked about the same rows: what they answer differently, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from windrow.errors import ModelError
from windrow.models.keys import entity_fields
from windrow.models.scoring import PREDICTION, PROBABILITY, answered, newest_rows
from windrow.models.spine import spine_rows
from windrow.schema import EVENT_TIME

if TYPE_CHECKING:
    import pyarrow as pa
    from ibis.backends import BaseBackend

    from windrow.models.bundle import Bundle
    from windrow.models.release import Task
    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake

SAME = 1e-9  # answers that differ by less are the same
_SHOWN = 10
_HALF = 0.5

_WORDS = {
    "regression": "a number",
    "classification": "one probability",
    "multiclass": "one probability for each class",
}

_Floats = NDArray[np.float64]


class ClassDiff(msgspec.Struct, frozen=True):
    """How far the probabilities of one class are apart: mean and largest absolute difference."""

    mean: float
    most: float


class PredictionDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What two releases answer differently.

    Attributes
    ----------
    before, after
        The releases.
    rows
        How many rows both were asked about.
    changed, classes
        How many answers differ; how many of these name another class: of two classes, are on the other side of 0.5
        (None for a regression).
    unanswered
        How many rows only one of them answers.
    mean, most
        Mean and largest absolute difference over the rows that both answer; of three classes or more a row's
        difference is that of the class whose probability moved most.
    by_class
        Of three classes or more the same for each class; a class that only one release knows has the probability 0
        in the other.
    largest
        The rows that differ most: keys, time, both answers and their difference; of three classes or more the answers
        are the likeliest classes, and ``class`` is the one whose probability moved most.
    """

    service: str
    before: str
    after: str
    rows: int
    changed: int
    classes: int | None
    unanswered: int
    mean: float
    most: float
    by_class: dict[str, ClassDiff]
    largest: list[dict[str, Any]]


def prediction_diff(
    service: PredictionService,
    before: Bundle,
    after: Bundle,
    lake: Lake,
    con: BaseBackend,
    *,
    now: int,
    start: int | None,
) -> PredictionDiff:
    """Return how the answers of `after` differ from those of `before`, for rows of one lake.

    Parameters
    ----------
    start, now
        Rows from `start` to `now`, UTC microseconds; without `start` the newest row of each key.

    Raises
    ------
    ModelError
        If one answers with a number and the other with a class, or with one of two and of more classes.
    """
    task = _task(before, after)
    spine = spine_rows(service, lake, con, start=start, end=now + 1, now=now)
    if start is None:
        spine = newest_rows(spine, entity_fields(service))
    answers = [answered(bundle, lake, con, spine, now=now) for bundle in (before, after)]
    ids, names = (before.id, after.id), (*before.release.classes, *after.release.classes)
    return differences(service.name, ids, answers[0], answers[1], task=task, names=names)


def _task(before: Bundle, after: Bundle) -> Task:
    one, other = before.release.task, after.release.task
    if one != other:
        raise ModelError(
            f"release {before.id!r} answers with {_WORDS[one]}, and {after.id!r} with {_WORDS[other]}: no row can be compared",
            next_step="compare what they are made of: windrow diff RELEASE RELEASE",
        )
    return one


def differences(
    service: str,
    releases: tuple[str, str],
    before: pa.Table,
    after: pa.Table,
    *,
    task: Task,
    names: Sequence[str] = (),
) -> PredictionDiff:
    """Compare two answers to the same rows, in the same order.

    Parameters
    ----------
    names
        Of three classes or more, those that either release knows.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = {"card": [1, 2], "event_time": pa.array([0, 0], pa.timestamp("us", "UTC"))}
    >>> old, new = (pa.table({**rows, "prediction": made}) for made in ([0.4, 0.9], [0.6, 0.9]))
    >>> found = differences("fraud", ("fraud-1", "fraud-2"), old, new, task="classification")
    >>> found.changed, found.classes, found.largest[0]["card"], round(found.most, 6)
    (1, 1, 1, 0.2)
    """
    names = list(dict.fromkeys(names))
    old, new = _answers(before, names), _answers(after, names)
    apart = np.abs(new - old)
    rows, both = apart.max(axis=1), ~np.isnan(apart).any(axis=1)
    unanswered = int((np.isnan(old).any(axis=1) != np.isnan(new).any(axis=1)).sum())
    changed = both & (rows > SAME)
    crossed = int((both & (_classes(old) != _classes(new))).sum())
    mean, most = _size(rows[both])
    return PredictionDiff(
        service=service, before=releases[0], after=releases[1], rows=len(old), changed=int(changed.sum()) + unanswered,
        classes=None if task == "regression" else crossed, unanswered=unanswered, mean=mean, most=most,
        by_class={name: ClassDiff(*_size(apart[both, place])) for place, name in enumerate(names)},
        largest=_largest(before, old, new, changed, names=names),
    )  # fmt: skip


def _answers(rows: pa.Table, names: Sequence[str]) -> _Floats:
    """Return what was answered, shape (n, 1), or (n, classes): by its name, whatever its place in a release."""
    from windrow.features.arrow import to_numpy

    given = {name: f"{PROBABILITY}{name}" for name in names}
    refused = np.where(np.isnan(to_numpy(rows[PREDICTION], "float64")), np.nan, 0.0)
    columns = [to_numpy(rows[c], "float64") if c in rows.column_names else refused for c in given.values()]
    return np.column_stack(columns or [to_numpy(rows[PREDICTION], "float64")])


def _classes(answers: _Floats) -> NDArray[np.int_]:
    if answers.shape[1] == 1:
        return (answers[:, 0] >= _HALF).astype(int)
    likeliest: NDArray[np.int_] = np.argmax(answers, axis=1)
    return likeliest


def _size(apart: _Floats) -> tuple[float, float]:
    return (float(apart.mean()), float(apart.max())) if len(apart) else (0.0, 0.0)


def _largest(
    rows: pa.Table, old: _Floats, new: _Floats, changed: NDArray[np.bool_], *, names: Sequence[str]
) -> list[dict[str, Any]]:
    places = np.flatnonzero(changed)
    moved = np.argmax(np.abs(new - old)[places], axis=1)
    sizes = (new - old)[places, moved]
    order = np.argsort(-np.abs(sizes), kind="stable")[:_SHOWN]
    named = [name for name in rows.column_names[: rows.column_names.index(EVENT_TIME) + 1]]
    facts = rows.select(named).take(places[order]).to_pylist()
    told = [_told(old[places[at]], new[places[at]], names, int(moved[at])) for at in order]
    return [{**fact, **told, "difference": float(sizes[at])} for fact, told, at in zip(facts, told, order, strict=True)]


def _told(old: _Floats, new: _Floats, names: Sequence[str], moved: int) -> dict[str, Any]:
    if not names:
        return {"before": float(old[0]), "after": float(new[0])}
    return {"before": names[int(np.argmax(old))], "after": names[int(np.argmax(new))], "class": names[moved]}
