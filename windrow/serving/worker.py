"""What one worker process of the online service holds: live services, log, metrics, and the committer beside it."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from windrow.errors import StoreError
from windrow.serving.admission import Admission
from windrow.serving.bulk import Bulk
from windrow.serving.child import spawn
from windrow.serving.explaining.explainer import Explainer
from windrow.serving.guard import Guard
from windrow.serving.ingest import Ingest
from windrow.serving.keyring import Keyring
from windrow.serving.latest import Latest
from windrow.serving.live import LiveServices
from windrow.serving.local import refuse_insecure_sockets
from windrow.serving.log_gate import LogGate
from windrow.serving.metrics import BackboneFacts, CacheFacts, IngestFacts, LogFacts, Metrics
from windrow.serving.notes import Notes
from windrow.serving.plane import Plane
from windrow.serving.rehearsal import rehearse
from windrow.serving.sign_in import SignIn
from windrow.serving.spans import open_spans
from windrow.serving.turn import Turn
from windrow.settings import SHED, Settings
from windrow.stores.ingest.status import told
from windrow.stores.log import LogWriter
from windrow.stores.metadata import Metadata
from windrow.telemetry import switch_off

COMMITTER = "windrow.stores.committer"
APPLIER = "windrow.stores.ingest.applier"
ONLINE = "online store"
WRITERS = 64
STOP_SECONDS = 5.0
QUIET_SECONDS, LATEST_SECONDS = 1.0, 10.0  # for the committer's start: after the worker is ready, and at the latest


class Worker:
    """One worker; made before the server starts, and started when it does.

    Parameters
    ----------
    settings
        Where everything is.
    committer
        Whether to keep a committer and, where events are taken in, an applier running beside it (file locks elect
        one of each per host).
    """

    def __init__(self, settings: Settings, *, committer: bool = True) -> None:
        self.settings, self.metrics, self.admission = settings, Metrics(), Admission()
        self._rehearsed = False
        self.notes = Notes(settings.note_every)
        self.reports: Path = settings.home / "reports"
        self._with_committer = committer
        self._stop = threading.Event()
        # A thread of its own, because a child ends with the thread that started it.
        self._committer = self._keeper(COMMITTER)
        self._applier = self._keeper(APPLIER)

    def start(self) -> None:
        """Open the stores and follow the registry; returns at once, `live.ready` says when it can answer."""
        from windrow.serving.loader import Loader  # with SQLAlchemy, which a supervisor has no need of

        settings = self.settings
        if settings.insecure:
            refuse_insecure_sockets()
        self._keyring = Keyring(Metadata(settings.metadata))
        self._keyring.start()
        self.guard = Guard(self._keyring, insecure=settings.insecure)
        self.sign_in = SignIn(self.guard)
        self._loader = Loader(settings)
        self.live = LiveServices(self._loader, loaded=settle)
        self._log = _log_gate(settings)
        self.latest = Latest(self._log)
        self.plane = Plane(self.live, self.latest)
        self.plane.spans = open_spans(os.environ)
        self.turn = Turn(self.plane)
        self.explainer = Explainer(settings)
        self.bulk = Bulk(self.live, self.plane, self.guard, self.admission)
        self.ingest = Ingest(settings, heard=self._loader.heard, started=self._apply)
        self.live.start()
        if self._with_committer:
            self._committer.start()
        if self.ingest.streams or self.ingest.waiting() or settings.streams:
            self._apply()

    def close(self) -> None:
        """Stop following, and give back models, stores and the log's segment."""
        # First: what the applier finds when it is asked to end, it still commits.
        self.ingest.close()
        self._stop.set()
        self.explainer.close()
        self.live.close()
        self._keyring.close()
        self.plane.shadows.close()
        if self.plane.spans is not None:
            self.plane.spans.close()
        self._log.close()
        self._loader.close()
        for keeper in (self._committer, self._applier):
            if keeper.is_alive():
                keeper.join(STOP_SECONDS)

    async def rehearse(self) -> None:
        """Warm this thread too, once, before anybody is told that the worker is ready."""
        if self.live.ready and not self._rehearsed:
            self._rehearsed = True
            with suppress(StoreError):  # a full disk: every request is told, and may find that there is room again
                self._log.open()
            await rehearse(self.live)

    def measured(self) -> bytes:
        """Return the metrics page."""
        self.metrics.live = {name: service.release.id for name, service in self.live.services.items()}
        self.metrics.caches = {
            s.release.id: CacheFacts(s.cache.hits, s.cache.misses, s.cache.evicted)
            for s in self.live.answering()
            if s.cache is not None
        }
        self.metrics.precomputed = {
            (s.name, what): count
            for s in self.live.services.values()
            if s.precomputed is not None
            for what, count in s.precomputed.rows.items()
        }
        self.metrics.arms, self.metrics.shadows = self.plane.arms, self.plane.shadows.counts
        self.metrics.stages = self.plane.stages
        self.metrics.budgets = {n: s.release.p99_ms for n, s in self.live.services.items() if s.release.p99_ms}
        done, ingest = told(self.ingest.folder), self.ingest
        self.metrics.ingest = IngestFacts(ingest.accepted, done.online, done.parked, done.committed, ingest.waiting())
        self.metrics.log = LogFacts(self._log.lost, self._log.backlog, self._log.damaged)
        backbone = self.plane.backbone
        self.metrics.backbone = BackboneFacts(
            self.breakers(), backbone.degraded, backbone.fallbacks, self.admission.turned_away, self.admission.in_flight
        )
        return self.metrics.text()

    def breakers(self) -> dict[str, str]:
        """Return the state of each circuit breaker: of the online store, and of each release that answers."""
        told: dict[str, str] = {ONLINE: self._loader.breaker.state}
        return told | {s.release.id: s.breaker.state for _, s in sorted(self.live.services.items())}

    def card(self, id: str) -> bytes:
        """Return the model card of a release, an HTML page; raise `RequestError` (404) where there is none."""
        return self._loader.card(id)

    @property
    def retry_after(self) -> int:
        """Seconds after which an event that was refused may be sent again: by then the lake has had its turn."""
        return max(1, math.ceil(self.settings.ingest_every))

    def _apply(self) -> None:
        if self._with_committer and not self._applier.is_alive():
            self._applier.start()

    def _wait_until_warm(self) -> None:
        # The committer's imports take a core for a second: the worker is ready sooner, and its first callers are not in their way.
        end = time.monotonic() + LATEST_SECONDS
        while not self.live.ready and time.monotonic() < end and not self._stop.wait(0.05):
            pass
        self._stop.wait(QUIET_SECONDS)

    def _keeper(self, module: str) -> threading.Thread:
        name = f"windrow-{module.rpartition('.')[2]}"
        return threading.Thread(target=self._keeping, args=(module,), name=name, daemon=True)

    def _keeping(self, module: str) -> None:
        environ = {**os.environ, **self.settings.environ()}
        switch_off(environ)
        if module == COMMITTER:
            self._wait_until_warm()
        while not self._stop.is_set():
            child = spawn(["-m", module], environ=environ)
            while child.poll() is None and not self._stop.wait(0.2):
                pass
            _end(child)
            self._stop.wait(1.0)


def settle() -> None:
    """Spare what start-up made from garbage collection, and make full collections rare.

    A full collection walks every object of the process, with all requests waiting: without this that
    is tens of milliseconds, often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def _log_gate(settings: Settings) -> LogGate:
    folder, shed = settings.folder("log"), settings.log_full == SHED
    return LogGate(_log_writer(folder, sync=settings.log_sync), folder, limit=settings.log_backlog, shed=shed)


def _log_writer(folder: Path, *, sync: bool) -> LogWriter:
    # The same names again after a restart, and one each where several services share a home.
    for number in range(WRITERS - 1):
        try:
            return LogWriter(folder, f"api-{number}", sync=sync)
        except StoreError:
            continue
    return LogWriter(folder, f"api-{WRITERS - 1}", sync=sync)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
