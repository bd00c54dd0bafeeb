"""One project as Dagster definitions: every declaration an asset, with its checks, schedules and sensors."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg

from windrow.discover import groups as all_groups
from windrow.discover import services as find_services
from windrow.errors import DeclarationError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.models.service import Notebook, PredictionService
from windrow.orchestrate.checks import group_freshness, prediction_freshness
from windrow.orchestrate.factories import all_sources, group_asset, source_asset
from windrow.orchestrate.notebook_file import NotebookFile, read_folder
from windrow.orchestrate.notebooks import notebook_asset
from windrow.orchestrate.partitions import day_partitions
from windrow.orchestrate.resources import OnStep, Stores
from windrow.orchestrate.sensors import batch_job, batch_schedule, log_assets, log_sensor
from windrow.orchestrate.service_assets import service_assets
from windrow.settings import Settings

SHARED = "features"


class Project:
    """The declarations of a package and the notebooks beside it, checked together.

    Attributes
    ----------
    services, groups, sources
        Each once, inputs first.
    notebooks
        Every notebook file; those that services train with are in `trainers` (file name -> notebook).
    """

    def __init__(self, package: str, settings: Settings) -> None:
        self.settings = settings
        self.services = find_services(package, project=settings.project)
        self.groups = all_groups(self.services.values())
        listed = chain.from_iterable(service.sources for service in self.services.values())
        self.sources = list(dict.fromkeys(listed))
        self.folder = settings.project / "notebooks"
        self.notebooks = read_folder(self.folder)

    @property
    def trainers(self) -> dict[str, NotebookFile]:
        """Notebooks that are a service's model, by file name."""
        models = (service.model for service in self.services.values())
        named = {model.file for model in models if isinstance(model, Notebook)}
        return {n.path.name: n for n in self.notebooks if n.path.name in named}

    @property
    def keys(self) -> list[str]:
        """Keys of every asset, external ones too, except the notebooks."""
        parts = ("training_dataset", "model", "log", "outcomes")
        found = [*(source.key for source in self.sources), *(group.key for group in self.groups)]
        for name, service in self.services.items():
            found += [f"{name}/{part}" for part in parts]
            found += [f"{name}/predictions"] if service.batch else []
            found += [f"{name}/monitoring/{monitor.name}" for monitor in service.monitors]
        return found

    def group_of(self, item: Source | FeatureGroup) -> str:
        """Return the asset group of a source or feature group: its service, or ``features`` when shared."""
        users = [name for name, service in self.services.items() if item in self.needed(service)]
        return users[0] if len(users) == 1 else SHARED

    def needed(self, service: PredictionService) -> list[Source | FeatureGroup]:
        """Return the sources and groups below a service, inputs first."""
        groups = all_groups([service])
        read = dict.fromkeys(chain(service.sources, *(all_sources(group) for group in groups)))
        return [*read, *groups]

    def check(self, stores: Stores) -> None:
        """Raise when a trainer does not fit its view, or a group changed under its version."""
        for service in self.services.values():
            service.check_trainer(self.folder)
        if stores.started:
            from windrow.stores.materialize import check_version

            for group in self.groups:
                check_version(group, stores.metadata)


def definitions(
    package: str = "assets", settings: Settings | None = None, *, on_step: OnStep | None = None
) -> dg.Definitions:
    """Return everything that a project declares, as Dagster definitions.

    Parameters
    ----------
    package
        Package with one folder per service.
    settings
        Default: read from the environment.
    on_step
        Called with an asset's key and ``started``, ``done`` or ``failed``.

    Raises
    ------
    DeclarationError
        If a declaration, a trainer or a notebook cannot be right; a group that changed under the same
        version is a `VersionError`.
    """
    settings = settings or Settings.read()
    project, stores = Project(package, settings), Stores(settings, package=package, on_step=on_step)
    project.check(stores)
    spans = stores.spans()
    days = {name: day_partitions(service, spans, settings.clock) for name, service in project.services.items()}
    jobs = {name: _job(project, service) for name, service in project.services.items() if service.batch}
    return dg.Definitions(
        assets=[*_data(project), *_services(project, days), *_notebooks(project)],
        asset_checks=_freshness(project),
        jobs=list(jobs.values()),
        schedules=[batch_schedule(project.services[n], job, partitions=days[n]) for n, job in jobs.items()],
        sensors=[log_sensor(list(project.services.values()))],
        resources={"stores": stores},
        # Steps are short and share one engine; a process per step costs ten times the work (measured).
        executor=dg.in_process_executor,
    )


def _data(project: Project) -> list[Any]:
    sources = [source_asset(source, group=project.group_of(source)) for source in project.sources]
    return [*sources, *(group_asset(group, group=project.group_of(group)) for group in project.groups)]


def _services(project: Project, days: dict[str, dg.DailyPartitionsDefinition | None]) -> list[Any]:
    trainers, made = project.trainers, list[Any]()
    for name, service in project.services.items():
        trainer = trainers.get(service.model.file) if isinstance(service.model, Notebook) else None
        made += service_assets(service, days=days[name], trainer=trainer, known=project.keys)
        made += log_assets(service)
    return made


def _notebooks(project: Project) -> list[dg.AssetsDefinition]:
    free = [n for n in project.notebooks if n.path.name not in project.trainers]
    for notebook in free:
        _check_stem(notebook.path)
    return [notebook_asset(notebook, known=project.keys) for notebook in free]


def _check_stem(path: Path) -> None:
    if not path.stem.replace("_", "a").replace("-", "a").isalnum():
        raise DeclarationError(
            f"notebook {path.name!r} cannot name an asset", next_step="use letters, digits, - and _ in its file name"
        )


def _freshness(project: Project) -> list[dg.AssetChecksDefinition]:
    found = [
        *(group_freshness(g) for g in project.groups),
        *(prediction_freshness(s) for s in project.services.values()),
    ]
    return [check for check in found if check is not None]


def _job(project: Project, service: PredictionService) -> Any:
    keys: Sequence[str] = [*(item.key for item in project.needed(service)), f"{service.name}/predictions"]
    return batch_job(service, keys)
