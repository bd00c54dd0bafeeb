"""The documents of a worker that are not predictions: its services, its readiness, its reports."""

from __future__ import annotations

import re
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

from windrow.clock import from_micros
from windrow.errors import RequestError, listed
from windrow.models.experiment import Experiment
from windrow.serving.live import LiveService, LiveServices
from windrow.serving.openapi import row_schema
from windrow.serving.stages import Stages

if TYPE_CHECKING:
    from windrow.serving.worker import Worker

_REPORT = re.compile(r"/ui/reports/([a-z][a-z0-9_]{0,62})/([A-Za-z0-9][A-Za-z0-9_.-]{0,200}\.html)")


def describe(service: LiveService, live: LiveServices, stages: Stages) -> dict[str, Any]:
    """Return what ``GET /v1/{service}`` says: the schema of a request, who answers it how fast, and what is tried on it."""
    release, dispatcher = service.release, live.dispatcher(service)
    return {
        "service": release.service,
        "release": release.id,
        "number": release.number,
        "created_at": from_micros(release.created_at).isoformat(),
        "task": release.task,
        "backend": release.backend,
        "backend_reason": release.backend_reason,
        "unknown_entity": release.unknown_entity,
        "policies": release.policies,
        "p99_ms": release.p99_ms,
        "stages": {n: s._asdict() for n, s in stages.spent(release.service, budget_ms=release.p99_ms).items()},
        "warm_up": service.warmth.facts(),
        "request": row_schema(release.contract),
        "features": [{"name": f.name, "dtype": f.dtype} for f in release.contract.features],
        "groups": release.groups,
        "gates": [{"name": g.name, "verdict": g.verdict(time_ns() // 1000), "why": g.why} for g in release.gates],
        "override": service.override,
        "experiments": [] if dispatcher is None else [_experiment(one) for one in dispatcher.experiments],
        "paused": {name: why for name, why in live.paused.items() if name.startswith(f"{service.name}/")},
        "metrics": release.metrics,
        "baseline": release.baseline,
        "now": from_micros(service.now()).isoformat(),
    }


def _experiment(one: Experiment) -> dict[str, Any]:
    arms = {arm.name: {"release": arm.release or None, "weight": arm.weight} for arm in one.arms}
    facts = {"arms": arms, "shadows": one.shadows, "unit": one.unit, "holdout": one.holdout, "layer": one.layer}
    return {"experiment": one.name, **facts, "share": one.share}


def readiness(worker: Worker, *, detailed: bool) -> dict[str, Any]:
    """Return which services are ready; `detailed` with their live releases, and the circuit breakers that are not closed.

    Raises
    ------
    RequestError
        503 until each has answered a warm-up prediction, and from the moment on in which the worker is to end. Only
        a detailed one says what keeps a service.
    """
    live = worker.live
    if worker.admission.draining:
        raise RequestError(503, "draining", "The service is being stopped", next_step="ask another process")
    if live.ready:
        return _ready(worker) if detailed else {"status": "ready", "services": dict.fromkeys(live.services, "ready")}
    if live.failures:
        name, reason = next(iter(sorted(live.failures.items())))
        what, step = f"Service {name!r} is not ready", f"run `windrow releases {name}`"
        if not detailed:
            raise RequestError(503, "not-ready", what, next_step="send a key with the scope metrics to be told why")
        raise RequestError(503, "not-ready", f"{what}: {reason}", next_step=step)
    if live.loaded:
        raise RequestError(503, "not-ready", "No service has a live release", next_step="run `windrow run SERVICE`")
    raise RequestError(503, "not-ready", "The live releases are being loaded", next_step="ask again in a moment")


def _ready(worker: Worker) -> dict[str, Any]:
    told = {name: service.release.id for name, service in sorted(worker.live.services.items())}
    resting = {name: state for name, state in worker.breakers().items() if state != "closed"}
    return {"status": "ready", "releases": told} | ({"breakers": resting} if resting else {})


def report(folder: Path, path: str) -> bytes:
    """Return the HTML of a report under `folder`, for a path ``/ui/reports/{service}/{name}.html``.

    Raises
    ------
    RequestError
        404 where there is none; nothing outside of `folder` is ever read.
    """
    matched = _REPORT.fullmatch(path)
    service, name = matched.groups() if matched else ("", "")
    file = (folder / service / name).resolve()
    if not (matched and file.is_file() and file.is_relative_to(folder.resolve())):
        there = listed(p.name for p in (folder / service).glob("*.html")) if service else "none"
        raise RequestError(
            404,
            "no-report",
            f"There is no such report. There are: {there}",
            where="path",
            next_step="run the service's monitoring asset, which writes it",
        )
    return file.read_bytes()
