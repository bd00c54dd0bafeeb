"""What a project declares: its prediction services, found in ``assets/<name>/service.py``, each name once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from windrow.errors import DeclarationError, UnknownNameError, WindrowError
from windrow.features.group import FeatureGroup
from windrow.features.reference import stopped
from windrow.features.source import Source
from windrow.models.service import PredictionService
from windrow.settings import Settings
from windrow.stores.ingest.catalogue import Stream, catalogue, record


class _Named(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...


def services(package: str = "assets", *, project: Path | None = None) -> dict[str, PredictionService]:
    """Return every prediction service of a package, by name, in the order of its folders.

    Parameters
    ----------
    package
        Package with one folder per service, each with a module ``service``.
    project
        Folder that holds the package; it becomes importable.

    Raises
    ------
    DeclarationError
        When there is no such package or service, a module fails on import (with file and line), or
        two services, groups or sources share a name and differ.
    """
    found: dict[str, PredictionService] = {}
    for module in _modules(package, project):
        for service in _declared(module):
            _add(found, service, module.__name__)
    if not found:
        raise DeclarationError(
            f"package {package!r} declares no prediction service",
            next_step=f"write {package}/<name>/service.py with a PredictionService in it",
        )
    _once_each("source", [source for service in found.values() for source in service.sources])
    _once_each("feature group", _every_group(found.values()))
    return found


def service(name: str, package: str = "assets", *, project: Path | None = None) -> PredictionService:
    """Return one service by name; raise `UnknownNameError` with the closest one."""
    return pick(services(package, project=project), name)


def pick(found: dict[str, PredictionService], name: str) -> PredictionService:
    """Return one of `found`; raise `UnknownNameError` with the closest name."""
    if name not in found:
        raise UnknownNameError("prediction service", name, list(found), where="the project")
    return found[name]


def groups(found: Iterable[PredictionService]) -> list[FeatureGroup]:
    """Return every feature group that the services need, directly or through groups, inputs first, each once."""
    first: dict[str, FeatureGroup] = {}
    for group in _every_group(found):
        first.setdefault(group.key, group)
    return list(first.values())


def declared_groups(package: str) -> list[FeatureGroup]:
    """Return every feature group in the loaded modules of a package, whether or not a service reads it, inputs first."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith(f"{package}.")]
    return with_inputs(
        value for module in modules for value in vars(module).values() if isinstance(value, FeatureGroup)
    )


def with_inputs(found: Iterable[FeatureGroup]) -> list[FeatureGroup]:
    """Return groups and the groups that they read, inputs first, each once."""
    ordered: dict[FeatureGroup, None] = {}
    for group in found:
        _with_inputs(group, ordered)
    return list(ordered)


def record_streams(found: Iterable[PredictionService], settings: Settings) -> dict[str, Stream]:
    """Tell who takes events in which names there are: the sources and groups of the services; return them by name."""
    from windrow.stores.metadata import Metadata

    services_ = list(found)
    sources = {source.name: source for service_ in services_ for source in service_.sources}
    streams = catalogue(sources.values(), groups(services_))
    metadata = Metadata(settings.metadata)
    try:
        record(streams, metadata)
    finally:
        metadata.close()
    return streams


def describe(package: str = "assets", *, project: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the declarations of every service as JSON-like facts, for `windrow diff`."""
    return {name: _facts(found) for name, found in services(package, project=project).items()}


def _facts(found: PredictionService) -> dict[str, Any]:
    contract = found.view.contract
    request = {f.name: f.dtype for f in contract.request}
    return {**found.describe(), "request": request, "on_demand": contract.on_demand_source, "owner": found.owner}


def _modules(package: str, project: Path | None) -> list[ModuleType]:
    if project is not None:
        _make_importable(package, project)
    absent = DeclarationError(
        f"There is no package {package!r} in {project or 'the project'}",
        next_step=f"run this in the project's folder, or make {package}/<name>/service.py",
    )
    places = [Path(place) for place in _load(package, absent).__path__]
    # A package of that name from elsewhere on the path is not this project's.
    if project is not None and not any(place.resolve().is_relative_to(project.resolve()) for place in places):
        raise absent
    folders = sorted({path.parent.name for place in places for path in place.glob("*/service.py")})
    return [_load(f"{package}.{folder}.service") for folder in folders]


def _make_importable(package: str, project: Path) -> None:
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    folder = project / package
    if package not in sys.modules and folder.is_dir() and not (folder / "__init__.py").exists():
        # Python would prefer any package of that name with an __init__.py, wherever on the path it is.
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = module_from_spec(spec)


def _load(name: str, absent: DeclarationError | None = None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except WindrowError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a project's own code may raise anything; it is told where
        if absent is not None and isinstance(error, ModuleNotFoundError) and error.name == name:
            raise absent from None
        raise stopped(f"{name} cannot be imported", error) from error


def _declared(module: ModuleType) -> list[PredictionService]:
    declared = [value for value in vars(module).values() if isinstance(value, PredictionService)]
    if not declared:
        raise DeclarationError(
            f"{module.__name__} declares no PredictionService",
            next_step='end it with one, such as fraud = PredictionService("fraud", view, label, ...)',
        )
    return declared


def _add(found: dict[str, PredictionService], new: PredictionService, module: str) -> None:
    old = found.setdefault(new.name, new)
    if old is not new and old.fingerprint != new.fingerprint:
        raise DeclarationError(
            f"two prediction services are called {new.name!r} and differ; the second is in {module}",
            next_step="rename one of them",
        )


def _every_group(found: Iterable[PredictionService]) -> list[FeatureGroup]:
    ordered: dict[FeatureGroup, None] = {}
    for service_ in found:
        for group in service_.groups:
            _with_inputs(group, ordered)
    return list(ordered)


def _with_inputs(group: FeatureGroup, ordered: dict[FeatureGroup, None]) -> None:
    for item in group.inputs.values():
        if isinstance(item, FeatureGroup):
            _with_inputs(item, ordered)
    ordered.setdefault(group)


def _once_each(kind: str, items: Sequence[FeatureGroup | Source]) -> None:
    seen: dict[str, _Named] = {}
    for item in items:
        old = seen.setdefault(item.key, item)
        if old is not item and old.fingerprint != item.fingerprint:
            raise DeclarationError(
                f"two declarations of {kind} {item.key.partition('/')[2]!r} differ",
                next_step=f"rename one, import it from one place, or give a changed {kind} a new version or name",
            )


if __name__ == "__main__":
    import msgspec

    sys.stdout.buffer.write(msgspec.json.encode(describe(project=Path(sys.argv[1]))))
