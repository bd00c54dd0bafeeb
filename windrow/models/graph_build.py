"""From declarations and live releases to the graph of a project's lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from windrow.clock import spoken
from windrow.features.aggregate import AggregateGroup
from windrow.features.contract import Contract
from windrow.features.group import FeatureGroup
from windrow.features.label import Label
from windrow.features.lineage import GroupLineage, contract_lineage, lineage
from windrow.features.place import External
from windrow.features.query_lineage import Reads, joined
from windrow.features.source import Every, Source
from windrow.models.graph import Box, Edge, Graph, Live, Node, save_graph, unique
from windrow.models.keys import label_keys
from windrow.models.release import Release
from windrow.models.service import PredictionService
from windrow.schema import EVENT_TIME

ROWS = "*"


def project_graph(
    services: Mapping[str, PredictionService],
    groups: Sequence[FeatureGroup],
    *,
    live: Mapping[str, Release] | None = None,
    known: Mapping[str, GroupLineage] | None = None,
) -> Graph:
    """Return the lineage of every service, from the columns of its sources to its predictions.

    Parameters
    ----------
    services
        By name.
    groups
        Every feature group that they need, inputs first (`windrow.discover.groups`).
    live
        Service -> its live release. One that was made from another declaration than the present one gets
        inputs and predictions of its own.
    known
        Group key -> what it reads, where that was found by probing (`windrow.stores.probing.lineages`).
    """
    builder = _Builder(services, groups, known or {})
    for source in builder.sources.values():
        builder.add_source(source)
    for group in groups:
        builder.add_group(group)
    for service in services.values():
        builder.add_service(service)
    told = []
    for name, release in (live or {}).items():
        declared = name in services and services[name].view.contract.fingerprint == release.contract.fingerprint
        told.append(Live(name, release.id, declared))
        if not declared:
            builder.add_contract(release.id, release.contract, service=name)
    return builder.graph(told)


def write_lineage(
    services: Mapping[str, PredictionService],
    groups: Sequence[FeatureGroup],
    home: Path,
    *,
    known: Mapping[str, GroupLineage] | None = None,
) -> bool:
    """Write the graph of what is declared where the online service shows it; return whether it was news."""
    return save_graph(project_graph(services, groups, known=known), home)


class _Builder:
    """Collects the parts; ids are ``<key>.<column>`` for stored things and ``<service>/...`` for a service's."""

    def __init__(
        self,
        services: Mapping[str, PredictionService],
        groups: Sequence[FeatureGroup],
        known: Mapping[str, GroupLineage],
    ) -> None:
        self.known = known
        self.groups = {group.key: group for group in groups}
        listed = [source for service in services.values() for source in service.sources]
        self.sources = {source.key: source for source in listed}
        self.levels: dict[str, int] = {}
        self.users = _users(services)
        self.boxes, self.nodes, self.edges = dict[str, Box](), dict[str, Node](), list[Edge]()

    def graph(self, live: Sequence[Live]) -> Graph:
        """Return what was collected; models and predictions stand right of everything."""
        top = max(self.levels.values(), default=0)
        last = {"view": top + 1, "model": top + 2, "predictions": top + 3}
        boxes = [_moved(box, last.get(box.kind, box.level)) for box in self.boxes.values()]
        return Graph(tuple(boxes), tuple(self.nodes.values()), tuple(unique(self.edges)), tuple(live))

    def add_source(self, source: Source) -> None:
        """Add a source with all its columns, used or not."""
        self._box(source.key, "source", source.name, 0, text=_file(source))
        for name, dtype in source.fields.items():
            self._node(f"{source.key}.{name}", "column", source.key, name, dtype=dtype)

    def add_group(self, group: FeatureGroup) -> None:
        """Add a group: its features, its rows, and what goes into both."""
        level = 1 + max((self.levels.get(item.key, 0) for item in group.inputs.values()), default=0)
        checks = str(group.checks or "")
        self._box(
            group.key, "group", group.table_name, level, text=group.description, owner=group.owner or "", checks=checks
        )
        made, rows = self.known.get(group.key) or lineage(group), f"{group.key}.{ROWS}"
        if group.external is not None:
            self._add_external(group, group.external, joined([made.rows, *made.features.values()]))
        self._node(rows, "rows", group.key, "rows", text="which rows there are, for whom and when")
        self._read(made.rows, rows)
        for item in group.inputs.values():
            if isinstance(item, FeatureGroup):
                self.edges.append(Edge(f"{item.key}.{ROWS}", rows, "rows"))
        for name, dtype in group.features.items():
            text = str(group.aggregates[name]) if isinstance(group, AggregateGroup) else ""
            self._node(f"{group.key}.{name}", "feature", group.key, name, dtype=dtype, text=text)
            self._read(made.features[name], f"{group.key}.{name}")
            self.edges.append(Edge(rows, f"{group.key}.{name}", "rows"))

    def add_service(self, service: PredictionService) -> None:
        """Add a service's inputs, model, label and predictions, as declared."""
        if isinstance(service.view.spine, Every):
            self._add_clock(service.view.spine)
        self.add_contract(service.name, service.view.contract, service=service.name, text=service.description)
        self._add_label(service)

    def add_contract(self, name: str, contract: Contract, *, service: str, text: str = "") -> None:
        """Add the inputs of a view or release under `name`, its model and its predictions."""
        for part, title in (("view", contract.view), ("model", name), ("predictions", name)):
            self.users.setdefault(f"{name}/{part}", {service: None})
            print_ = contract.fingerprint if part == "view" else ""
            self._box(f"{name}/{part}", part, title, 0, text=text, fingerprint=print_)
        self._node(f"{name}/model", "model", f"{name}/model", name)
        self._node(f"{name}/prediction", "prediction", f"{name}/predictions", "prediction", dtype="float64")
        self.edges.append(Edge(f"{name}/model", f"{name}/prediction", "value"))
        spine = next((s for s in self.sources.values() if s.name == contract.spine), None)
        inputs = contract_lineage(contract, spine)
        functions = {made.name: f"{made.function}({', '.join(made.inputs)})" for made in contract.on_demand}
        for field in contract.features:
            id = f"{name}/input.{field.name}"
            self._node(id, "input", f"{name}/view", field.name, dtype=field.dtype, text=functions.get(field.name, ""))
            self.edges.append(Edge(id, f"{name}/model", "value"))
            self._read(inputs[field.name], id)

    def _add_clock(self, clock: Every) -> None:
        key = f"clock/{clock.name}"
        self._box(key, "clock", clock.name, 0, text=f"one row per key every {spoken(clock.interval)}")
        for name, dtype in [*((k.name, k.dtype) for k in clock.entity.keys), (EVENT_TIME, "timestamp")]:
            self._node(f"{key}.{name}", "column", key, name, dtype=dtype)

    def _add_label(self, service: PredictionService) -> None:
        id, label = f"{service.name}/label", service.label
        self._node(id, "label", f"{service.name}/model", "label", text=_label_text(label))
        self.edges.append(Edge(id, f"{service.name}/model", "label"))
        when = label.source.event_time if isinstance(label.source, Source) else EVENT_TIME
        for column in (label.column, *label_keys(service), when):
            if isinstance(column, str):
                self.edges.append(Edge(self._known(label.source.key, column), id, "label"))

    def _add_external(self, group: FeatureGroup, external: External, reads: Reads) -> None:
        """Add the table that an external group reads in place: what is known of it is what is read."""
        key = f"external/{group.name}"
        self.users.setdefault(key, self.users.get(group.key, {}))
        self._box(key, "source", group.name, 0, text=f"read in place: {external.place}")
        for column in dict.fromkeys(read.column for read in sorted(reads)):
            self._node(f"{key}.{column}", "column", key, column)

    def _read(self, reads: Reads, target: str) -> None:
        for read in sorted(reads):
            self.edges.append(Edge(self._known(read.table, read.column), target, read.kind))

    def _known(self, key: str, column: str) -> str:
        """Return the node of a stored column; a group's keys and times stand for its rows."""
        group = self.groups.get(key)
        if group is not None and column not in group.features:
            return f"{key}.{ROWS}"
        id = f"{key}.{column}"
        if id not in self.nodes:  # of a release whose group is not declared any more
            self._box(key, "group", key.rpartition("/")[2], 1, text="not declared any more")
            self._node(id, "feature", key, column)
        return id

    def _box(self, key: str, kind: str, title: str, level: int, **facts: str) -> None:
        self.levels.setdefault(key, level)
        users = tuple(self.users.get(key, {}))
        self.boxes.setdefault(key, Box(key, kind, title, level, users, **facts))  # type: ignore[arg-type]

    def _node(self, id: str, kind: str, box: str, name: str, *, dtype: str = "", text: str = "") -> None:
        self.nodes.setdefault(id, Node(id, kind, box, name, dtype, text))  # type: ignore[arg-type]


def _users(services: Mapping[str, PredictionService]) -> dict[str, dict[str, None]]:
    """Return key of a source, group or clock -> the services that need it, in order."""
    found: dict[str, dict[str, None]] = {}

    def add(item: Source | FeatureGroup, name: str) -> None:
        found.setdefault(item.key, {})[name] = None
        for below in item.inputs.values() if isinstance(item, FeatureGroup) else ():
            add(below, name)

    for name, service in services.items():
        for group in service.groups:
            add(group, name)
        for source in service.sources:
            add(source, name)
        if isinstance(service.view.spine, Every):
            found.setdefault(f"clock/{service.view.spine.name}", {})[name] = None
    return found


def _moved(box: Box, level: int) -> Box:
    return msgspec.structs.replace(box, level=level)


def _file(source: Source) -> str:
    return f"file {source.file.name}" if source.file else "its simulator" if source.simulator else ""


def _label_text(label: Label) -> str:
    said = {
        "joined": "by id",
        "within": f"an event within {spoken(label.window)}",
        "value": f"in {spoken(label.window)}",
    }
    return f"{label.column or label.source.name}, {said[label.how]}"
