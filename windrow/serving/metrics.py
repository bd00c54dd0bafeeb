"""Counts and latencies of requests, in the form that Prometheus reads.

Plain integers on the request path; the form is made when somebody asks for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from windrow.serving.stages import STAGES, Stages

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class IngestFacts(NamedTuple):
    """What became of events: accepted by this worker by name; applied, parked and committed by the home's applier."""

    accepted: Mapping[str, int] = {}
    online: int = 0
    parked: int = 0
    committed: int = 0
    backlog: int = 0


class BackboneFacts(NamedTuple):
    """What goes wrong: breakers by name, rows by (service, reason) and (service, who answered instead), requests turned away."""

    breakers: Mapping[str, str] = {}
    degraded: Mapping[tuple[str, str], int] = {}
    fallbacks: Mapping[tuple[str, str], int] = {}
    turned_away: Mapping[str, int] = {}
    in_flight: int = 0


class LogFacts(NamedTuple):
    """Records that were shed, bytes that wait for the lake, and segments of which something could not be read."""

    lost: int = 0
    backlog: int = 0
    damaged: int = 0


class CacheFacts(NamedTuple):
    """Rows whose output a release had kept, and had not; outputs that went because there was no room."""

    hits: int = 0
    misses: int = 0
    evicted: int = 0


class Metrics:
    """What one worker has answered.

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.observe("churn", "predict", 200, 0.0004)
    >>> b'windrow_requests_total{route="predict",service="churn",status="200"} 1.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[int]] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self.live: dict[str, str] = {}
        self.ingest, self.backbone, self.log = IngestFacts(), BackboneFacts(), LogFacts()
        self.caches: Mapping[str, CacheFacts] = {}
        self.arms: Mapping[tuple[str, str, str], int] = {}
        self.shadows: Mapping[tuple[str, str, str], int] = {}
        self.precomputed: Mapping[tuple[str, str], int] = {}
        self.stages, self.budgets = Stages(), dict[str, float]()

    def observe(self, service: str, route: str, status: int, seconds: float) -> None:
        """Count one request to a live service (or to "", where there is none)."""
        self._counts[service, route, status] += 1
        if route == "predict" and status == 200:
            buckets = self._seconds.get(service)
            if buckets is None:
                buckets = self._seconds[service] = [0] * (len(BUCKETS) + 1)
            buckets[bisect_left(BUCKETS, seconds)] += 1
            self._sums[service] += seconds

    def text(self) -> bytes:
        """Return the page that a scraper reads."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return bytes(generate_latest(registry))

    def collect(self) -> Iterator[Any]:
        """Yield the metric families, as prometheus_client asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily("windrow_requests", "Requests answered", labels=["service", "route", "status"])
        for (service, route, status), count in sorted(self._counts.items()):
            requests.add_metric([service, route, str(status)], count)
        yield requests
        latency = HistogramMetricFamily("windrow_prediction_seconds", "From the body to the answer", labels=["service"])
        for service, counts in sorted(self._seconds.items()):
            latency.add_metric([service], _cumulated(counts), self._sums[service])
        yield latency
        live = GaugeMetricFamily(
            "windrow_live_release", "1 for the release that answers", labels=["service", "release"]
        )
        for service, release in sorted(self.live.items()):
            live.add_metric([service, release], 1)
        yield live
        yield from self._timed()
        yield from self._held()
        yield from self._kept()
        yield from self._dispatched()
        yield from self._ingested()
        yield from self._logged()

    def _timed(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

        spent = HistogramMetricFamily("windrow_stage_seconds", "Of each request, by stage", labels=["service", "stage"])
        budget = GaugeMetricFamily("windrow_latency_budget_seconds", "Declared for the p99", labels=["service"])
        share = GaugeMetricFamily(
            "windrow_stage_budget_share", "The p99 of a stage by the latency budget", labels=["service", "stage"]
        )
        for service, held in sorted(self.stages.services.items()):
            for stage, histogram in zip(STAGES, held, strict=True):
                spent.add_metric([service, stage], list(histogram.cumulated()), histogram.seconds)
        for service, most in sorted(self.budgets.items()):
            budget.add_metric([service], most / 1000)
            for stage, found in self.stages.spent(service, budget_ms=most).items():
                share.add_metric([service, stage], found.share or 0.0)
        arms = HistogramMetricFamily(
            "windrow_arm_seconds", "Features and model, by row", labels=["service", "experiment", "arm"]
        )
        for labels, histogram in sorted(self.stages.arms.items()):
            arms.add_metric(list(labels), list(histogram.cumulated()), histogram.seconds)
        yield from (spent, budget, share, arms)

    def _held(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        facts = self.backbone
        breakers = GaugeMetricFamily(
            "windrow_breaker_open", "1 for what is left alone, 0.5 while it is tried, 0 else", labels=["name"]
        )
        for name, state in facts.breakers.items():
            breakers.add_metric([name], _OPEN[state])
        yield breakers
        degraded = CounterMetricFamily("windrow_degraded", "Rows with something wrong", labels=["service", "reason"])
        for labels, count in sorted(facts.degraded.items()):
            degraded.add_metric(list(labels), count)
        yield degraded
        fallbacks = CounterMetricFamily("windrow_fallbacks", "Rows answered by another", labels=["service", "by"])
        for labels, count in sorted(facts.fallbacks.items()):
            fallbacks.add_metric(list(labels), count)
        yield fallbacks
        turned_away = CounterMetricFamily("windrow_turned_away", "Requests that did not come in", labels=["reason"])
        for reason, count in sorted(facts.turned_away.items()):
            turned_away.add_metric([reason], count)
        yield turned_away
        yield GaugeMetricFamily("windrow_in_flight", "Requests that are being answered", value=facts.in_flight)

    def _kept(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        kept = CounterMetricFamily("windrow_cache", "Outputs found, made and put out", labels=["release", "what"])
        for release, facts in sorted(self.caches.items()):
            for what, count in (("hit", facts.hits), ("miss", facts.misses), ("evicted", facts.evicted)):
                kept.add_metric([release, what], count)
        yield kept

    def _dispatched(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        for name, help_, labels, found in (
            (
                "windrow_arm_rows",
                "Rows answered in an arm of an experiment",
                ["service", "experiment", "arm"],
                self.arms,
            ),
            (
                "windrow_precomputed_rows",
                "Rows for which a batch run's prediction was found, or missed",
                ["service", "what"],
                self.precomputed,
            ),
            ("windrow_shadow_rows", "Rows that a shadow was asked", ["service", "release", "became"], self.shadows),
        ):
            family = CounterMetricFamily(name, help_, labels=labels)
            for values, count in sorted(found.items()):
                family.add_metric(values, count)
            yield family

    def _ingested(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        facts = self.ingest
        accepted = CounterMetricFamily("windrow_ingest_accepted", "Events accepted by this worker", labels=["name"])
        for name, count in sorted(facts.accepted.items()):
            accepted.add_metric([name], count)
        yield accepted
        for what, help_, value in (
            ("online", "Events applied to the online store since the applier started", facts.online),
            ("parked", "Events that could not be applied, since the applier started", facts.parked),
            ("committed", "Events committed to the lake since the applier started", facts.committed),
        ):
            yield CounterMetricFamily(f"windrow_ingest_{what}", help_, value=value)
        yield GaugeMetricFamily("windrow_ingest_backlog_bytes", "Events not in the lake yet", value=facts.backlog)

    def _logged(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        facts = self.log
        yield CounterMetricFamily("windrow_log_shed", "Records of answered predictions that are lost", value=facts.lost)
        yield GaugeMetricFamily("windrow_log_backlog_bytes", "Of the log, not in the lake yet", value=facts.backlog)
        yield GaugeMetricFamily(
            "windrow_log_damaged", "Segments put aside, with what could not be read", value=facts.damaged
        )


_OPEN = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


def _cumulated(counts: list[int]) -> list[tuple[str, int]]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    return [(bound, sum(counts[: i + 1])) for i, bound in enumerate(bounds)]
