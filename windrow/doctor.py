"""Prove each configured part end to end: not that it is configured, but that it works here and now."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from windrow.discover import declared_groups, groups, services
from windrow.errors import DeclarationError, NotFoundError, StoreError, WindrowError
from windrow.features.aggregate import AggregateGroup
from windrow.features.group import FeatureGroup
from windrow.models.impact import Need
from windrow.settings import Settings

if TYPE_CHECKING:
    from windrow.features.group import FeatureGroup
    from windrow.features.lineage import GroupLineage
    from windrow.features.reference import Reference
    from windrow.features.source import Source
    from windrow.models.release import Release
    from windrow.models.service import PredictionService

# Not a name that a group, table or service can have, and a kind that no reader of predictions asks for.
NAME, KIND = "_doctor", "doctor"


class Finding(msgspec.Struct, frozen=True):
    """What became of one part; `seconds` is what the proof took."""

    part: str
    holds: bool
    result: str
    next_step: str
    seconds: float


class Without(msgspec.Struct, frozen=True):
    """What needs a column, and which live releases break without it."""

    column: str
    breaks: list[str]
    needs: list[Need]


def without(settings: Settings, column: str, *, package: str = "assets") -> Without:
    """Return everything that breaks if a column goes, down to the live releases.

    Parameters
    ----------
    column
        ``payments.amount``, or ``amount`` where only one source has such a column; a feature too.

    Raises
    ------
    UnknownNameError
        With the closest name, if the project has no such column.
    DeclarationError
        If several are called so.
    """
    from windrow.models.graph_build import project_graph, write_lineage
    from windrow.models.impact import broken_releases, find_column, needs

    found = services(package, project=settings.project)
    every = groups(found.values())
    known, live = _stored(settings, every)
    write_lineage(found, every, settings.home, known=known)
    graph = project_graph(found, every, live=live, known=known)
    node = find_column(graph, column)
    told = needs(graph, node, every)
    return Without(node.id, broken_releases(told), told)


def _stored(settings: Settings, every: Sequence[FeatureGroup]) -> tuple[dict[str, GroupLineage], dict[str, Release]]:
    """Return what is remembered of the groups' lineage, and the live releases by service."""
    from windrow.models.registry import Registry
    from windrow.stores.metadata import Metadata
    from windrow.stores.probing import lineages

    metadata = Metadata(settings.metadata)
    registry = Registry(metadata, settings.folder("releases"))
    live = {name: registry.live(name) for name in registry.services()}
    known = lineages(every, metadata)
    metadata.close()
    return known, {name: release for name, release in live.items() if release is not None}


class _Patient:
    """The project under examination; parts that several proofs need are made once."""

    def __init__(self, settings: Settings, package: str) -> None:
        self.settings, self.package = settings, package

    @cached_property
    def services(self) -> dict[str, PredictionService]:
        return services(self.package, project=self.settings.project)


_Proof = Callable[[_Patient], str]


def examine(
    settings: Settings, *, package: str = "assets", on_part: Callable[[str], None] | None = None
) -> list[Finding]:
    """Return one finding per part, in the order in which data flows.

    Parameters
    ----------
    package
        Package that declares the services.
    on_part
        Called with the name of each part before its proof.

    Notes
    -----
    What is written is under names that nothing else can have; the tables are removed again.
    """
    patient = _Patient(settings, package)
    findings = []
    for part, proof in _PROOFS.items():
        if on_part is not None:
            on_part(part)
        findings.append(_prove(part, proof, patient))
    return findings


def _prove(part: str, proof: _Proof, patient: _Patient) -> Finding:
    begin = time.perf_counter()
    try:
        result, next_step = proof(patient), ""
    except WindrowError as error:
        result, next_step = ". ".join(t for t in (error.what, error.exists) if t), error.next_step or "see above"
        return Finding(part, False, result, next_step, time.perf_counter() - begin)
    except Exception as error:  # noqa: BLE001 - a part may fail in any way; the next part is examined all the same
        told = f"{type(error).__name__}: {error}"
        return Finding(part, False, told[:300], "mend it, then run windrow doctor again", time.perf_counter() - begin)
    return Finding(part, True, result, next_step, time.perf_counter() - begin)


def _settings(patient: _Patient) -> str:
    folder = patient.settings.folder("doctor")
    path = folder / f"{secrets.token_hex(4)}.txt"
    try:
        path.write_text("written", encoding="utf-8")
        path.unlink()
        folder.rmdir()
    except OSError as error:
        raise StoreError(
            f"{patient.settings.home} cannot be written to: {error.strerror}",
            next_step="set WINDROW_HOME to a writable folder",
        ) from error
    return f"{patient.settings.home} can be written to"


def _declarations(patient: _Patient) -> str:
    found = patient.services
    return f"{', '.join(found)}: {len(groups(found.values()))} feature groups"


def _versions(patient: _Patient) -> str:
    """Nothing that a release may need to be called back is gone."""
    from windrow.models.versions import check_kept, kept_versions
    from windrow.stores.metadata import Metadata

    metadata = Metadata(patient.settings.metadata)
    try:
        kept = kept_versions(metadata, patient.services, keep=patient.settings.keep_releases)
    finally:
        metadata.close()
    check_kept(kept, declared_groups(patient.package))
    releases = {release for version in kept for release in version.releases}
    return f"all {len(kept)} versions of groups that {len(releases)} releases read are declared"


def _lineage(patient: _Patient) -> str:
    from windrow.models.graph_build import write_lineage
    from windrow.stores.lake import Lake
    from windrow.stores.metadata import Metadata
    from windrow.stores.probing import learn, lineages, opaque

    every = groups(patient.services.values())
    metadata = Metadata(patient.settings.metadata)
    try:
        probed = [
            group.name for group in every if opaque(group) and learn(group, Lake(patient.settings.lake), metadata)
        ]
        known = lineages(every, metadata)
    finally:
        metadata.close()
    write_lineage(patient.services, every, patient.settings.home, known=known)
    features = [reads for made in known.values() for reads in made.features.values()]
    assumed = sum(any(read.kind == "assumed" for read in reads) for reads in features)
    told = f"the columns of {len(features) - assumed} of {len(features)} features are known, see /ui/lineage"
    return f"{told}; probed: {', '.join(probed)}" if probed else told


def _references(patient: _Patient) -> str:
    loaded = [str(reference) for reference in _named(patient) if reference.load() is not None]
    return f"{len(loaded)} named functions and schemas can be loaded"


def _named(patient: _Patient) -> Iterator[Reference]:
    from windrow.models.service import Notebook

    for service in patient.services.values():
        if not isinstance(service.trainer, Notebook):
            yield service.trainer
        yield from (source.simulator for source in service.sources if source.simulator is not None)
    yield from (group.checks for group in groups(patient.services.values()) if group.checks is not None)


def _sources(patient: _Patient) -> str:
    data, told = patient.settings.data, []
    for source in {s.name: s for service in patient.services.values() for s in service.sources}.values():
        there = _is_there(source, data)
        if not there and source.simulator is None:
            wanted = source.file.name if source.file else "a file"
            raise NotFoundError(
                f"source {source.name!r} has neither {wanted!r} in {data} nor a simulator",
                next_step=f"put {wanted} there, or declare simulator=",
            )
        told.append(f"{source.name} ({'file' if there else 'simulator'})")
    return ", ".join(told)


def _look_ahead(patient: _Patient) -> str:
    """Evaluate each group with and without the later half of its sources' rows."""
    from windrow.stores.reader import read_source
    from windrow.testing.cut import look_ahead, newest_rows

    data = patient.settings.data
    given = [s for service in patient.services.values() for s in service.sources if s.simulator or _is_there(s, data)]
    read = {s.name: newest_rows(read_source(s, data)) for s in dict.fromkeys(given)}
    proven = [g for g in groups(patient.services.values()) if _sources_below(g) <= set(read)]
    for group in proven:
        found = look_ahead(group, {name: read[name] for name in _sources_below(group)})
        if found is not None:
            raise DeclarationError(
                f"feature {found.feature!r} of group {group.name!r} reads the future: at {found.at} it was another value before later rows came in",
                next_step="end its windows at the row itself; windrow.testing.no_look_ahead shows it on a few rows",
            )
    return f"none of {len(proven)} feature groups reads the future, on the newest rows of {len(read)} sources"


def _sources_below(group: FeatureGroup) -> set[str]:
    """Return the sources whose rows a group is made of; what is read elsewhere or has no rows names itself."""
    if isinstance(group, AggregateGroup) or group.external is not None:
        return {group.key}
    inputs = group.inputs.values()
    return set().union(*(_sources_below(i) if isinstance(i, FeatureGroup) else {i.name} for i in inputs))


def _is_there(source: Source, data: Path) -> bool:
    return source.file is not None and (data / source.file.name).is_file()


def _trainers(patient: _Patient) -> str:
    for service in patient.services.values():
        service.check_trainer(patient.settings.project / "notebooks")
    return "every trainer is there and asks for features of its view only"


def _on_demand(patient: _Patient) -> str:
    from windrow.features.on_demand import load_functions

    count = 0
    for service in patient.services.values():
        contract = service.view.contract
        names = [spec.function for spec in contract.on_demand]
        count += len(load_functions(contract.on_demand_source, names, where=f"view {contract.view!r}"))
    return f"{count} functions load from their text alone"


def _engine(patient: _Patient) -> str:
    from windrow.stores.engine import engine

    answer = engine().raw_sql("select 6 * 7").fetchone()[0]
    if answer != 42:
        raise StoreError(f"DuckDB says that 6 x 7 is {answer}", next_step="install the locked version of duckdb")
    return "DuckDB answers through Ibis"


def _lake(patient: _Patient) -> str:
    import pyarrow as pa

    from windrow.stores.engine import engine
    from windrow.stores.lake import Lake

    table = Lake(patient.settings.lake).table(f"{NAME}/{secrets.token_hex(4)}")
    try:
        table.append(pa.table({"x": pa.array([1, 2, 3], pa.int64())}))
        read = table.scan(engine()).x.sum().to_pyarrow().as_py()
    finally:
        # The scratch table lies under a name of its own, so nothing else is in this folder.
        shutil.rmtree(Path(patient.settings.lake) / NAME, ignore_errors=True)
    if read != 6:
        raise StoreError(
            f"3 rows with the sum 6 were written, {read} was read", next_step=f"check {patient.settings.lake}"
        )
    return "3 rows appended, read, removed"


def _online(patient: _Patient) -> str:
    from windrow.stores.online.store import Row, open_online

    now = time.time_ns() // 1000
    with open_online(patient.settings.online, write=True) as store:
        store.write(NAME, ["x"], [((1,), Row(now, now, now, (0.5,)))])
        with open_online(patient.settings.online) as reader:
            row = reader.read([(NAME, (1,))])[0]
        store.delete(NAME, [(1,)])
    if row is None or row.values != (0.5,):
        # The URL itself is not shown: it may carry a password.
        raise StoreError(f"a row was written and {row} was read", next_step="check what WINDROW_ONLINE names")
    kind = patient.settings.online.partition("://")[0]
    return f"{kind}: a row written, read by a reader, deleted"


def _metadata(patient: _Patient) -> str:
    from windrow.stores.metadata import Metadata

    store = Metadata(patient.settings.metadata)
    store.record_definition(NAME, "1", {"written": True})
    found = store.definition(NAME)
    store.close()
    if found is None or found.definition != {"written": True}:
        raise StoreError("a definition was written and not read", next_step="check WINDROW_METADATA")
    return "a definition written and read"


def _runtime(patient: _Patient) -> str:
    import numpy as np
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    vector = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", vector[:1], vector[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    doubled = session.run(None, {"x": np.array([21.0], dtype=np.float32)})[0].tolist()
    if doubled != [42.0]:
        raise StoreError(f"ONNX Runtime doubles 21 to {doubled}", next_step="install the locked version of onnxruntime")
    return "ONNX Runtime runs a graph"


def _notebooks(patient: _Patient) -> str:
    from jupyter_client.kernelspec import KernelSpecManager

    files = sorted((patient.settings.project / "notebooks").glob("*.ipynb"))
    if "python3" not in KernelSpecManager().find_kernel_specs():
        raise DeclarationError(
            "there is no kernel called 'python3'", next_step="python -m ipykernel install --sys-prefix"
        )
    return f"{len(files)} notebooks, kernel python3"


def _log(patient: _Patient) -> str:
    from windrow.stores.lake import Lake
    from windrow.stores.log import LogRecord, LogWriter, PredictionLog

    folder, id_ = patient.settings.folder("log"), f"{KIND}-{secrets.token_hex(6)}"
    now = time.time_ns() // 1000
    record = LogRecord(
        kind=KIND, request_id=id_, service=NAME, received_at=now, event_time=now, known_at=now, output=0.5
    )
    with LogWriter(folder, f"{KIND}-{os.getpid()}") as log:
        log.append([record])
    table = PredictionLog(folder, Lake(patient.settings.lake))
    read = [row["output"] for row in table.table(NAME, kind=KIND).to_pylist() if row["request_id"] == id_]
    if read != [0.5]:
        raise StoreError(f"one prediction was logged and {len(read)} were read", next_step=f"check {folder}")
    lost = [f"{count} outcomes of {name}" for name in patient.services if (count := table.unmatched(name))]
    told = f"; {', '.join(lost)} belong to no prediction: send the request_id of the answer" if lost else ""
    return f"a synthetic prediction written, and read as a table{told}"


def _streams(patient: _Patient) -> str:
    from windrow.stores.ingest.proof import prove

    seconds = prove(patient.settings.folder(""))
    return f"an event sent twice arrived once, online after {seconds:.2f} s and in the lake"


def _servers(patient: _Patient) -> str:
    from windrow.stores.servers import answering

    named = answering(patient.settings)
    return f"those of {', '.join(named)} answer" if named else "none besides the stores is named"


def _releases(patient: _Patient) -> str:
    from windrow.models.registry import Registry
    from windrow.stores.metadata import Metadata

    registry, told = Registry(Metadata(patient.settings.metadata), patient.settings.folder("releases")), []
    for name in patient.services:
        live = registry.live(name)
        if live is None:
            told.append(f"{name}: none yet")
        else:
            registry.load(live.id).replay_golden()
            told.append(f"{live.id} repeats its golden answers")
    return ", ".join(told)


def _programs(patient: _Patient) -> str:
    from importlib.metadata import version

    told = [f"{name} {version(name)}" for name in ("dagster", "bentoml", "evidently", "papermill")]
    wanted = [patient.settings.project / name for name in ("workspace.yaml", "bento/service.py")]
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        raise NotFoundError(
            f"the project has no {' and no '.join(missing)}", next_step="copy them from a project made by windrow new"
        )
    return ", ".join(told)


_PROOFS: dict[str, _Proof] = {
    "settings": _settings,
    "declarations": _declarations,
    "versions": _versions,
    "lineage": _lineage,
    "references": _references,
    "trainers": _trainers,
    "on-demand functions": _on_demand,
    "sources": _sources,
    "look-ahead": _look_ahead,
    "engine": _engine,
    "lake": _lake,
    "online store": _online,
    "metadata": _metadata,
    "servers": _servers,
    "model runtime": _runtime,
    "releases": _releases,
    "prediction log": _log,
    "streams": _streams,
    "notebooks": _notebooks,
    "programs": _programs,
}
