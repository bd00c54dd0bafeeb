"""If a column goes, what breaks: everything that is computed from it, found or checked by it, down to live releases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from windrow.errors import DeclarationError, UnknownNameError, WindrowError, listed
from windrow.features.group import FeatureGroup
from windrow.models.graph import Box, Graph, Node

Effect = Literal[
    "breaks", "may break", "must be edited", "cannot be trained again", "gets no new rows", "could not be looked into"
]
_ORDER = (
    "feature group",
    "check",
    "feature",
    "on-demand function",
    "model input",
    "view",
    "label",
    "service",
    "live release",
)


class Need(msgspec.Struct, frozen=True):
    """One thing that needs a column.

    Attributes
    ----------
    kind
        ``feature group``, ``check``, ``feature``, ``on-demand function``, ``model input``, ``view``, ``label``,
        ``service`` or ``live release``.
    how
        ``value`` where it is computed from the column, else what the column does: ``filter``, ``join``, ``group``,
        ``key``, ``time`` or ``label``; ``definition`` of a group that names it; ``assumed`` where a Python function
        may read it.
    through
        What it needs the column through ("" for itself).
    """

    kind: str
    name: str
    effect: Effect
    how: str
    through: str


def find_column(graph: Graph, text: str) -> Node:
    """Return the column that a text names: ``payments.amount``, or ``amount`` where only one source has it.

    Raises
    ------
    UnknownNameError
        With the closest name, if nothing is called so.
    DeclarationError
        If several are.

    Examples
    --------
    >>> nodes = (Node("sources/a.x", "column", "sources/a", "x"), Node("sources/b.x", "column", "sources/b", "x"))
    >>> find_column(Graph((), nodes, ()), "b.x").id
    'sources/b.x'
    """
    stored = [node for node in graph.nodes if node.kind in ("column", "feature")]
    if "." in text:
        found = [node for node in stored if text in _called(node)]
    else:
        found = [node for node in stored if node.name == text]
        # A feature is often called like the column it is taken from: then the column is meant.
        found = [node for node in found if node.kind == "column"] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = listed(_called(node)[0] for node in found)
        raise DeclarationError(
            f"{text!r} is the name of {len(found)} columns", exists=f"They are {names}", next_step="write one of them"
        )
    known = dict.fromkeys(_called(node)[0] if "." in text else node.name for node in stored)
    raise UnknownNameError("column", text, list(known), where="the project")


def needs(graph: Graph, column: Node, groups: Sequence[FeatureGroup]) -> list[Need]:
    """Return what needs a column, in the order in which data flows.

    Parameters
    ----------
    graph
        With the live releases in it.
    column
        See `find_column`.
    groups
        Whose checks are looked into.
    """
    return sorted(_Loss(graph, column, groups).needs(), key=lambda need: _ORDER.index(need.kind))


def broken_releases(found: Sequence[Need]) -> list[str]:
    """Return the live releases among `found` that break, or may: what is not known is not safe."""
    return [need.name for need in found if need.kind == "live release" and need.effect in ("breaks", "may break")]


class _Loss:
    """A graph without one column."""

    def __init__(self, graph: Graph, column: Node, groups: Sequence[FeatureGroup]) -> None:
        self.graph, self.column, self.groups = graph, column, groups
        self.nodes = {node.id: node for node in graph.nodes}
        self.boxes = {box.key: box for box in graph.boxes}
        self.hit = graph.downstream([column.id])
        # Group -> whether its definition names the column for certain.
        self.edited: dict[str, bool] = {}
        for edge in graph.edges:
            key = self.nodes[edge.target].box
            if edge.source == column.id and self.boxes[key].kind == "group":
                self.edited[key] = self.edited.get(key, False) or edge.kind != "assumed"

    def needs(self) -> Iterator[Need]:
        for key, certain in self.edited.items():
            effect: Effect = "must be edited" if certain else "may break"
            yield Need("feature group", self.boxes[key].title, effect, "definition" if certain else "assumed", "")
        yield from self._checks()
        for id, (how, before) in self.hit.items():
            yield from self._node(self.nodes[id], how, self.nodes[before])
        for box in self.graph.boxes:
            yield from self._box(box)
        yield from self._live()

    def _node(self, node: Node, how: str, before: Node) -> Iterator[Need]:
        through = "" if before.id == self.column.id else _said(before, self.boxes)
        if node.kind == "feature":
            yield Need("feature", _said(node, self.boxes), _effect(how), how, through)
        elif node.kind == "input" and node.text:
            yield Need("on-demand function", f"{node.box.partition('/')[0]}: {node.text}", _effect(how), how, through)
        if node.kind == "input":
            yield Need("model input", _said(node, self.boxes), _effect(how), how, through)
        elif node.kind == "label":
            yield Need("label", node.id.partition("/")[0], _effect(how), how, through)

    def _checks(self) -> Iterator[Need]:
        lost = {self.column.id, *self.hit}
        for group in self.groups:
            if group.checks is None or not any(id.startswith(f"{group.key}.") for id in lost):
                continue
            try:
                asked = [name for name in _asked(group.checks.load()) if f"{group.key}.{name}" in lost]
            except WindrowError as error:
                yield Need("check", str(group.checks), "could not be looked into", "value", error.what)
                continue
            for name in asked:
                yield Need("check", f"{group.checks}, {name}", "breaks", "value", f"{group.table_name}.{name}")

    def _box(self, box: Box) -> Iterator[Need]:
        inputs = self._inputs(box)
        how = self._strongest(inputs)
        if box.kind == "view" and inputs:
            yield Need("view", box.title, _effect(how), how, f"{len(inputs)} of its inputs")
        service = box.services[0] if box.services else ""
        if box.kind != "view" or box.key != f"{service}/view":  # that of a live release is told as such
            return
        if inputs:
            yield Need("service", service, _effect(how), how, f"{len(inputs)} of its inputs")
        elif f"{service}/label" in self.hit:
            yield Need("service", service, "cannot be trained again", "label", "its label")

    def _live(self) -> Iterator[Need]:
        for one in self.graph.live:
            view = self.boxes[f"{one.service if one.declared else one.release}/view"]
            inputs = self._inputs(view)
            fed = self._fed_by_edited(view)
            if inputs:
                told, how = (
                    f"{len(inputs)} of its inputs, such as {self.nodes[inputs[0]].name}",
                    self._strongest(inputs),
                )
                yield Need("live release", one.release, _effect(how), how, told)
            elif fed:
                yield Need("live release", one.release, "gets no new rows", "value", f"{fed}, until it is edited")

    def _inputs(self, view: Box) -> list[str]:
        return [id for id in self.hit if self.nodes[id].kind == "input" and self.nodes[id].box == view.key]

    def _strongest(self, inputs: Sequence[str]) -> str:
        # They were reached in this order: values first, assumptions last.
        return self.hit[inputs[0]][0] if inputs else ""

    def _fed_by_edited(self, view: Box) -> str:
        """Return the group that feeds the view and cannot be built until it is edited, or ""."""
        for key in self.edited:
            after = self.graph.downstream([n.id for n in self.graph.nodes if n.box == key])
            if any(self.nodes[id].box == view.key for id in after):
                return self.boxes[key].title
        return ""


def _called(node: Node) -> tuple[str, ...]:
    """The names of a stored column, the usual one first: with its table, with the table's key, without the version."""
    table = node.box.partition("/")[2]
    plain = table.rpartition("_v")[0] if node.kind == "feature" else table
    return f"{table}.{node.name}", node.id, f"{plain}.{node.name}"


def _effect(how: str) -> Effect:
    return "may break" if how == "assumed" else "breaks"


def _said(node: Node, boxes: Mapping[str, Box]) -> str:
    return f"{boxes[node.box].title}.{node.name}"


def _asked(checks: object) -> list[str]:
    """Return the columns that a schema asks for, whatever way it was given."""
    made = checks.to_schema() if hasattr(checks, "to_schema") else checks
    made = made() if callable(made) and not hasattr(made, "columns") else made
    return list(getattr(made, "columns", ()))
