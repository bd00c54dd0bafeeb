"""One project as Dagster definitions: every declaration an asset, with its checks, schedules and sensors."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg

from windrow.discover import declared_groups, with_inputs
from windrow.discover import groups as all_groups
from windrow.discover import services as find_services
from windrow.errors import DeclarationError
from windrow.features.group import FeatureGroup
from windrow.features.source import Source
from windrow.models.graph_build import write_lineage
from windrow.models.service import Notebook, PredictionService
from windrow.models.versions import Kept, check_kept, groups_kept, kept_versions
from windrow.orchestrate.checks import group_freshness, prediction_freshness
from windrow.orchestrate.factories import all_sources, group_asset, source_asset
from windrow.orchestrate.in_place import in_place_asset
from windrow.orchestrate.maintenance import crowded_sensor, maintenance_job, maintenance_schedule
from windrow.orchestrate.notebook_file import NotebookFile, read_folder
from windrow.orchestrate.notebooks import notebook_asset
from windrow.orchestrate.partitions import day_partitions
from windrow.orchestrate.resources import OnStep, Stores
from windrow.orchestrate.sensors import (
    batch_job,
    batch_schedule,
    log_assets,
    log_sensor,
    stream_job,
    stream_schedule,
)
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
        self.declared = declared_groups(package)
        self.kept = self._kept()
        # What a release may be called back to is fed as well, though no view of today reads it.
        today = all_groups(self.services.values())
        found = [group for name in self.services for group in groups_kept(self.kept, self.declared, name)]
        extra = [group for group in found if group.key not in {known.key for known in today}]
        self.groups = with_inputs([*today, *extra])
        listed = chain(
            chain.from_iterable(service.sources for service in self.services.values()),
            chain.from_iterable(all_sources(group) for group in extra),
        )
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
            found += [f"{name}/stream"] if service.stream else []
            found += [f"{name}/monitoring/{monitor.name}" for monitor in service.monitors]
        return found

    def group_of(self, item: Source | FeatureGroup) -> str:
        """Return the asset group of a source or feature group: its service, or ``features`` when shared."""
        users = [name for name, service in self.services.items() if item in self.needed(service)]
        return users[0] if len(users) == 1 else SHARED

    def needed(self, service: PredictionService) -> list[Source | FeatureGroup]:
        """Return the sources and groups below a service, inputs first."""
        kept = {group.key for group in groups_kept(self.kept, self.declared, service.name)}
        known = {group.key for group in all_groups([service])}
        groups = with_inputs([*all_groups([service]), *(g for g in self.groups if g.key in kept - known)])
        read = dict.fromkeys(chain(service.sources, *(all_sources(group) for group in groups)))
        return [*read, *groups]

    def _kept(self) -> list[Kept]:
        stores = Stores(self.settings)
        if not stores.started:
            return []
        try:
            return kept_versions(stores.metadata, self.services, keep=self.settings.keep_releases)
        finally:
            stores.metadata.close()

    def check(self, stores: Stores) -> None:
        """Raise when a trainer does not fit its view, a group changed under its version, or a release lacks one."""
        check_kept(self.kept, self.declared)
        for service in self.services.values():
            service.check_trainer(self.folder)
        if stores.started:
            from windrow.stores.materialize import check_version

            for group in self.groups:
                check_version(group, stores.metadata)

    def draw(self, stores: Stores) -> None:
        """Write the lineage where the online service shows it; nothing on an empty machine."""
        if stores.started:
            from windrow.stores.lineage_file import read_off_once
            from windrow.stores.probing import lineages

            read_off_once(self.groups, self.settings.home)
            known = lineages(self.groups, stores.metadata)
            write_lineage(self.services, self.groups, self.settings.home, known=known)


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
    with _uncollected():
        return _definitions(package, settings or Settings.read(), on_step)


@contextmanager
def _uncollected() -> Iterator[None]:
    # Loading makes objects that stay: walking them all again and again is a fifth of its time (measured).
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _definitions(package: str, settings: Settings, on_step: OnStep | None) -> dg.Definitions:
    project, stores = Project(package, settings), Stores(settings, package=package, on_step=on_step)
    project.check(stores)
    project.draw(stores)
    spans = stores.spans()
    days = {name: day_partitions(service, spans, settings.clock) for name, service in project.services.items()}
    jobs = {name: _job(project, service) for name, service in project.services.items() if service.batch}
    streams = {name: _stream(project, service) for name, service in project.services.items() if service.stream}
    upkeep = maintenance_job(project.groups)
    return dg.Definitions(
        assets=[*_data(project), *_services(project, days), *_notebooks(project)],
        asset_checks=_freshness(project),
        jobs=[*jobs.values(), *streams.values(), upkeep],
        schedules=[
            *(batch_schedule(project.services[n], job, partitions=days[n]) for n, job in jobs.items()),
            *(stream_schedule(project.services[n], job) for n, job in streams.items()),
            maintenance_schedule(upkeep),
        ],
        sensors=[log_sensor(list(project.services.values())), crowded_sensor()],
        resources={"stores": stores},
        # Steps are short and share one engine; a process per step costs ten times the work (measured).
        executor=dg.in_process_executor,
    )


def _data(project: Project) -> list[Any]:
    sources = [source_asset(source, group=project.group_of(source)) for source in project.sources]
    return [*sources, *(_group(project, group) for group in project.groups)]


def _group(project: Project, group: FeatureGroup) -> dg.AssetsDefinition:
    if group.external is None:
        return group_asset(group, group=project.group_of(group))
    users = [service for service in project.services.values() if group in service.view.groups]
    return in_place_asset(group, users, asset_group=project.group_of(group))


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


def _stream(project: Project, service: PredictionService) -> Any:
    groups = [item.key for item in project.needed(service) if isinstance(item, FeatureGroup)]
    return stream_job(service, [*groups, f"{service.name}/stream"])
