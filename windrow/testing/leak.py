"""The law that nothing fitted depends on the rows that a model is judged on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from windrow.errors import ModelError
from windrow.models.dataset import SPLIT, TrainingDataset, load_split
from windrow.models.fitting import Fitted, chosen, fit, places_of, takes_validation, task_for
from windrow.models.labels import LABEL
from windrow.models.runtime import SklearnModel
from windrow.models.service import Notebook, PredictionService
from windrow.models.splits import TEST, TRAIN, VALIDATION
from windrow.settings import Settings
from windrow.testing.fitted import fitted_content

if TYPE_CHECKING:
    import pyarrow as pa

Fit = Callable[[PredictionService, TrainingDataset], Any]


def no_leak(
    service: PredictionService, dataset: TrainingDataset, *, fit: Fit | None = None, project: Path | None = None
) -> None:
    """Prove that nothing fitted depends on the test split, or on a validation split that is not given to the trainer.

    The service's trainer runs on the dataset, on a copy in which every feature and label of the rows to be
    judged on is replaced by another, and on one with other labels alone. What it fitted, part by part, and what it answers must
    be the same bit for bit. It runs in an empty home where only this dataset is stored, so that a trainer
    that loads the dataset for itself is found out, and one that reads the project's tables fails.

    Parameters
    ----------
    service
        With any trainer: an estimator or search, ``train=``, or a notebook (run in a process of its own).
    dataset
        Built for it, with a training and a test split.
    fit
        How to train, instead of the service's own trainer: given both, returns a fitted estimator.
    project
        Folder of the project, for notebooks (default: as the environment says).

    Raises
    ------
    AssertionError
        Naming the parts of the estimator that differ, or that training gives another result each time.
    """
    train = fit or _trainer(service, project)
    with TemporaryDirectory(prefix="windrow-leak-") as folder:
        own = _Home(Path(folder), service, dataset, project)
        probes = [load_split(own.dataset, service.view.contract, name) for name in (TRAIN, TEST)]
        first = _learned(own, train, probes)
        # What is only chosen on those rows may stay when features and labels turn together: so labels alone, too.
        for columns in ([*service.view.contract.feature_names, LABEL], [LABEL]):
            own.replace(columns, _held_out(service, dataset))
            second = _learned(own, train, probes)
            if found := _different(first, second):
                _refuse_unrepeatable(second, _learned(own, train, probes), service)
                raise AssertionError(
                    f"the trainer of service {service.name!r} looks at rows that it is judged on: with other values "
                    f"in the {' and '.join(_held_out(service, dataset))} split, {_told(found)} differ"
                )


class _Home:
    """A home in which one dataset is stored, under its own id."""

    def __init__(
        self, folder: Path, service: PredictionService, dataset: TrainingDataset, project: Path | None
    ) -> None:
        import pyarrow.parquet as pq

        from windrow.stores.metadata import Metadata

        self.service, self.folder = service, folder
        self.rows = pq.read_table(dataset.path, memory_map=False)
        self.dataset = msgspec.structs.replace(dataset, path=str(folder / Path(dataset.path).name))
        given = {name: value for name, value in os.environ.items() if not name.startswith("WINDROW_")}
        place = project or Settings.read().project
        self.environment = {**given, "WINDROW_HOME": str(folder), "WINDROW_PROJECT": str(place)}
        metadata = Metadata(Settings.read(self.environment).metadata)
        metadata.add_dataset(dataset.id, service.name, msgspec.to_builtins(self.dataset))
        metadata.close()
        self.write(self.rows)

    def write(self, rows: pa.Table) -> None:
        import pyarrow.parquet as pq

        pq.write_table(rows, self.dataset.path)

    def replace(self, columns: list[str], splits: list[str]) -> None:
        self.write(replaced(self.rows, columns, splits, classes=len(places_of(self.service))))

    @contextmanager
    def entered(self) -> Iterator[None]:
        before = dict(os.environ)
        try:
            _environ(self.environment)
            yield
        finally:
            _environ(before)


def _environ(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def replaced(rows: pa.Table, columns: list[str], splits: list[str], *, classes: int = 0) -> pa.Table:
    """Return the rows of a dataset with other values in `columns` of `splits`; nothing else is touched.

    Parameters
    ----------
    classes
        How many the label has: of three or more, each becomes the next one.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"x": [2.0, None], "label": [0.0, 1.0], "split": ["train", "test"]})
    >>> replaced(rows, ["x", "label"], ["test"]).to_pydict()
    {'x': [2.0, 17.0], 'label': [0.0, 0.0], 'split': ['train', 'test']}
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = pc.is_in(rows[SPLIT], value_set=pa.array(splits))
    for name in columns:
        column = rows[name]
        turned = name == LABEL and classes > 2
        others = pa.chunked_array([_next_class(column, classes) if turned else _others(column)])
        rows = rows.set_column(rows.schema.get_field_index(name), name, pc.if_else(chosen, others, column))
    return rows


def _next_class(column: pa.ChunkedArray, classes: int) -> pa.Array:
    import pyarrow as pa

    return pa.array((column.to_numpy() + 1) % classes).cast(column.type)


def _others(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pa.array([f"{'' if text is None else text}, replaced" for text in column.to_pylist()], column.type)
    values = np.nan_to_num(np.array([np.nan if v is None else float(v) for v in column.to_pylist()]))
    classes = set(np.unique(values)) <= {0.0, 1.0}  # a class stays a class
    others = 1 - values if classes and not np.all(values == 0) else 17 - 3 * values
    return pa.array(others).cast(column.type, safe=False)


def _held_out(service: PredictionService, dataset: TrainingDataset) -> list[str]:
    given = takes_validation(service)
    return [name for name in (VALIDATION, TEST) if name in dataset.splits and not (name == VALIDATION and given)]


def _trainer(service: PredictionService, project: Path | None) -> Fit:
    if not isinstance(service.trainer, Notebook):
        return fit
    notebooks = (project or Settings.read().project) / "notebooks"
    return lambda owner, _: _by_notebook(owner, owner.trainer_path(notebooks))


def _by_notebook(service: PredictionService, path: Path) -> Any:
    """Run a notebook's code in a process of its own and return the estimator that it saved."""
    from windrow.orchestrate.notebook_file import NotebookFile

    cells = "\n\n".join(NotebookFile.read(path).code)
    folder = Settings.read().folder("notebooks")
    # One native thread: a fit that shares its cores would wait for its own threads.
    environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-"], input=cells, text=True, capture_output=True, env=environment, cwd=path.parent
    )  # noqa: PLW1510 - its error is told below
    saved = sorted(folder.glob(f"{service.name}-*.skops"))
    if done.returncode or not saved:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "it saved no model")
        raise ModelError(
            f"notebook {path.name!r} trains no model where only its dataset is stored: {last}",
            next_step="load the training dataset and nothing else, and end with save(model)",
        )
    payload = saved[-1].read_bytes()
    saved[-1].unlink()
    return SklearnModel.load(payload, task=task_for(service), where=path.name).estimator


def _learned(own: _Home, train: Fit, probes: list[Any]) -> Mapping[str, str]:
    with own.entered():
        made = train(own.service, own.dataset)
    fitted = made if isinstance(made, Fitted) else chosen(made, own.service)
    model = SklearnModel(fitted.estimator, task=task_for(own.service))
    answers = {f"answers to {name} rows": model.predict(probe.frame) for name, probe in zip((TRAIN, TEST), probes, strict=True)}  # fmt: skip
    scores = {f"trial {t.number}": [repr(t.scores), sorted(t.parameters.items())] for t in fitted.trials}
    return fitted_content({"": fitted.estimator, **answers, **scores})


def _different(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    return sorted(name.strip(".") for name in {*one, *two} if one.get(name) != two.get(name))


def _refuse_unrepeatable(one: Mapping[str, str], two: Mapping[str, str], service: PredictionService) -> None:
    found = _different(one, two)
    if found:
        raise AssertionError(
            f"the trainer of service {service.name!r} gives another result each time ({_told(found)} differ), so a "
            "leak cannot be told from chance: give every random part a random_state"
        )


def _told(found: list[str]) -> str:
    rest = len(found) - 4
    return ", ".join(map(repr, found[:4])) + (f" and {rest} more" if rest > 0 else "")
