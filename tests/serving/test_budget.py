from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from tests.serving.world import FRAUD, GOOD, SOURCE
from windrow.errors import ModelError
from windrow.serving import budget
from windrow.serving.budget import Timed, latency_folder, read_timed
from windrow.serving.loader import Loader
from windrow.settings import Settings

SLOW = msgspec.structs.replace(
    FRAUD, on_demand_source=SOURCE.replace("return", "time.sleep(0.02); return") + "\nimport time\n"
)


def release_slow(settings: Settings, number: int, **facts: Any) -> str:
    """Release fraud with a function of its features that sleeps 20 ms."""
    payload, golden = world._compiled(0.0)
    return world._register(settings, SLOW, f"fraud-{number}", payload, golden, promote=True, number=number, **facts)


def test_a_release_over_its_budget_does_not_replace_the_one_that_answers(fresh: Caller) -> None:
    settings, live = fresh.worker.settings, fresh.worker.live
    world.release_fraud(settings, p99_ms=800)
    eventually(lambda: live.ready)
    release_slow(settings, 2, p99_ms=5)
    eventually(lambda: live.failures)
    assert fresh.predict(GOOD).json["release"] == "fraud-1"
    told = fresh("GET", "/readyz")
    assert told.status == 503
    assert "release 'fraud-2' is too slow: p99 " in told.json["detail"]
    assert " of 5 ms (most of it: features, " in told.json["detail"]


def test_a_release_within_its_budget_goes_live_and_what_it_took_is_kept(fresh: Caller) -> None:
    settings = fresh.worker.settings
    release_slow(settings, 1, p99_ms=700)
    eventually(lambda: fresh.worker.live.ready)
    found = read_timed(latency_folder(settings), "fraud-1")
    assert found is not None
    assert 20 <= found.p99_ms <= 700
    assert list(found.stages_ms) == ["validate", "features", "model", "log", "answer"]
    assert found.stages_ms["features"] >= 20
    assert str(found).endswith(" ms of 700 ms")


def test_nothing_of_the_timing_is_in_the_log_or_left_behind(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_fraud(settings, p99_ms=800)
    eventually(lambda: fresh.worker.live.ready)
    assert [path.name for path in latency_folder(settings).iterdir()] == ["fraud-1.json"]
    written = [path.read_bytes() for path in (settings.home / "log").rglob("*") if path.is_file()]
    assert not any(b"warm-up" in data for data in written)


def test_a_refused_release_is_refused_again_without_being_timed(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    world.publish(settings)
    loader, id = Loader(settings), release_slow(settings, 1, p99_ms=5)
    with pytest.raises(ModelError, match="too slow"):
        loader.load(id)
    begin, before = time.monotonic(), read_timed(latency_folder(settings), id)
    with pytest.raises(ModelError, match="too slow: p99 .* in the best of 5 rounds .* Next: promote a release"):
        loader.load(id)
    assert time.monotonic() - begin < budget.ROUNDS * budget.FEWEST * 0.02
    assert read_timed(latency_folder(settings), id) == before
    loader.close()


def test_a_release_that_was_within_its_budget_once_starts_again_on_a_busy_machine(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    world.publish(settings)
    id = release_slow(settings, 1, p99_ms=5)
    kept = Timed(release=id, budget_ms=5, p99_ms=4, requests=100, stages_ms={"model": 4.0}, at=1)
    folder = latency_folder(settings)
    folder.mkdir(parents=True)
    (folder / f"{id}.json").write_bytes(msgspec.json.encode(kept))
    loader = Loader(settings)
    loader.load(id).predictor.close()
    assert read_timed(folder, id) == kept
    loader.close()


def test_a_machine_that_is_busy_with_others_refuses_no_release(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    world.publish(settings)
    id, loader = world.release_fraud(settings, p99_ms=8), Loader(settings)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        loader.load(id).predictor.close()
    finally:
        for other in others:
            other.kill()
            other.wait()
        loader.close()


def test_a_release_without_a_budget_is_not_timed(fresh: Caller) -> None:
    world.release_fraud(fresh.worker.settings)
    eventually(lambda: fresh.worker.live.ready)
    assert read_timed(latency_folder(fresh.worker.settings), "fraud-1") is None


def test_what_another_version_wrote_counts_as_not_timed(tmp_path: Path) -> None:
    (tmp_path / "fraud-1.json").write_text(json.dumps({"release": "fraud-1"}))
    assert read_timed(tmp_path, "fraud-1") is None
