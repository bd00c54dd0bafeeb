from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tests.serving import world
from tests.serving.conftest import Caller, eventually
from tests.serving.world import GOOD
from windrow.serving.stages import BOUNDS, STAGES, Histogram, Stages

nanoseconds = st.integers(0, 5_000_000_000)


@given(st.lists(nanoseconds, min_size=1, max_size=400), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_duration_that_it_stands_for(spent: list[int], share: float) -> None:
    histogram = Histogram()
    for one in spent:
        histogram.observe(one)
    exact = next(v for i, v in enumerate(sorted(spent), 1) if i >= share * len(spent))
    above = [bound for bound in BOUNDS if bound >= exact]
    below = [bound for bound in BOUNDS if bound < exact]
    found = histogram.quantile(share)
    assert found is not None
    high = above[0] if above else BOUNDS[-1]
    assert (below[-1] if above and below else 0) / 1e9 <= found <= high / 1e9 * (1 + 1e-9)


@given(st.lists(st.tuples(*[nanoseconds] * 5, st.integers(1, 64)), max_size=600))
def test_what_is_put_down_is_counted_once_for_each_request(runs: list[tuple[int, ...]]) -> None:
    stages = Stages()
    for run in runs:
        stages.observe("fraud", *run)
    for place in range(len(STAGES)):
        expected = Histogram()
        for run in runs:
            for _ in range(run[-1]):
                expected.observe(run[place])
        counted = stages.services["fraud"][place] if runs else Histogram()
        assert (counted.counts, counted.total) == (expected.counts, expected.total)


def test_metrics_tell_each_stage_of_each_request_and_its_share_of_the_budget(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings, p99_ms=40)
    eventually(lambda: fresh.worker.live.ready)
    for body in (GOOD, {"rows": [GOOD, GOOD]}, {}):
        fresh.predict(body)
    text = fresh("GET", "/metrics").body.decode()
    for stage in ("validate", "features", "model", "log", "answer"):
        assert f'windrow_stage_seconds_count{{service="fraud",stage="{stage}"}} 2.0' in text
        assert f'windrow_stage_seconds_bucket{{le="+Inf",service="fraud",stage="{stage}"}} 2.0' in text
        share = re.search(rf'windrow_stage_budget_share{{service="fraud",stage="{stage}"}} (\S+)', text)
        assert share is not None
        assert float(share[1]) > 0
    assert 'windrow_latency_budget_seconds{service="fraud"} 0.04' in text


def test_a_service_shows_its_budget_and_what_each_stage_takes_of_it(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings, p99_ms=40)
    eventually(lambda: fresh.worker.live.ready)
    assert fresh("GET", "/v1/fraud").json["stages"] == {}
    fresh.predict(GOOD)
    told = fresh("GET", "/v1/fraud").json
    assert told["p99_ms"] == 40
    assert list(told["stages"]) == ["validate", "features", "model", "log", "answer"]
    for spent in told["stages"].values():
        assert 0 < spent["p50_ms"] <= spent["p99_ms"]
        assert abs(spent["share"] - spent["p99_ms"] / 40) < 1e-3
