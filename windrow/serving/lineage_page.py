"""The page ``/ui/lineage``: where every model input comes from, as a picture; one file, nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from windrow.errors import RequestError, closest
from windrow.models.graph import Graph, Live, load_graph

if TYPE_CHECKING:
    from windrow.serving.live import LiveServices

_DATA = b"/*DATA*/"


class _Data(msgspec.Struct):
    graph: Graph
    service: str
    services: list[str]
    live: dict[str, Live]


def lineage_page(home: Path, query: bytes, live: LiveServices | None = None) -> bytes:
    """Return the page for ``/ui/lineage`` or ``/ui/lineage?service=NAME``.

    Parameters
    ----------
    home
        Where the project's graph was written.
    query
        The address's query string.
    live
        What this worker answers with; what the graph says of live releases is as old as the graph.

    Raises
    ------
    RequestError
        404 before a graph was written, and for a service that it does not have.
    """
    graph = load_graph(home)
    if graph is None:
        raise RequestError(
            404,
            "no-lineage",
            "No lineage was written yet",
            where="path",
            next_step="run `windrow doctor`, or anything else that reads the project's declarations",
        )
    names = sorted({name for box in graph.boxes for name in box.services})
    service = (parse_qs(query.decode("ascii", "replace")).get("service") or [""])[0]
    if service and service not in names:
        raise RequestError(
            404,
            "unknown-service",
            "The lineage has no such service",
            where="service",
            next_step=closest(service, names) or "leave ?service= out to see all",
        )
    part = graph.part(service) if service else graph
    data = _Data(part, service, names, _live(graph, live))
    return _template().replace(_DATA, _harmless(msgspec.json.encode(data)))


def _live(graph: Graph, live: LiveServices | None) -> dict[str, Live]:
    told = {one.service: one for one in graph.live}
    for name, served in live.services.items() if live is not None else ():
        prints = {box.fingerprint for box in graph.boxes if box.key == f"{name}/view"}
        told[name] = Live(name, served.release.id, served.release.contract.fingerprint in prints)
    return told


def _harmless(data: bytes) -> bytes:
    # Inside a script element only this character could end it.
    return data.replace(b"<", b"\\u003c")


@cache
def _template() -> bytes:
    return Path(__file__).with_name("lineage.html").read_bytes()
