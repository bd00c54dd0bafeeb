"""The prediction rig under the traffic of a simulator: golden, a challenger and a shadow, explanations and outcomes.

The rows that are asked about are those of the test split, at their own times: no release has learned from them, and
what came of them is known by now.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np

from windrow.clock import duration
from windrow.discover import pick
from windrow.discover import services as find_services
from windrow.errors import DeclarationError, StoreError, listed
from windrow.features.source import Source
from windrow.live_events import Live, ask_live
from windrow.live_hours import fresh_online, publish_until
from windrow.models.experiment import GOLDEN, Experiment, weighed
from windrow.models.experiments import Experiments
from windrow.orchestrate.releases import dataset_of, live_bundle, registry
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import run_service
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.online.store import open_online
from windrow.traffic import Answer, Sender

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.bundle import Bundle
    from windrow.models.performance import Performance
    from windrow.models.service import PredictionService

TRIAL, CHALLENGER, WEIGHT = "trial", "challenger", 0.5
RATE = 150  # requests a second at most: one caller, and two cores that do everything else as well
EXPLAIN_FIRST, EXPLAIN_EVERY = 5, 100  # requests
_TICKETS = 240.0  # seconds until the last explanation must be there

Tell = Callable[[str], None]
Step = Callable[[str, float], None]


class ArmResult(msgspec.Struct, frozen=True):
    """One arm: its release, the requests that it answered (or heard), and its metric where outcomes are final."""

    arm: str
    release: str
    requests: int
    matured: int
    metric: str
    value: float | None
    low: float | None
    high: float | None


class RigResult(msgspec.Struct, kw_only=True):
    """What came of one service's traffic.

    Attributes
    ----------
    asked, errors, seconds
        Requests for predictions, those that were not answered, and how long it took.
    p50_us, p99_us
        What the caller waited, in microseconds; ``p99_ms`` is what the service declares.
    events, outcomes
        Events sent to ``/v1/ingest``, and outcomes sent back.
    logged
        Predictions in the log.
    arms
        Golden, challenger and shadow.
    agreement, distance
        Of the rows that the shadow heard: on how many it decides as the answer did, and the mean distance.
    division
        How likely the division of units to arms is, if it is as the weights say; None where they are too few to tell.
    explained, tickets
        Explanations that came, and how many of them by a ticket.
    cached
        Answers from the cache, None where it is off.
    degraded, fallbacks
        Logged rows that are not what they could have been, and those that another one answered.
    audited, equal
        Logged vectors recomputed offline, and those that are equal.
    drifted, judged
        Features that are not what the model was trained on, and how many were judged.
    problems
        What did not hold; nothing when all is well.
    """

    service: str
    asked: int
    errors: int
    seconds: float
    p50_us: float | None
    p99_us: float | None
    p99_ms: float
    events: int
    outcomes: int
    logged: int
    arms: list[ArmResult]
    agreement: float | None
    distance: float | None
    division: float | None
    explained: int
    tickets: int
    cached: int | None
    degraded: int
    fallbacks: int
    audited: int
    equal: int
    drifted: list[str]
    judged: int
    problems: list[str] = []


def run_rig(
    settings: Settings, names: Sequence[str], *, seconds: float, tell: Tell = lambda text: None,
    step: Step = lambda text, share: None,
) -> list[RigResult]:  # fmt: skip
    """Put services under their simulators' traffic, each for so many seconds, in a home that begins anew.

    Parameters
    ----------
    settings
        The home is beside the project's: ``<home>-rig``.
    names
        Services that answer over HTTP about rows of a source.
    tell, step
        Called with what is being done, and with how much of a service's traffic (0 to 1) is over.

    Raises
    ------
    WindrowError
        If something cannot be done at all; what merely does not hold is in `RigResult.problems`.
    """
    settings = _scratch(settings)
    os.environ.update(settings.environ())  # for the steps that start processes, such as notebooks
    found, stores = find_services(project=settings.project), Stores(settings)
    chosen = [_checked(pick(found, name)) for name in names]
    plans = {service.name: _prepare(service, stores, tell) for service in chosen}
    live = fresh_online(settings, "rig-online")
    with open_online(live.online, write=True) as store:
        for service in chosen:
            publish_until(service.view.groups, stores.lake, store, _span(service, stores)[0])
    tell("starting the online service")
    key = "" if live.insecure else local_key(live)
    with start(live) as running, Sender(running.url, key=key, cert=live.tls_cert) as sender:
        rig = _Rig(stores, sender, live.online, seconds, tell, step)
        return [rig.play(service, plans[service.name]) for service in chosen]


def rig_home(settings: Settings) -> Path:
    """Return the home that a run begins anew, beside the project's."""
    return settings.home.with_name(f"{settings.home.name}-rig")


def _scratch(settings: Settings) -> Settings:
    kept = {"WINDROW_DATA": str(settings.data), "WINDROW_PROJECT": str(settings.project)}
    home = rig_home(settings)
    rmtree(home, ignore_errors=True)  # logs are never rewritten, and an experiment's name is taken for good
    return Settings.read({**kept, "WINDROW_HOME": str(home)})


def _checked(service: PredictionService) -> PredictionService:
    if service.online is None or not isinstance(service.view.spine, Source):
        raise DeclarationError(
            f"service {service.name!r} cannot be put under traffic: it does not answer over HTTP about rows of a source",
            next_step="name a service with online=Online(...) whose spine is a source, such as --rig fraud",
        )
    return service


def _span(service: PredictionService, stores: Stores) -> tuple[int, int]:
    """Return the time of the test split: from its first row, until outcomes are no longer known."""
    known = stores.now(service.sources) - service.label.matures_after
    test = getattr(service.split, "test", None)
    return known - duration(test if isinstance(test, str) else "30d"), known


def _prepare(service: PredictionService, stores: Stores, tell: Tell) -> Experiment:
    """Make golden, and two more releases of the same model from parts of its rows; return the experiment of the three."""
    name = service.name
    keys = ["sources/*", "features/*", f"{name}/training_dataset", f"{name}/model"]
    told: Callable[[str, str], None] = lambda key, state: tell(f"making {key}") if state == "started" else None  # noqa: E731
    run_service(name, stores.settings, select=keys, on_step=told)
    tell(f"{name}: a challenger from the newer half of its rows, and a shadow from the older one")
    challenger, shadow = (_other(service, stores, newer=newer) for newer in (True, False))
    lookup = next((lookup for lookup in service.view.contract.lookups if lookup.fields), None)
    return Experiment(
        service=name, name=TRIAL, arms=weighed({CHALLENGER: (challenger, WEIGHT)}), shadows=(shadow,),
        unit=tuple(lookup.fields) if lookup else ("request",), reason="windrow demo --rig",
    )  # fmt: skip


def _other(service: PredictionService, stores: Stores, *, newer: bool) -> str:
    """Fit the live model again on half of its training rows, and register it without promoting it; return its id."""
    from sklearn.base import clone

    from windrow.models.dataset import load_split
    from windrow.models.training import train

    bundle = live_bundle(service, stores)
    dataset = dataset_of(bundle.release, service, stores)
    learn = load_split(dataset, service.view.contract, "train")
    half = len(learn.y) // 2
    part = slice(half, None) if newer else slice(None, half)
    fitted = clone(_estimator(bundle)).fit(learn.X.iloc[part], learn.y[part])
    made = train(service, dataset, registry=registry(stores), metadata=stores.metadata, estimator=fitted, promote=False)
    return made.id


def _estimator(bundle: Bundle) -> Any:
    from windrow.models.bundle import MODEL_FILES
    from windrow.models.runtime import SklearnModel

    payload = bundle.file(MODEL_FILES["sklearn"])
    if payload is None:
        raise DeclarationError(
            f"release {bundle.id!r} came without its scikit-learn model, so that no challenger can be made of it",
            next_step="name a service whose model is trained here",
        )
    return SklearnModel.load(payload, task=bundle.release.task, where=bundle.id).estimator


class _Asking:
    """Asks at a steady rate until the time is over, and counts; what is to be explained goes to somebody else."""

    def __init__(self, name: str, sender: Sender, explaining: _Explaining, *, rate: float, seconds: float) -> None:
        self._name, self._sender, self._explaining = name, sender, explaining
        self._rate, self._seconds, self._begin = rate, seconds, time.monotonic()
        self.answers: list[Answer | None] = []

    def __call__(self, row: dict[str, Any]) -> bool:
        """Ask about a row when its turn has come; return whether to go on."""
        time.sleep(max(0.0, len(self.answers) / self._rate - self.spent))
        try:
            self.answers.append(self._sender.predict(self._name, row))
        except StoreError:
            self.answers.append(None)
        answer = self.answers[-1]
        if answer is not None and len(self.answers) % EXPLAIN_EVERY == EXPLAIN_FIRST:
            self._explaining.ask(answer.request_id)
        return self.spent < self._seconds

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin


class _Explaining:
    """Somebody who asks, on a connection of their own, why requests were answered as they were."""

    def __init__(self, sender: Sender) -> None:
        self._sender, self._thread = sender, ThreadPoolExecutor(1, thread_name_prefix="windrow-explain")
        self._asked: list[tuple[str, Future[bool]]] = []
        self.explained = self.tickets = 0

    def ask(self, request_id: str) -> None:
        """Ask about a request; returns at once."""
        self._asked.append((request_id, self._thread.submit(self._sender.explained, request_id)))

    def collect(self) -> int:
        """Ask for what there are tickets for until it is there; return how many never came."""
        waiting = [id for id, said in self._asked if not said.result()]
        self.tickets, deadline = len(waiting), time.monotonic() + _TICKETS
        while waiting and time.monotonic() < deadline:
            waiting = [id for id in waiting if not self._sender.explained(id)]
        self.explained = len(self._asked) - len(waiting)
        return len(waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


class _Rig(NamedTuple):
    """What playing needs: where rows come from, whom to ask, what the service reads, and how long."""

    stores: Stores
    sender: Sender
    online: str
    seconds: float
    tell: Tell
    step: Step

    def play(self, service: PredictionService, plan: Experiment) -> RigResult:
        """Start the experiment, send the traffic and the outcomes, and look at what came of it."""
        from windrow.models.spine import spine_rows

        name, (first, end) = service.name, _span(service, self.stores)
        now = self.stores.now(service.sources)
        rows = spine_rows(service, self.stores.lake, engine(), start=first, end=end, now=now)
        self.tell(f"{name}: an experiment with a challenger and a shadow")
        experiment = self._experiments.start(plan)
        self._await(service, experiment, rows)
        self.tell(f"{name}: {self.seconds:g} s of traffic")
        before = self._logged(name)
        with self.sender.another() as second, _Explaining(second) as explaining:
            asking = _Asking(
                name, self.sender, explaining, rate=min(RATE, rows.num_rows / self.seconds), seconds=self.seconds
            )
            with Live(service, self.stores, self.sender, online=self.online, after=first, until=end) as live:
                asked = ask_live(service, rows, live, self._shown(asking))
                live.drain()
            spent = asking.spent
            self.tell(f"{name}: outcomes, and explanations that took longer")
            outcomes, missing = self._outcomes(service, asked, asking.answers), explaining.collect()
        self.tell(f"{name}: what the arms have shown, every vector against the point-in-time join, and drift")
        facts = self._facts(service, experiment, asked)
        result = RigResult(
            service=name, asked=len(asking.answers), errors=asking.answers.count(None), seconds=spent,
            p50_us=_quantile(asking.answers, 0.5), p99_us=_quantile(asking.answers, 0.99),
            p99_ms=service.online.p99_ms if service.online else 0.0, events=live.sent, outcomes=outcomes,
            logged=self._logged(name) - before, explained=explaining.explained, tickets=explaining.tickets,
            cached=self._cached(name), **facts,
        )  # fmt: skip
        result.problems = _problems(result, missing)
        return result

    def _shown(self, asking: _Asking) -> Callable[[dict[str, Any]], bool]:
        def ask(row: dict[str, Any]) -> bool:
            more = asking(row)
            self.step(f"{len(asking.answers):,} requests", min(1.0, asking.spent / self.seconds))
            return more

        return ask

    @property
    def _experiments(self) -> Experiments:
        return Experiments(self.stores.metadata, registry(self.stores))

    def _await(self, service: PredictionService, experiment: Experiment, rows: pa.Table) -> None:
        """Return when the service has followed: whoever asks from here on is in the experiment."""
        deadline = time.monotonic() + 30
        while self.sender.following(service.name) != [experiment.name]:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"the service does not follow experiment {experiment.name!r} after 30 s",
                    next_step="look into its log",
                )
            time.sleep(0.05)

    def _logged(self, name: str, kind: str = "prediction") -> int:
        return int(self.stores.log.table(name, kind=kind).num_rows)

    def _outcomes(self, service: PredictionService, rows: pa.Table, answers: Sequence[Answer | None]) -> int:
        from windrow.models.labels import label_rows

        told = label_rows(service, self.stores.lake, engine(), rows, now=self.stores.now(service.sources))
        labels = zip(answers, told["label"].to_pylist(), told["label_state"].to_pylist(), strict=True)
        known = [(a.request_id, value) for a, value, state in labels if a is not None and state == "known"]
        return self.sender.outcomes(service.name, known)

    def _cached(self, name: str) -> int | None:
        # Counted by release, and a release is called after its service.
        counted = rf'^windrow_cache_total{{release="{name}-[^"]*",what="hit"}} (\S+)'
        hits = re.findall(counted, self.sender.metrics(), re.M)
        return int(sum(map(float, hits))) if hits else None

    def _facts(self, service: PredictionService, experiment: Experiment, asked: pa.Table) -> dict[str, Any]:
        from windrow.models.performance import as_document, performance
        from windrow.monitoring.audit import audit

        stores, bundle, con = self.stores, live_bundle(service, self.stores), engine()
        now = stores.now(service.sources)
        _await_shadows(stores, service.name)
        shown = performance(
            experiment, service, task=bundle.release.task, log=stores.log, lake=stores.lake, con=con, now=now
        )
        self._experiments.keep(service.name, experiment.name, as_document(shown))
        others = [registry(stores).load(arm.release) for arm in experiment.arms[1:]]
        audits = [audit(service, one, lake=stores.lake, log=stores.log, con=con) for one in (bundle, *others)]
        logged = stores.log.table(service.name)
        agreement, distance = _agreement(logged, stores.log.table(service.name, kind="shadow"))
        drifted, judged = _drift(service, stores, bundle, asked)
        return {
            "arms": _arms(shown), "division": shown.mismatch.p if shown.mismatch else None, "agreement": agreement,
            "distance": distance, "audited": sum(a.rows for a in audits), "equal": sum(a.equal for a in audits),
            "degraded": sum(map(bool, logged["degraded"].to_pylist())), "drifted": drifted, "judged": judged,
            "fallbacks": sum(map(bool, logged["answered_by"].to_pylist())),
        }  # fmt: skip


def _await_shadows(stores: Stores, name: str) -> None:
    """Return when the shadow has heard what golden answered, or when it does not say more."""
    wanted, heard, still = int(stores.log.table(name).num_rows), -1, time.monotonic()
    while time.monotonic() < still + 5:
        now = int(stores.log.table(name, kind="shadow").num_rows)
        if now >= wanted:
            return
        if now != heard:
            heard, still = now, time.monotonic()
        time.sleep(0.1)


def _agreement(logged: pa.Table, heard: pa.Table) -> tuple[float | None, float | None]:
    said = dict(zip(logged["request_id"].to_pylist(), logged["output"].to_pylist(), strict=True))
    pairs = [
        (said[id], output)
        for id, output in zip(heard["request_id"].to_pylist(), heard["output"].to_pylist(), strict=True)
        if output is not None and said.get(id) is not None
    ]
    if not pairs:
        return None, None
    one, other = np.array(pairs).T
    return float(((one > 0.5) == (other > 0.5)).mean()), float(np.abs(one - other).mean())


def _drift(service: PredictionService, stores: Stores, bundle: Bundle, asked: pa.Table) -> tuple[list[str], int]:
    """Return the features of the traffic that are not what the live release was trained on, and how many were judged."""
    from windrow.models.dataset import load_split
    from windrow.monitoring.drift import compared
    from windrow.monitoring.verdict import compare
    from windrow.monitoring.windows import chosen

    if not service.monitors:
        return [], 0
    monitor, contract = service.monitors[0], bundle.contract
    rows = stores.log.vectors(service.name, contract)
    training = load_split(dataset_of(bundle.release, service, stores), contract, "train")
    sides = compared(rows.take(chosen(rows.num_rows)), training, contract.features, monitor)
    found = compare(sides.reference, sides.current, sides.fields, monitor, past=sides.past)
    return [c.feature for c in found if not c.passed], sum(c.verdict != "too few rows" for c in found)


def _arms(shown: Performance) -> list[ArmResult]:
    made = []
    for arm in shown.arms:
        metric, interval = next(iter(arm.metrics.items()), ("", None))
        value, low, high = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
        made.append(ArmResult(arm.arm, arm.release, arm.requests, arm.matured, metric, value, low, high))
    return made


def _quantile(answers: Sequence[Answer | None], share: float) -> float | None:
    waits = sorted(answer.micros for answer in answers if answer is not None)
    return waits[min(len(waits) - 1, int(len(waits) * share))] if waits else None


def _problems(result: RigResult, missing: int) -> list[str]:
    answered = result.asked - result.errors
    heard = {arm.arm: arm.requests for arm in result.arms}
    suspicious = result.division is not None and result.division < 0.001
    checks = [
        (result.asked == 0, "nothing was asked"),
        (result.errors, f"{result.errors} of {result.asked:,} requests were not answered"),
        (result.logged != answered, f"the log has {result.logged:,} predictions of {answered:,} answers"),
        (not all(heard.get(arm) for arm in (GOLDEN, CHALLENGER)), "an arm of the experiment was never asked"),
        (heard.get("shadow", 0) < answered, f"the shadow heard {heard.get('shadow', 0):,} of {answered:,} requests"),
        (suspicious, "units are not divided to arms as the weights say"),
        (not result.explained, "nothing was explained"),
        (missing, f"{missing} explanations never came"),
        (
            result.equal != result.audited,
            f"{result.audited - result.equal} served vectors differ from the offline ones",
        ),
        (result.fallbacks, f"{result.fallbacks} rows were answered by another than the release that was asked"),
        (result.drifted, f"drift was found in {listed(result.drifted)}, and none was planted"),
    ]
    return [said for wrong, said in checks if wrong]
