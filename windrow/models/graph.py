"""The lineage of a project as plain data: columns, features, model inputs and predictions, and what goes into what.

Written as JSON when declarations are loaded, and read by the online service, which knows no declarations.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from windrow.errors import StoreError

FORMAT = 1
FILE = "lineage.json"

NodeKind = Literal["column", "rows", "feature", "label", "input", "model", "prediction"]
VALUES = frozenset({"value", "window", "probed"})
"""Kinds of edges along which values flow; the others decide which rows there are, and for whom, or are assumed."""


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing of the graph.

    Attributes
    ----------
    kind
        ``column`` of a source, ``feature`` of a group, the ``rows`` of a group (what decides them), ``input`` of a
        model, ``model``, ``prediction`` or ``label``.
    box
        Key of the table or service that it belongs to.
    text
        How it is made, such as ``sum(amount, 1d)``.
    """

    id: str
    kind: NodeKind
    box: str
    name: str
    dtype: str = ""
    text: str = ""


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """`source` goes into `target`; see `windrow.features.query_lineage.Read` for the kinds."""

    source: str
    target: str
    kind: str


class Box(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source, feature group, clock, view, model or release.

    Attributes
    ----------
    level
        Column of the picture: 0 for sources, one more than its inputs' for a group.
    services
        Which services need it.
    checks
        The schema that a group's rows must pass.
    fingerprint
        Of a view: what a release made from it carries too.
    """

    key: str
    kind: Literal["source", "clock", "group", "view", "model", "predictions"]
    title: str
    level: int
    services: tuple[str, ...] = ()
    text: str = ""
    owner: str = ""
    checks: str = ""
    fingerprint: str = ""


class Live(msgspec.Struct, frozen=True, omit_defaults=True):
    """A live release; `declared` is whether its inputs are those that the project declares now."""

    service: str
    release: str
    declared: bool = True


class Graph(msgspec.Struct, frozen=True):
    """All of it. Ids of nodes are unique; every edge is between nodes of the graph."""

    boxes: tuple[Box, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    live: tuple[Live, ...] = ()
    format: int = FORMAT

    def node(self, id: str) -> Node:
        """Return one node."""
        return next(node for node in self.nodes if node.id == id)

    def downstream(self, ids: Collection[str]) -> dict[str, tuple[str, str]]:
        """Return everything that `ids` go into.

        Returns
        -------
        dict
            Node -> (how, from which node it was reached); how is ``value`` where values flow all the way, else
            what the first other edge was: ``filter``, ``join``, ``group``, ``key``, ``time`` or ``label``, and
            ``assumed`` where nothing but an assumption leads to it.

        Examples
        --------
        >>> nodes = tuple(Node(id, "feature", "t", id) for id in "abc")
        >>> graph = Graph((), nodes, (Edge("a", "b", "filter"), Edge("b", "c", "value")))
        >>> graph.downstream(["a"])
        {'b': ('filter', 'a'), 'c': ('filter', 'b')}
        """
        after = _by_source(self.edges)
        found: dict[str, tuple[str, str]] = {}
        # Ways along which values flow come first, so that each node is told by its strongest one.
        certain = frozenset(edge.kind for edge in self.edges) - {"assumed"}
        for only in (VALUES, certain, certain | {"assumed"}):
            waiting = [*ids, *found]
            for id in waiting:
                for edge in after.get(id, ()):
                    if edge.target in found or edge.target in ids or edge.kind not in only:
                        continue
                    how = found[id][0] if id in found else "value"
                    found[edge.target] = (edge.kind if how == "value" and edge.kind not in VALUES else how, id)
                    waiting.append(edge.target)
        return found

    def part(self, service: str) -> Graph:
        """Return what one service needs: its boxes, and the nodes that go into its predictions."""
        boxes = tuple(box for box in self.boxes if service in box.services)
        keys = {box.key for box in boxes}
        nodes = tuple(node for node in self.nodes if node.box in keys)
        ids = {node.id for node in nodes}
        edges = tuple(e for e in self.edges if e.source in ids and e.target in ids)
        return Graph(boxes, nodes, edges, tuple(one for one in self.live if one.service == service))


def save_graph(graph: Graph, home: Path) -> bool:
    """Write the graph to ``<home>/lineage.json`` at once, if it is not what is there; return whether it was."""
    data, path = msgspec.json.encode(graph), home / FILE
    if path.is_file() and path.read_bytes() == data:
        return False
    beside = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(
            f"the lineage cannot be written to {path}: {error.strerror}",
            next_step="set WINDROW_HOME to a writable folder",
        ) from error
    return True


def load_graph(home: Path) -> Graph | None:
    """Return the graph that was written last; None before the first, or where a newer windrow wrote it."""
    try:
        graph = msgspec.json.decode((home / FILE).read_bytes(), type=Graph)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return graph if graph.format == FORMAT else None


def unique(edges: Iterable[Edge]) -> Iterator[Edge]:
    """Yield each edge once, in order."""
    yield from dict.fromkeys(edges)


def _by_source(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = {}
    for edge in edges:
        found.setdefault(edge.source, []).append(edge)
    return found
