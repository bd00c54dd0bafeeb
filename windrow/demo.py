"""The whole way round, as a story: declared, materialised, released, served, logged, judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from windrow.clock import duration
from windrow.discover import services as find_services
from windrow.errors import NotFoundError, listed
from windrow.features.source import Every
from windrow.live_events import Live, ask_live
from windrow.live_hours import fresh_online, live_through, past_ticks, publish_until
from windrow.models.gate import Gate
from windrow.orchestrate.partitions import day_partitions, first_with_features
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import observe_logs, run_notebooks, run_service
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings
from windrow.stores.online.store import open_online
from windrow.traffic import Answer, Pool, Sender

if TYPE_CHECKING:
    import pyarrow as pa

    from windrow.models.release import Release
    from windrow.models.service import PredictionService
    from windrow.monitoring.audit import AuditReport

WARM, REQUESTS, OUTCOMES = 100, 2000, 500
DAYS = 30  # of batch predictions, in one run
# A clock-driven service lives through this many ticks, drawn from the newest 28 days whose outcome is known.
TICKS, SPAN = 240, duration("28d")
# A service over its own events is sent what happened in this stretch, the newest whose outcome is known.
PLAYED = duration("3d")
# Planted drift: of some keys, only the tenth with the highest answers goes on asking.
_RANKED, _SKEWED_SHARE = 300, 0.1

Tell = Callable[[str], None]


class Result(msgspec.Struct, kw_only=True):
    """What came of one service.

    Attributes
    ----------
    rows, features
        Of the training dataset.
    metric, value, baseline
        The first metric that the service is held to, of the model and of the naive prediction.
    written, asked
        Predictions in the sinks, and answers over HTTP in this run.
    p50_us, p99_us
        What a caller on one kept-alive connection waited, in microseconds.
    p99_ms
        What the service declares, in milliseconds.
    outcomes, learned
        Outcomes sent back, and rows of the training dataset made from the log and them.
    audited, equal
        Logged vectors recomputed offline as of the time they were asked about, and those that are equal.
    drift
        The verdict in a few words.
    problems
        What did not hold; nothing when all is well.
    """

    service: str
    rows: int
    features: int
    metric: str
    value: float
    baseline: float | None
    release: str
    backend: str
    written: int
    asked: int
    p50_us: float | None
    p99_us: float | None
    p99_ms: float | None
    outcomes: int
    learned: int
    audited: int
    equal: int
    drift: str
    problems: list[str]


class _Asked(NamedTuple):
    """What was sent to one service; `lost` counts answers that the log does not have."""

    answers: list[Answer]
    outcomes: int
    lost: int


class _Verdict(NamedTuple):
    """What the monitors of one service said: the columns that changed, and how many were judged."""

    changed: list[str]
    judged: int


def home_of(settings: Settings, *, drift: bool) -> Settings:
    """Return the settings of a demo: planted drift goes to a home of its own, as logs are never rewritten.

    Examples
    --------
    >>> settings = Settings.read({"WINDROW_HOME": "/tmp/w"})
    >>> home_of(settings, drift=True).lake
    '/tmp/w-drift/lake'
    """
    if not drift:
        return settings
    kept = {"WINDROW_DATA": str(settings.data), "WINDROW_PROJECT": str(settings.project)}
    return Settings.read({**kept, "WINDROW_HOME": f"{settings.home}-drift"})


def tell_story(settings: Settings, *, drift: bool = False, tell: Tell = lambda text: None) -> list[Result]:
    """Run every service of the project from its sources to its drift report.

    Parameters
    ----------
    drift
        Whether to plant drift: then a monitor that does not notice it is a problem.
    tell
        Called with what is being done, in words.

    Raises
    ------
    WindrowError
        If a step cannot be done at all; what merely does not hold is in `Result.problems`.
    """
    os.environ.update(settings.environ())  # for the steps that start processes, such as notebooks
    found = find_services(project=settings.project)
    stores = Stores(settings)
    for service in found.values():
        _materialise(service, stores, tell)
    online = {name: service for name, service in found.items() if service.online}
    tell("starting the online service")
    live = fresh_online(settings, "demo-online")
    with open_online(live.online, write=True) as store:
        for service in online.values():
            publish_until(service.view.groups, stores.lake, store, _first_time(service, stores, drift=drift))
    key = "" if live.insecure else local_key(live)
    with start(live) as running, Sender(running.url, key=key, cert=live.tls_cert) as sender:
        story = _Story(stores, sender, live.online, drift, tell)
        asked = {name: story.ask(service) for name, service in online.items()}
    results = []
    for name, service in found.items():
        learned = _learn(service, stores, asked[name].outcomes if name in asked else 0, tell)
        verdict, audited = _watch(service, settings, tell), _audit(service, stores, tell)
        results.append(
            _result(service, stores, asked.get(name), verdict, audited=audited, learned=learned, drift=drift)
        )
    observe_logs(list(found.values()), settings)
    run_notebooks(settings, on_step=_told(tell))
    return results


def _materialise(service: PredictionService, stores: Stores, tell: Tell) -> None:
    name, settings = service.name, stores.settings
    keys = ["sources/*", "features/*", f"{name}/training_dataset", f"{name}/model"]
    run_service(name, settings, select=keys, on_step=_told(tell))
    if service.batch:
        days = _newest_days(service, stores)
        run_service(name, settings, select=[f"{name}/predictions"], partitions=days, on_step=_told(tell))
    if service.stream:
        run_service(name, settings, select=[f"{name}/stream"], on_step=_told(tell))


def _newest_days(service: PredictionService, stores: Stores) -> str | None:
    """Return the newest days as one range, for a single-run backfill; None for a service that has no days."""
    partitions = day_partitions(service, stores.spans(), stores.settings.clock)
    if partitions is None:
        return None
    days = partitions.get_partition_keys()[-DAYS:]
    return f"{days[0]}..{days[-1]}"


def _told(tell: Tell) -> Callable[[str, str], None]:
    return lambda key, state: tell(f"making {key}") if state == "started" else None


class _Story(NamedTuple):
    """What asking needs: where rows come from, whom to ask, and what the running service reads."""

    stores: Stores
    sender: Sender
    online: str
    drift: bool
    tell: Tell

    def ask(self, service: PredictionService) -> _Asked:
        """Ask a service as it is meant to be asked, send the outcomes, and count what the log lacks."""
        before = _logged(service, self.stores)
        clocked = isinstance(service.view.spine, Every)
        answers, outcomes = self._live(service) if clocked else self._crowd(service)
        lost = self.sender.predicted[service.name] - (_logged(service, self.stores) - before)
        return _Asked(answers, outcomes, lost)

    def _live(self, service: PredictionService) -> tuple[list[Answer], int]:
        """Let hours pass: features become visible tick by tick, and each tick is asked about when it comes."""
        ticks = _ticks(service, self.stores, drift=self.drift)
        self.tell(f"{service.name}: {len(ticks)} ticks pass, each asked about when it comes")
        spine, answers = live_through(service, self.stores, self.sender, online=self.online, ticks=ticks)
        return answers, self._send_outcomes(service, spine, answers)

    def _crowd(self, service: PredictionService) -> tuple[list[Answer], int]:
        """Ask about many keys now, and about some at a time whose outcome is known."""
        name, now = service.name, self.stores.now(service.sources)
        pool = Pool.of(service, self.stores.lake, now=now)
        played = self._play(service, now) if service.view.contract.timed else None
        self.tell(f"{name}: {REQUESTS:,} predictions over HTTP")
        for row in pool.requests(WARM, seed=1):
            self.sender.predict(name, row)
        rows = _skewed(name, pool, self.sender) if self.drift else pool.requests(REQUESTS)
        answers = [self.sender.predict(name, row) for row in rows]
        if played is not None:
            return answers, played
        past = pool.spine.slice(0, OUTCOMES)
        return answers, self._send_outcomes(service, past, [self.sender.predict(name, r) for r in pool.past(past)])

    def _play(self, service: PredictionService, now: int) -> int:
        """Send the events of some days, ask about each row at its own time, and let the rest become known; return outcomes.

        Of an entity's stream there is no past online: what is asked about then must be asked in its order.
        """
        from windrow.models.spine import spine_rows
        from windrow.stores.engine import engine

        first = _first_time(service, self.stores, drift=self.drift)
        rows = spine_rows(service, self.stores.lake, engine(), start=first, end=first + PLAYED, now=now).slice(
            0, OUTCOMES
        )
        self.tell(f"{service.name}: {rows.num_rows:,} events, each asked about when it comes")
        answers: list[Answer] = []

        def ask(row: dict[str, Any]) -> bool:
            answers.append(self.sender.predict(service.name, row))
            return True

        with Live(service, self.stores, self.sender, online=self.online, after=first, until=first + PLAYED) as live:
            asked = ask_live(service, rows, live, ask)
            live.drain()
        with open_online(self.online, write=True) as store:
            publish_until(service.view.groups, self.stores.lake, store, now)
        return self._send_outcomes(service, asked, answers)

    def _send_outcomes(self, service: PredictionService, spine: pa.Table, answers: Sequence[Answer]) -> int:
        """Send what became true of the rows, where it is known by now."""
        from windrow.models.labels import label_rows
        from windrow.stores.engine import engine

        self.tell(f"{service.name}: outcomes that are known by now")
        now = self.stores.now(service.sources)
        told = label_rows(service, self.stores.lake, engine(), spine, now=now)
        labels = zip(answers, told["label"].to_pylist(), told["label_state"].to_pylist(), strict=True)
        return self.sender.outcomes(service.name, [(a.request_id, v) for a, v, state in labels if state == "known"])


def _ticks(service: PredictionService, stores: Stores, *, drift: bool) -> list[int]:
    """Return the ticks to live through: drawn from all of the day, or with planted drift from a third of it."""
    spine = service.view.spine
    assert isinstance(spine, Every)
    known, spans = stores.now(service.sources) - service.label.matures_after, stores.spans()
    ticks = np.array(past_ticks(spine, until=known, count=SPAN // spine.interval))
    ticks = ticks[ticks >= first_with_features(service, spans)]
    if drift:
        ticks = ticks[ticks % duration("1d") < duration("8h")]
    drawn = np.random.default_rng(0).choice(ticks, min(TICKS, ticks.size), replace=False)
    return [int(tick) for tick in np.sort(drawn)]


def _first_time(service: PredictionService, stores: Stores, *, drift: bool) -> int:
    """Return the time at which the demo starts to ask: now, the first tick of a clock, or the first event it sends."""
    if isinstance(service.view.spine, Every):
        return _ticks(service, stores, drift=drift)[0]
    now = stores.now(service.sources)
    return now - service.label.matures_after - PLAYED if service.view.contract.timed else now


def _skewed(name: str, pool: Pool, sender: Sender) -> list[dict[str, Any]]:
    """Ask about some keys, and return requests about those with the highest answers only."""
    present = pool.present(_RANKED)
    values = [sender.predict(name, row).value for row in present]
    ranked = [row for _, row in sorted(zip(values, present, strict=True), key=lambda pair: -pair[0])]
    kept = ranked[: max(1, int(len(ranked) * _SKEWED_SHARE))]
    return [kept[i % len(kept)] for i in range(REQUESTS)]


def _learn(service: PredictionService, stores: Stores, outcomes: int, tell: Tell) -> int:
    """Build the training dataset of the flywheel, from logged vectors and outcomes; return its rows."""
    from windrow.models.dataset import dataset_from_log

    if not outcomes:
        return 0
    tell(f"{service.name}: a training dataset from the log")
    metadata, now = stores.metadata, stores.now(service.sources)
    usual = metadata.datasets(service.name)[-1]
    made = dataset_from_log(service, stores.lake, stores.log, metadata, now=now, home=stores.settings.home)
    # What notebooks load by name stays the dataset that the live release was made from.
    metadata.add_dataset(usual["id"], service.name, usual)
    return made.rows


def _watch(service: PredictionService, settings: Settings, tell: Tell) -> _Verdict | None:
    from windrow.monitoring.drift import load_report

    if not (service.monitors and service.online):
        return None
    run_service(service.name, settings, select=[f"{service.name}/monitoring/*"], on_step=_told(tell))
    reports = [load_report(settings.folder("reports"), service.name, monitor.name) for monitor in service.monitors]
    changed = [column.feature for report in reports for column in report.found()]
    return _Verdict(changed, sum(report.judged for report in reports))


def _audit(service: PredictionService, stores: Stores, tell: Tell) -> AuditReport | None:
    from windrow.models.registry import Registry
    from windrow.monitoring.audit import audit
    from windrow.stores.engine import engine

    if not service.online:
        return None
    tell(f"{service.name}: every served vector against the point-in-time join")
    bundle = Registry(stores.metadata, stores.settings.folder("releases")).load(_released(service, stores).id)
    return audit(service, bundle, lake=stores.lake, log=stores.log, con=engine())


def _result(
    service: PredictionService, stores: Stores, asked: _Asked | None, verdict: _Verdict | None, **more: Any
) -> Result:
    release, metric = _released(service, stores), _metric(service)
    waits = sorted(answer.micros for answer in asked.answers) if asked else []
    drift: bool = more.pop("drift")
    audited: AuditReport | None = more.pop("audited")
    return Result(
        service=service.name,
        rows=release.dataset.rows,
        features=len(release.contract.features),
        metric=metric,
        value=release.metrics[metric],
        baseline=release.baseline.get(metric),
        release=release.id,
        backend=release.backend,
        written=_written(service, stores),
        asked=len(waits),
        p50_us=_share(waits, 0.5),
        p99_us=_share(waits, 0.99),
        p99_ms=service.online.p99_ms if service.online else None,
        outcomes=asked.outcomes if asked else 0,
        audited=audited.rows if audited else 0,
        equal=audited.equal if audited else 0,
        drift=_spoken(verdict),
        problems=[*_lost(asked), *_unequal(audited), *_unexpected(verdict, drift=drift)],
        **more,
    )


def _released(service: PredictionService, stores: Stores) -> Release:
    from windrow.models.registry import Registry

    found = Registry(stores.metadata, stores.settings.folder("releases")).live(service.name)
    if found is None:
        raise NotFoundError(f"service {service.name!r} has no release", next_step=f"run windrow run {service.name}")
    return found


def _metric(service: PredictionService) -> str:
    return next((gate.metric for gate in service.gates if isinstance(gate, Gate)), service.metrics[0])


def _written(service: PredictionService, stores: Stores) -> int:
    table = stores.lake.table(f"predictions/{service.name}")
    return table.stats().rows if table.exists else 0


def _logged(service: PredictionService, stores: Stores) -> int:
    return int(stores.log.table(service.name).num_rows)


def _share(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _spoken(verdict: _Verdict | None) -> str:
    if verdict is None:
        return "not watched"
    if verdict.changed:
        shown = ", ".join(verdict.changed[:3])
        return f"DRIFT: {shown}" + (f" and {len(verdict.changed) - 3} more" if len(verdict.changed) > 3 else "")
    return f"none in {verdict.judged} columns" if verdict.judged else "too few rows"


def _lost(asked: _Asked | None) -> list[str]:
    return [f"{asked.lost} answers are not in the prediction log"] if asked and asked.lost else []


def _unequal(audited: AuditReport | None) -> list[str]:
    if audited is None or audited.passed:
        return []
    return [
        f"{audited.rows - audited.equal} served vectors differ from the offline ones, in {listed(audited.by_feature)}"
    ]


def _unexpected(verdict: _Verdict | None, *, drift: bool) -> list[str]:
    if verdict is None or bool(verdict.changed) == drift:
        return []
    return ["the planted drift was not noticed" if drift else "drift was found, and none was planted"]
