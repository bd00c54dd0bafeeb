"""The demo as somebody runs it, and what is left of one that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.house.conftest import ROOT
from tests.processes import processes_of

pytestmark = pytest.mark.slow


def _environ(home: Path) -> dict[str, str]:
    return {**os.environ, "WINDROW_HOME": str(home), "WINDROW_PROJECT": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}


def _demo(home: Path, *options: str) -> dict[str, dict[str, object]]:
    command = [sys.executable, "-m", "windrow.cli", "demo", "--json", *options]
    done = subprocess.run(command, env=_environ(home), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return {row["service"]: row for row in json.loads(done.stdout)["services"]}


def test_the_demo_holds_runs_again_and_survives_being_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "windrow.cli", "demo"]
    with (tmp_path / "killed.log").open("wb") as log:
        killed = subprocess.Popen(command, env=_environ(home), cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 240
        while not list(home.glob("log/*.open")) and time.monotonic() < deadline and killed.poll() is None:
            time.sleep(0.1)  # until the service has answered
        assert killed.poll() is None
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    _until_gone(home)
    for number in (1, 2):
        rows = _demo(home)
        assert set(rows) == {"churn", "crypto", "electricity", "fraud", "loans", "nba"}, number
        assert [row["problems"] for row in rows.values()] == [[], [], [], [], [], []]
    assert processes_of(home) == {}


def _until_gone(home: Path) -> None:
    deadline = time.monotonic() + 10
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(home) == {}


def test_planted_drift_is_noticed_in_every_service_that_is_watched(tmp_path: Path) -> None:
    rows = _demo(tmp_path / "home", "--drift")
    said = {name: str(row["drift"]).partition(":")[0] for name, row in rows.items()}
    assert said == {
        "churn": "DRIFT",
        "crypto": "not watched",
        "electricity": "DRIFT",
        "fraud": "DRIFT",
        "loans": "DRIFT",
        "nba": "not watched",
    }
    assert not (tmp_path / "home").exists()  # a home of its own: logs are never rewritten


def test_the_rig_answers_logs_and_explains_its_traffic_with_a_challenger_and_a_shadow(tmp_path: Path) -> None:
    rows = _demo(tmp_path / "home", "--rig", "fraud", "--rig", "loans", "--seconds", "5")
    assert [row["problems"] for row in rows.values()] == [[], []]
    for row in rows.values():
        arms = {arm["arm"]: arm["requests"] for arm in row["arms"]}
        assert row["asked"] == row["logged"] == row["outcomes"] == arms["golden"] + arms["challenger"] == arms["shadow"]
    assert rows["fraud"]["events"] > 0
    assert not (tmp_path / "home").exists()  # a home of its own, which begins anew
    assert processes_of(tmp_path / "home-rig") == {}
