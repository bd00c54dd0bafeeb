"""Which release answers for each service, kept up with the registry while requests run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Protocol

import msgspec

from windrow.errors import RequestError, WindrowError, listed
from windrow.models.experiment import Experiment
from windrow.models.release import Release
from windrow.serving.answers import Speaker
from windrow.serving.breaker import Breaker
from windrow.serving.cache import OutputCache
from windrow.serving.dispatcher import Dispatcher, fitting
from windrow.serving.precomputed import Precomputed
from windrow.serving.predictor import Predictor
from windrow.serving.recorder import Recorder
from windrow.serving.requests import RowReader
from windrow.serving.transformer import Transformer

POLL_SECONDS = 0.05
RETRY_SECONDS = 2.0
LINGER_SECONDS = 5.0  # a replaced release still answers the requests that began with it

_log = logging.getLogger("windrow.serving")


class Warmth(msgspec.Struct):
    """What a release was asked before it went live.

    Attributes
    ----------
    source
        ``log``: what was asked lately; ``sample``: a made-up request.
    bodies
        The requests that it answered.
    skipped
        Logged requests that it was not asked, or did not answer.
    ms
        What all of it took.
    spent
        Microseconds of each request that was asked alone, in their order: what the first callers were spared.
    """

    source: str = ""
    bodies: Sequence[bytes] = ()
    skipped: int = 0
    ms: float = 0.0
    spent: list[float] = []

    def facts(self) -> dict[str, Any]:
        """Return it without the requests."""
        return {"source": self.source, "requests": len(self.bodies), "skipped": self.skipped, "ms": round(self.ms, 1)}


@dataclass(frozen=True, eq=False)
class LiveService:
    """One release with all it needs to answer; never changed, only replaced as a whole.

    `override` says who signed for it where the rules of promotion refused it; `breaker` leaves a failing model alone;
    `cache` has outputs that it need not make again, `precomputed` those that a batch run has stored;
    `warmth` says how it was warmed.
    """

    release: Release
    transformer: Transformer
    predictor: Predictor
    now: Callable[[], int]
    override: Mapping[str, Any] | None = None
    breaker: Breaker = field(default_factory=Breaker)
    cache: OutputCache | None = None
    precomputed: Precomputed | None = None
    warmth: Warmth = field(default_factory=Warmth)

    @property
    def name(self) -> str:
        """The service."""
        return self.release.service

    @cached_property
    def reader(self) -> RowReader:
        """Reads its requests."""
        return RowReader(self.release.contract)

    @cached_property
    def speaker(self) -> Speaker:
        """Writes its answers."""
        release = self.release
        classes = release.task == "classification"
        names = release.classes
        return Speaker(release.service, release.id, release.contract.feature_names, classes=classes, names=names)

    @cached_property
    def recorder(self) -> Recorder:
        """Writes its vectors for the log."""
        return Recorder(self.release.contract.feature_names)

    @cached_property
    def inputs(self) -> str:
        """Equal for releases that are given the same vector."""
        return self.release.contract.fingerprint

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The request fields that are entity keys."""
        used = [name for lookup in self.release.contract.lookups for name in lookup.fields]
        return tuple(dict.fromkeys(used))

    @cached_property
    def deadline(self) -> int:
        """Nanoseconds that a request may take."""
        return round(self.release.policies.deadline_ms * 1_000_000)


@dataclass(frozen=True)
class _State:
    """What all requests see: replaced in one assignment."""

    services: Mapping[str, LiveService] = field(default_factory=dict)
    others: Mapping[str, LiveService] = field(default_factory=dict)  # id -> a release that only experiments need
    dispatchers: Mapping[str, Dispatcher[LiveService]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)  # service without live release -> why
    loaded: bool = False


class Source(Protocol):
    """Where live releases come from."""

    def changed(self) -> int:
        """Return a number that differs when anything may have changed; cheap, asked every 50 ms."""
        ...

    def find(self) -> Mapping[str, str | None]:
        """Return service -> id of its live release, None before the first deployment."""
        ...

    def experiments(self) -> Mapping[str, Sequence[Experiment]]:
        """Return service -> its running experiments, in the order in which they were started."""
        ...

    def load(self, id: str) -> LiveService:
        """Return the warmed service of a release; raise `WindrowError` if it cannot answer."""
        ...


class LiveServices:
    """The live release of every service, reloaded when the registry changes.

    Parameters
    ----------
    source
        Finds and loads releases, such as `windrow.serving.loader.Loader`.
    loaded
        Called once, when the first live releases are warm.

    Notes
    -----
    A release that cannot be loaded never replaces one that answers; `failures` says why. An experiment whose
    releases cannot all answer does not run, not even in part: golden answers, and `paused` says why.
    """

    def __init__(self, source: Source, *, loaded: Callable[[], None] | None = None) -> None:
        self._source, self._when_loaded = source, loaded
        self._state = _State()
        self._seen: int | None = None
        self.failures: dict[str, str] = {}
        self.paused: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="windrow-live", daemon=True)

    @property
    def services(self) -> Mapping[str, LiveService]:
        """Live services by name."""
        return self._state.services

    def answering(self) -> list[LiveService]:
        """Return every release that answers now, in experiments too."""
        return [*self._state.services.values(), *self._state.others.values()]

    @property
    def loaded(self) -> bool:
        """Whether the registry was read once."""
        return self._state.loaded

    @property
    def ready(self) -> bool:
        """Whether every live release has answered a warm-up prediction, and there is at least one."""
        return self._state.loaded and bool(self._state.services) and not self.failures

    def service(self, name: str) -> LiveService:
        """Return one live service.

        Raises
        ------
        RequestError
            404 for a name that was never released, 503 where nothing is live yet.
        """
        state = self._state
        found = state.services.get(name)
        if found is not None:
            return found
        if not state.loaded:
            raise RequestError(503, "starting", "The service is starting", next_step="wait until /readyz answers 200")
        if name in state.waiting:
            raise RequestError(
                503,
                "no-live-release",
                f"Service {name!r} has no live release: {state.waiting[name]}",
                next_step=f"run `windrow run {name}`, or `windrow promote {name} RELEASE`",
            )
        raise _unknown(name, [*state.services, *state.waiting])

    def dispatcher(self, service: LiveService) -> Dispatcher[LiveService] | None:
        """Return what sends this service's rows to releases, None where no experiment runs beside it."""
        found = self._state.dispatchers.get(service.name)
        # A request that was read by the release before this one is answered by that one.
        return found if found is not None and found.golden is service else None

    def start(self) -> None:
        """Load what is live and follow the registry, in a thread that ends with the process."""
        self._thread.start()

    def close(self) -> None:
        """Stop following and give back every model."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for service in self.answering():
            service.predictor.close()

    def refresh(self) -> bool:
        """Load what is live now and swap it in at once; return whether anything changed."""
        before, live = self._state.services, self._source.find()
        services: dict[str, LiveService] = {}
        failures: dict[str, str] = {}
        for name, id in live.items():
            old = before.get(name)
            if id is None:
                continue
            if old is not None and old.release.id == id:
                services[name] = old
                continue
            try:
                services[name] = self._source.load(id)
            except WindrowError as error:
                failures[name] = error.message
                _log.error("release %s cannot answer: %s", id, error.message)
                if old is not None:
                    services[name] = old
        self.failures = failures
        if self._when_loaded is not None and services and not failures:
            # Before anybody is told: a collection of all that was loaded would leave the first callers with cold caches.
            self._when_loaded()
            self._when_loaded = None
        return self._swap(services, live)

    def _swap(self, services: dict[str, LiveService], live: Mapping[str, str | None]) -> bool:
        failures = self.failures
        others, dispatchers = self._experiments(services)
        told = {n: "its release cannot be loaded" for n in failures}  # why is for /readyz, not for every caller
        waiting = {n: told.get(n, "none was promoted") for n in live if n not in services}
        before = self._state
        self._state = _State(services, others, dispatchers, waiting, loaded=True)
        replaced = [s for n, s in before.services.items() if services.get(n) is not s]
        replaced += [s for id, s in before.others.items() if others.get(id) is not s]
        for service in replaced:
            timer = threading.Timer(LINGER_SECONDS, service.predictor.close)
            timer.daemon = True
            timer.start()
        return bool(replaced) or len(services) > len(before.services)

    def _experiments(
        self, services: Mapping[str, LiveService]
    ) -> tuple[dict[str, LiveService], dict[str, Dispatcher[LiveService]]]:
        """Return the releases that experiments need besides the live ones, and the dispatchers of services."""
        others: dict[str, LiveService] = {}
        dispatchers: dict[str, Dispatcher[LiveService]] = {}
        paused: dict[str, str] = {}
        for name, experiments in self._source.experiments().items():
            golden = services.get(name)
            if golden is None:
                continue
            needed = dict.fromkeys(id for one in experiments for id in one.releases)
            found, broken = self._loaded(golden, needed)
            why = {one.name: broken[id] for one in experiments for id in one.releases if id in broken}
            running = [one for one in experiments if one.name not in why]
            why |= fitting(golden.release, running, {id: one.release for id, one in found.items()})
            running = [one for one in running if one.name not in why]
            paused |= {f"{name}/{experiment}": text for experiment, text in why.items()}
            others |= {id: one for id, one in found.items() if one is not golden}
            if running:
                dispatchers[name] = self._dispatcher(golden, running, found)
        for experiment in sorted(paused.keys() - self.paused.keys()):
            _log.error("experiment %s does not run: %s", experiment, paused[experiment])
        self.paused = paused
        return others, dispatchers

    def _loaded(self, golden: LiveService, ids: Iterable[str]) -> tuple[dict[str, LiveService], dict[str, str]]:
        found, broken = dict[str, LiveService](), dict[str, str]()
        for id in ids:
            try:
                kept = golden if id == golden.release.id else self._state.others.get(id)
                found[id] = kept or self._source.load(id)
            except WindrowError as error:
                broken[id] = error.message
        return found, broken

    def _dispatcher(
        self, golden: LiveService, running: Sequence[Experiment], found: Mapping[str, LiveService]
    ) -> Dispatcher[LiveService]:
        needed = {id: found[id] for one in running for id in one.releases}
        old = self._state.dispatchers.get(golden.name)
        same = old and (old.golden, old.experiments, old.releases) == (golden, tuple(running), needed)
        return old if old is not None and same else Dispatcher(golden, running, needed)

    def _poll(self) -> None:
        retry_at = 0.0
        while not self._stop.wait(POLL_SECONDS):
            try:
                counter = self._source.changed()
                if counter == self._seen and not ((self.failures or self.paused) and time.monotonic() > retry_at):
                    continue
                retry_at = time.monotonic() + RETRY_SECONDS
                self.refresh()
                self._seen = counter
            except Exception:  # noqa: BLE001 - whatever fails, the thread must live: what is loaded goes on answering
                _log.exception("the live releases cannot be read; trying again")
                self._stop.wait(RETRY_SECONDS)


def _unknown(name: str, known: list[str]) -> RequestError:
    if not known:
        step = "run `windrow run SERVICE`, which makes one"
        return RequestError(404, "unknown-service", "No service has a live release", where="path", next_step=step)
    close = get_close_matches(name[:64], known, n=1, cutoff=0.5)
    step = f"did you mean {close[0]!r}?" if close else f"use one of {listed(known)}"
    return RequestError(404, "unknown-service", "There is no service of this name", where="path", next_step=step)
