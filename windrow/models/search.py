"""Hyper-parameter search: scikit-learn's own, with folds that respect time, a progress bar, and every trial kept."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from windrow.errors import ModelError
from windrow.models.folds import TimeFolds, refuse_looking_ahead
from windrow.models.split import GroupSplit, TimeSplit, group_of
from windrow.schema import EVENT_TIME

if TYPE_CHECKING:
    from windrow.models.dataset import Split
    from windrow.models.service import PredictionService

Say = Callable[[str], None]

_PATIENCE = 2.0  # seconds after which a wait is explained
_LOOK, _LINE = 0.2, 10.0  # seconds between two looks, and between two lines of a log
_TASK = "candidate-split-evaluation"  # scikit-learn's name for one candidate fitted on one fold
_FOLDS = 5  # as scikit-learn makes
_LONGEST = 200
_NAMED = 20  # candidates; the tracking table has them all


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of a search.

    Attributes
    ----------
    parameters
        Name -> value as text.
    scores
        Of each fold, in order of time; None where it could not be fitted or scored.
    mean
        Over the folds; higher is better, as scikit-learn's scorers have it.
    rank
        1 is the best; a halving search ranks the candidates of its last round first.
    seconds
        Spent on all folds.
    resources
        How much of a halving search's resource it was given, None for other searches.
    """

    number: int
    parameters: dict[str, str]
    scores: list[float | None]
    mean: float | None
    rank: int
    seconds: float
    resources: int | None = None


def is_search(estimator: Any) -> bool:
    """Return whether an estimator is one of scikit-learn's searches.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> is_search(GridSearchCV(Ridge(), {"alpha": [1, 2]})), is_search(Ridge())
    (True, False)
    """
    from sklearn.model_selection._search import BaseSearchCV

    return isinstance(estimator, BaseSearchCV)


def with_folds(search: Any, service: PredictionService, learn: Split) -> Any:
    """Return the search with folds that fit the service's split, or its own (``cv=``) once they were looked at.

    A number of folds says how many, not which: they are made here all the same.

    Raises
    ------
    ModelError
        If folds of its own look ahead where the service splits by time.
    """
    if not isinstance(search.cv, Integral | None):
        times = _times(learn)
        return _with_its_own(search, service, learn, times) if _in_time(service, times) else search
    folds = folds_of(service, learn, count=int(search.cv or _FOLDS))
    return search if folds is None else search.set_params(cv=folds)


def folds_of(service: PredictionService, learn: Split, *, count: int = _FOLDS) -> Any:
    """Return a ``cv=`` that keeps to the service's split: by time, by group or both; None where any folds do.

    Raises
    ------
    DataError
        If the rows are of too short a time for a single fold.
    """
    times, split = _times(learn), service.split
    groups = None if (name := group_of(split)) is None else _texts(learn, name)
    if isinstance(split, TimeSplit) and _in_time(service, times):
        labels = learn.y if service.label.binary or service.label.multiclass else None
        return TimeFolds(times, gap=split.gap, groups=groups, labels=labels, n_splits=count)
    if isinstance(split, TimeSplit | GroupSplit) and groups is not None:
        from sklearn.model_selection import GroupKFold

        count = min(count, len(np.unique(groups)))
        return list(GroupKFold(count).split(learn.X, learn.y, groups))
    return None


def _times(learn: Split) -> Any:
    return learn.rows[EVENT_TIME].cast("int64").to_numpy()


def _in_time(service: PredictionService, times: Any) -> bool:
    return isinstance(service.split, TimeSplit) and len(np.unique(times)) > 1


def _with_its_own(search: Any, service: PredictionService, learn: Split, times: Any) -> Any:
    from sklearn.base import is_classifier
    from sklearn.model_selection import check_cv

    assert isinstance(service.split, TimeSplit)
    cv = check_cv(search.cv, learn.y, classifier=is_classifier(search.estimator))
    where = f"the {type(search).__name__} of service {service.name!r} with cv={' '.join(repr(search.cv).split())[:80]}"
    refuse_looking_ahead(list(cv.split(learn.X, learn.y)), times, gap=service.split.gap, where=where)
    return search.set_params(cv=cv)  # folds that can be read once only have been read now


def best_of(search: Any, *, where: str) -> Any:
    """Return the fitted winner of a search; raise `ModelError` if it fitted none."""
    if not hasattr(search, "best_estimator_"):
        raise without_winner(search, where=where)
    return search.best_estimator_


def without_winner(search: Any, *, where: str) -> ModelError:
    """Return the error that a search fits no winner."""
    return ModelError(
        f"the {type(search).__name__} of {where} has no best estimator",
        next_step="leave its refit at True, or name the metric: refit='roc_auc'",
    )


def trials_of(search: Any) -> list[Trial]:
    """Return every candidate of a fitted search, in the order in which they were tried."""
    found = search.cv_results_
    metric = "score" if "mean_test_score" in found else str(search.refit)
    folds = [found[f"split{number}_test_{metric}"] for number in range(search.n_splits_)]
    seconds = (found["mean_fit_time"] + found["mean_score_time"]) * search.n_splits_
    return [
        Trial(
            number=number, parameters=texts(parameters), scores=[_number(fold[number]) for fold in folds],
            mean=_number(found[f"mean_test_{metric}"][number]), rank=int(found[f"rank_test_{metric}"][number]),
            seconds=round(float(seconds[number]), 4),
            resources=int(found["n_resources"][number]) if "n_resources" in found else None,
        )
        for number, parameters in enumerate(found["params"])
    ]  # fmt: skip


def summary_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what a release says of the search that it won: how many were tried, and the best of them.

    Examples
    --------
    >>> tried = Trial(number=0, parameters={"alpha": "1.0"}, scores=[0.5, 0.7], mean=0.6, rank=1, seconds=0.1)
    >>> summary_of([tried])
    {'candidates': 1, 'folds': 2, 'best': [{'rank': 1, 'mean': 0.6, 'parameters': {'alpha': '1.0'}}]}
    """
    best = sorted(trials, key=lambda trial: trial.rank)[:_NAMED]
    named = [{"rank": t.rank, "mean": t.mean, "parameters": t.parameters} for t in best]
    return {"candidates": len(trials), "folds": len(trials[0].scores), "best": named}


def texts(parameters: dict[str, Any]) -> dict[str, str]:
    """Return parameters as short text, for people.

    Examples
    --------
    >>> texts({"b": [1, 2], "a": 0.5})
    {'a': '0.5', 'b': '[1, 2]'}
    """
    return {str(n): " ".join(repr(v).split())[:_LONGEST] for n, v in sorted(parameters.items())}


@contextmanager
def progress(search: Any, *, say: Say | None = None) -> Iterator[None]:
    """Show how far a search is, once it takes over two seconds: lines to `say`, else a bar on a terminal.

    Every fit adds a byte to a file, so that fits in other processes (``n_jobs=2``) are counted too.
    """
    with tempfile.TemporaryDirectory(prefix="windrow-search-") as folder:
        file, done = Path(folder) / "fits", threading.Event()
        file.touch()
        watcher = threading.Thread(target=_watch, args=(file, done, say), daemon=True)
        search.set_callbacks(FitCounter(str(file)))
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            search.set_callbacks()


class FitCounter:
    """scikit-learn's callback that counts the fits of a search; it holds a path only, and so goes to any process."""

    def __init__(self, file: str) -> None:
        self.file = file

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing before the search."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing after it."""

    def on_fit_task_begin(self, estimator: Any, context: Any, **given: Any) -> None:
        """Remember how many fits there will be; a halving search cannot know."""
        if context.task_name == "search" and not context.sequential_subtasks:
            _total(Path(self.file)).write_text(str(context.max_subtasks))

    def on_fit_task_end(self, estimator: Any, context: Any, **given: Any) -> None:
        """Count one candidate fitted on one fold."""
        if context.task_name == _TASK:
            with open(self.file, "ab") as file:
                file.write(b".")


def _total(file: Path) -> Path:
    return file.with_suffix(".total")


def _far(file: Path) -> tuple[int, int | None]:
    total = _total(file)
    return file.stat().st_size, int(total.read_text() or 0) or None if total.exists() else None


def _watch(file: Path, done: threading.Event, say: Say | None) -> None:
    begin = time.monotonic()
    if done.wait(_PATIENCE):
        return
    if say is not None:
        _say(file, done, say, begin)
    elif sys.stderr.isatty():
        _draw(file, done)


def _say(file: Path, done: threading.Event, say: Say, begin: float) -> None:
    while True:
        fits, total = _far(file)
        of = f" of {total}" if total else ""
        say(f"search: {fits}{of} fits done in {time.monotonic() - begin:.0f} s")
        if done.wait(_LINE):
            return


def _draw(file: Path, done: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("searching: {task.completed:.0f} fits"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("search", total=None)
        while not done.wait(_LOOK):
            fits, total = _far(file)
            bar.update(task, completed=fits, total=total)


def _texts(learn: Split, name: str) -> Any:
    found = learn.rows[name].to_pylist() if name in learn.rows.column_names else learn.frame[name].tolist()
    return np.array([repr(value) for value in found])


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
