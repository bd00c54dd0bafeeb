"""From a release's id to a service that answers: bundle, online store, clock, warm-up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from windrow.errors import AwayError, ModelError, NotFoundError, RequestError
from windrow.models.bundle import load_bundle, read_release
from windrow.models.experiment import Experiment
from windrow.models.experiments import newest
from windrow.models.registry import Registry
from windrow.models.release import Release, check_functions
from windrow.serving.breaker import Breaker
from windrow.serving.budget import Budget, latency_folder
from windrow.serving.cache import OutputCache
from windrow.serving.live import LiveService
from windrow.serving.precomputed import precomputed
from windrow.serving.predictor import CompiledPredictor, Predictor
from windrow.serving.shared_cache import RedisOutputs
from windrow.serving.side_process import SidePredictor
from windrow.serving.store_guard import READ_SECONDS, GuardedStore, LateStore
from windrow.serving.transformer import Transformer
from windrow.serving.warmer import warm
from windrow.settings import Settings
from windrow.stores.metadata import Metadata, Span
from windrow.stores.online.store import OnlineStore, open_online
from windrow.stores.recent import recent

_log = logging.getLogger("windrow.serving")
_ClockKey = tuple[tuple[str, ...], int]  # a release's sources, and the time it was trained at


class Loader:
    """Finds and loads live releases.

    Parameters
    ----------
    settings
        Where the registry, the online store and the releases are, and which clock is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metadata = Metadata(settings.metadata)
        self._registry = Registry(self._metadata, settings.folder("releases"))
        self._budget = Budget(latency_folder(settings))
        self._online: OnlineStore | LateStore | None = None
        self._shared: RedisOutputs | None = None
        self.breaker = Breaker()
        """Of the online store, which all releases share."""
        self._spans: Mapping[str, Span] = {}
        self._latest: dict[_ClockKey, int] = {}
        self._heard: dict[str, int] = {}

    def changed(self) -> int:
        """Return a number that differs when the metadata were written to; look after the online store as well."""
        if self._online is not None:
            self._online.check()
        return self._metadata.change_counter()

    def find(self) -> dict[str, str | None]:
        """Return service -> id of its live release, for every service that was ever released."""
        self._spans = self._metadata.spans()
        self._latest.clear()
        return {name: self._metadata.live(name) for name in self._registry.services()}

    def experiments(self) -> dict[str, list[Experiment]]:
        """Return service -> its running experiments, in the order in which they were started."""
        found: dict[str, list[Experiment]] = {}
        for (service, _), experiment in newest(self._metadata).items():
            if experiment.running:
                found.setdefault(service, []).append(experiment)
        return found

    def load(self, id: str) -> LiveService:
        """Return the warmed service of a release.

        Raises
        ------
        WindrowError
            If a file was changed, the model does not repeat its golden answers, nothing was ever written to the
            online store, or it takes longer than its service's latency budget. A store that is away is no reason:
            what to do without it is the release's policy.
        """
        self._budget.recall(id)
        release = self._registry.release(id)
        check_functions(release)
        online = self._store() if release.contract.lookups else None
        transformer = Transformer(release.contract, online, defaults=release.policies.defaults)
        predictor = self._predictor(release)
        try:
            live = LiveService(release, transformer, predictor, self._clock(release), self._override(release))
            made = replace(live, cache=self._cache(release), precomputed=precomputed(release, online))
            self._budget.check(warm(made, recent(self._settings.home / "log", release.service)))
        except BaseException:  # whatever stopped it, the model's process must not stay
            predictor.close()
            raise
        return made

    def card(self, id: str) -> bytes:
        """Return the model card of a release; raise `RequestError` (404) where there is none."""
        try:
            return self._registry.card(id)
        except (ModelError, NotFoundError) as error:
            raise RequestError(404, "no-card", error.what, where="path", next_step=error.next_step) from error

    def heard(self, known: Mapping[str, int]) -> None:
        """Learn the latest known time of sources from events that this worker took in: ahead of the metadata."""
        self._heard.update(known)
        self._latest.clear()

    def close(self) -> None:
        """Give back the stores."""
        self._metadata.close()
        if self._shared is not None:
            self._shared.close()
        if self._online is not None:
            self._online.close()

    def _predictor(self, release: Release) -> Predictor:
        folder = self._registry.path(release.id)
        if release.backend != "sklearn":
            bundle = load_bundle(folder, release)
            bundle.replay_golden()
            return CompiledPredictor(bundle)
        if read_release(folder) != release:
            raise ModelError(
                f"the folder of release {release.id!r} holds another release than the registry says",
                next_step="restore the folder from a backup, or train again",
            )
        return SidePredictor(folder)

    def _cache(self, release: Release) -> OutputCache | None:
        declared = release.policies.cache
        if declared is None or (release.backend != "sklearn" and not declared.compiled):
            return None
        if self._shared is None and self._settings.cache:
            self._shared = RedisOutputs(self._settings.cache)
        return OutputCache(release, declared, shared=self._shared)

    def _override(self, release: Release) -> Mapping[str, Any] | None:
        deployed = [d for d in self._metadata.deployments(release.service) if d.release == release.id]
        return deployed[-1].override if deployed else None

    def _store(self) -> GuardedStore:
        # Opened with the first release, not before: on a new machine nobody has written to it yet.
        if self._online is None:
            opened = partial(open_online, self._settings.online, timeout=READ_SECONDS)
            try:
                self._online = opened()
            except AwayError as error:
                # What becomes of requests meanwhile, each release says itself.
                _log.error("%s; answering without it", error.what)
                self._online = LateStore(opened)
        return GuardedStore(self._online, self.breaker)

    def _clock(self, release: Release) -> Callable[[], int]:
        clock = self._settings.clock
        if clock.kind != "data":
            return lambda: clock.now(lambda: 0)
        latest = self._latest
        key = release.sources, release.dataset.now
        return lambda: latest.get(key) or self._find_latest(key)

    def _find_latest(self, key: _ClockKey) -> int:
        # Kept until the spans are read again: every request asks for it.
        (sources, otherwise), spans = key, self._spans
        heard = self._heard
        known = [spans[s].known for s in sources if s in spans] or [span.known for span in spans.values()]
        known += [heard[s] for s in sources if s in heard]
        found = self._latest[key] = max(known, default=otherwise)
        return found
