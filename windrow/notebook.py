"""The handle used inside notebooks: load what the project stored, save a model, report figures.

The same notebook runs in JupyterLab and as a Dagster asset; under Dagster, what is saved and reported
goes back to the asset over Dagster Pipes.

    from windrow.notebook import load, report, save

    load("features/card_spend_v1")      a stored table: .table (Ibis), .to_pandas()
    load("fraud/training_dataset")      .train, .validation and .test, each with .X, .y and .rows; .folds for a search
    report(auc=0.83)                    shown as metadata of the asset
    history(view, start, end)           one row per change of any feature, latest(view): one per entity
    runs("fraud"), trials("fraud")      every training run, every candidate of its searches, as Ibis tables
    save(model)                         hands a fitted model to windrow, which makes the release
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.errors import DataError, ModelError, UnknownNameError
from windrow.settings import Settings

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa
    from dagster_pipes import PipesContext

    from windrow.features.view import FeatureView
    from windrow.models.dataset import Split, TrainingDataset
    from windrow.models.service import PredictionService
    from windrow.stores.lake import Lake
    from windrow.stores.metadata import Metadata

Figure = float | int | str | bool

_PACKAGE = "assets"
_LOGGED = {"log": "prediction", "outcomes": "outcome"}
_last_loaded: list[TrainingData] = []


@dataclass(frozen=True, repr=False)
class StoredTable:
    """Rows that the project stored under `key`.

    Attributes
    ----------
    table
        An Ibis expression over every row; nothing is read before it is asked for.
    dtypes
        Column -> declared dtype.
    """

    key: str
    table: ir.Table
    dtypes: Mapping[str, str]

    def __repr__(self) -> str:
        return f"{self.key}: {', '.join(self.columns)}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.table.columns)

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a DataFrame whose dtypes follow the declaration, not the data."""
        from windrow.features.arrow import to_numpy, to_pandas

        rows = self.table.to_pyarrow()
        return to_pandas({name: to_numpy(rows.column(name), dtype) for name, dtype in self.dtypes.items()})

    def _repr_html_(self) -> str:
        from windrow.html import table_card

        return table_card(self)


@dataclass(frozen=True, repr=False)
class TrainingData:
    """A point-in-time training dataset: every row with what was known at its time, and its label.

    Attributes
    ----------
    dataset
        What it was made from, with its content hash.
    service
        The declaration it belongs to.
    """

    dataset: TrainingDataset
    service: PredictionService

    def __repr__(self) -> str:
        return f"{self.service.name}/training_dataset: {self.dataset.splits}"

    @cached_property
    def train(self) -> Split:
        """The rows to learn from: ``.X`` (DataFrame), ``.y`` (array of shape (n,)), ``.rows`` (Arrow)."""
        return self._split("train")

    @cached_property
    def validation(self) -> Split:
        """The rows to tune on, in the same form; none unless the service's split declares them."""
        return self._split("validation")

    @cached_property
    def test(self) -> Split:
        """The rows to be judged on, in the same form; never fit on them."""
        return self._split("test")

    @cached_property
    def folds(self) -> Any:
        """A ``cv=`` for scikit-learn's searches that keeps to the service's split; None where any folds do."""
        from windrow.models.search import folds_of

        return folds_of(self.service, self.train)

    def _split(self, name: str) -> Split:
        from windrow.models.dataset import load_split

        return load_split(self.dataset, self.service.view.contract, name)

    def _repr_html_(self) -> str:
        from windrow.html import dataset_card

        return dataset_card(self.dataset, self.service.view.contract)


@dataclass(frozen=True, repr=False)
class Reported:
    """What was reported or saved, shown as a small card."""

    title: str
    facts: Mapping[str, Figure]
    next_step: str = ""

    def __repr__(self) -> str:
        return f"{self.title}: {dict(self.facts)}"

    def _repr_html_(self) -> str:
        from windrow.html import facts_card

        return facts_card(self.title, self.facts, next_step=self.next_step)


def load(key: str, *, id: str | None = None) -> Any:
    """Return what is stored under an asset's key.

    Parameters
    ----------
    key
        ``sources/<name>``, ``features/<group>_v<N>``, ``<service>/training_dataset``,
        ``<service>/predictions``, ``<service>/log`` or ``<service>/outcomes``. Written as a literal,
        it is an input of the notebook's asset.
    id
        Of a training dataset that is not the newest; every release and run names its own.

    Returns
    -------
    StoredTable or TrainingData

    Raises
    ------
    UnknownNameError
        If the project declares nothing under that key; offers the closest one.
    NotFoundError
        If it is declared and was not made yet.
    DataError
        If the id is that of a release, or something else than a training dataset is asked for by id.
    """
    project = _Project.open()
    if key not in project.keys:
        raise UnknownNameError("asset", key, project.keys, where="the project")
    room, _, name = key.partition("/")
    if name == "training_dataset" and room not in ("sources", "features"):
        return project.training(room, id)
    if id is not None:
        raise DataError(f"{key} has no ids", next_step='leave id= out, or load "<service>/training_dataset"')
    if room in ("sources", "features"):
        return project.table(key)
    return project.logged(room, name) if name in _LOGGED else project.predictions(room)


def history(view: FeatureView | str, start: str, end: str, keys: Any = None) -> pa.Table:
    """Return one row per change of any feature between two times; see `windrow.history`.

    Parameters
    ----------
    view
        A view, or the name of the service whose view is meant.
    start, end, keys
        As for `windrow.history`.
    """
    from windrow.retrieval import history

    return history(_view(view), start, end, keys, settings=_settings())


def latest(view: FeatureView | str, now: str | None = None, keys: Any = None) -> pa.Table:
    """Return one row per entity: what a view (or a service's, by name) says now; see `windrow.latest`."""
    from windrow.retrieval import latest

    return latest(_view(view), now, keys, settings=_settings())


def runs(service: str) -> ir.Table:
    """Return one row per training run of a service, to compare; see `windrow.runs`."""
    from windrow.models.runs import runs

    return runs(service, settings=_settings())


def trials(service: str) -> ir.Table:
    """Return one row per candidate of a service's searches; see `windrow.trials`."""
    from windrow.models.runs import trials

    return trials(service, settings=_settings())


def _view(view: FeatureView | str) -> FeatureView:
    return service(view).view if isinstance(view, str) else view


def service(name: str) -> PredictionService:
    """Return a declared prediction service; raise `UnknownNameError` with the closest name."""
    from windrow.discover import pick

    return pick(_Project.open().services, name)


def report(**figures: Figure) -> Reported:
    """Give figures to the notebook's asset, as its metadata; outside Dagster they are only shown.

    Examples
    --------
    >>> report(rows=2, auc=0.5).facts
    {'rows': 2, 'auc': 0.5}
    """
    plain = {name: _plain(value) for name, value in figures.items()}
    _send({"metrics": plain})
    return Reported("Reported", plain)


def save(model: Any, *, service: str | None = None) -> Reported:
    """Hand a fitted model to windrow: compiled, proven, judged by the gates and released by the asset.

    Parameters
    ----------
    model
        A fitted scikit-learn estimator, or a fitted search: its winner is released, its trials are tracked.
    service
        Whose model it is; default: the service whose training dataset was loaded last.

    Raises
    ------
    ModelError
        If it is not an estimator, no service is known, or a search was judged by the past of what it learned.
    """
    from zipfile import ZIP_DEFLATED

    import skops.io

    owner = service or (_last_loaded[-1].service.name if _last_loaded else None)
    if owner is None:
        raise ModelError(
            "save() does not know whose model this is",
            next_step='load("<service>/training_dataset") first, or write save(model, service="...")',
        )
    if not callable(getattr(model, "predict", None)):
        raise ModelError(
            f"save() was given a {type(model).__name__}, which cannot predict", next_step="give it the fitted estimator"
        )
    model, trials = _winner(model, owner)
    path = _settings().folder("notebooks") / f"{owner}-{os.getpid()}.skops"
    skops.io.dump(model, path, compression=ZIP_DEFLATED)  # plain files are 2 to 50 times larger
    _send({"saved": str(path), "trials": trials})
    under_dagster = "the release is made when this notebook ends"
    by_hand = f"run it as the asset {owner}/model to make a release (windrow run {owner})"
    facts: dict[str, Figure] = {"model": type(model).__name__, "service": owner, "file": path.name}
    return Reported("Saved", facts, next_step=under_dagster if _pipes() else by_hand)


def _winner(model: Any, owner: str) -> tuple[Any, list[Any]]:
    import msgspec

    from windrow.models.search import best_of, is_search, trials_of

    if not is_search(model):
        return model, []
    _check_folds(model, owner)
    return best_of(model, where=f"service {owner!r}"), msgspec.to_builtins(trials_of(model))


def _check_folds(search: Any, owner: str) -> None:
    data = next((data for data in reversed(_last_loaded) if data.service.name == owner), None)
    if search.cv is None and data is not None and data.folds is not None:
        kind = type(data.service.split).__name__
        raise ModelError(
            f"the {type(search).__name__} was left to choose its folds, and they do not keep to the {kind} of service {owner!r}",
            next_step=f'give it cv=data.folds, where data = load("{owner}/training_dataset"), and fit it again',
        )


class _Project:
    """The project around a notebook: its settings, declarations and stores."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def open(cls) -> _Project:
        return cls(_settings())

    @cached_property
    def services(self) -> dict[str, PredictionService]:
        from windrow.discover import services

        pipes = _pipes()
        package = pipes.extras["package"] if pipes is not None else _PACKAGE
        return services(package, project=self.settings.project)

    @cached_property
    def keys(self) -> list[str]:
        from windrow.discover import groups

        made = ("training_dataset", "predictions", *_LOGGED)
        return [
            *(source.key for found in self.services.values() for source in found.sources),
            *(group.key for group in groups(self.services.values())),
            *(f"{name}/{part}" for name in self.services for part in made),
        ]

    @property
    def lake(self) -> Lake:
        from windrow.stores.lake import Lake

        return Lake(self.settings.lake)

    @property
    def metadata(self) -> Metadata:
        from windrow.stores.metadata import Metadata

        return Metadata(self.settings.metadata)

    def table(self, key: str) -> StoredTable:
        from windrow.stores.engine import engine

        return _stored(key, self.lake.table(key).scan(engine()))

    def predictions(self, name: str) -> StoredTable:
        from windrow.stores.engine import engine

        return _stored(f"{name}/predictions", self.lake.table(f"predictions/{name}").scan(engine()))

    def logged(self, name: str, kind: str) -> StoredTable:
        import ibis

        from windrow.stores.log import PredictionLog

        log = PredictionLog(self.settings.folder("log"), self.lake)
        return _stored(f"{name}/{kind}", ibis.memtable(log.table(name, kind=_LOGGED[kind])))

    def training(self, name: str, id: str | None) -> TrainingData:
        from windrow.models.dataset_ids import dataset_with

        made = TrainingData(dataset_with(self.metadata, name, id), self.services[name])
        _last_loaded.append(made)
        return made


def _stored(key: str, table: ir.Table) -> StoredTable:
    return StoredTable(key, table, {name: _dtype(kind) for name, kind in table.schema().items()})


def _dtype(kind: Any) -> str:
    tests = {"timestamp": kind.is_timestamp(), "bool": kind.is_boolean(), "int64": kind.is_integer()}
    tests["float64"] = kind.is_numeric()
    return next((dtype for dtype, holds in tests.items() if holds), "string")


def _settings() -> Settings:
    """Read the settings; in a notebook's folder the project is the folder above that has the assets."""
    environ = dict(os.environ)
    if not environ.get("WINDROW_PROJECT"):
        here = Path.cwd()
        root = next((folder for folder in (here, *here.parents) if (folder / _PACKAGE).is_dir()), here)
        environ["WINDROW_PROJECT"] = str(root)
        environ.setdefault("WINDROW_HOME", str(root / ".windrow"))
        environ.setdefault("WINDROW_DATA", str(root / "data"))
    return Settings.read(environ)


@cache
def _pipes() -> PipesContext | None:
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        return None
    from dagster_pipes import open_dagster_pipes

    opened = open_dagster_pipes()
    atexit.register(opened.close)
    return opened


def _send(message: dict[str, Any]) -> None:
    pipes = _pipes()
    if pipes is not None:
        pipes.report_custom_message(message)


def _plain(value: Any) -> Figure:
    # NumPy's numbers are not JSON; anything else that is no figure is told as text.
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)
