"""Promises of the applier as a process: it ends with its parent, commits before it ends, and waits for nothing that is broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.stores.ingest.world import World, asked, now, page_views, settings_in
from windrow.settings import Settings
from windrow.stores.ingest.status import told

COMMAND = [sys.executable, "-m", "windrow.stores.ingest.applier"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(settings_in(tmp_path, WINDROW_INGEST_EVERY="600"))
    yield made
    made.writer.close()


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen(COMMAND, cwd=ROOT, env={**os.environ, **settings.environ()}, stderr=subprocess.DEVNULL)


def test_an_applier_that_is_asked_to_end_commits_what_is_finished_first(world: World) -> None:
    world.send("clicks", [1, "home", now() - 1000])
    applier = _start(world.settings)
    _until(lambda: told(world.folder).online == 1)
    world.writer.rotate()
    applier.terminate()
    assert applier.wait(timeout=60) == 0
    assert world.column("sources/clicks", "number") == [1]
    assert world.segments() == []


def test_a_second_applier_takes_over_when_the_first_one_is_killed(world: World) -> None:
    first = _start(world.settings)
    world.send("clicks", [1, "home", now() - 1000])
    _until(lambda: told(world.folder).online == 1)
    second = _start(world.settings)
    first.kill()
    first.wait()
    world.send("clicks", [2, "home", now() - 1000])
    _until(lambda: told(world.folder).pid == second.pid and told(world.folder).online == 1)
    second.terminate()
    second.wait(timeout=60)
    assert asked(world.settings, page_views, ("home",)) == (2,)


def test_an_applier_ends_when_its_parent_dies(world: World) -> None:
    code = "import os, sys, time; from windrow.serving.child import spawn; spawn(sys.argv[1:], environ=os.environ); time.sleep(600)"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND[1:]], cwd=ROOT, env={**os.environ, **world.settings.environ()}
    )
    _until(lambda: told(world.folder).pid != 0)
    applier = told(world.folder).pid
    parent.kill()
    parent.wait()
    _until(lambda: not _runs(applier))


def test_an_applier_goes_on_when_its_store_can_be_used_again(world: World) -> None:
    blocked = Path(world.settings.home / "online")
    blocked.write_text("in the way of the folder")
    applier = _start(world.settings)
    world.send("clicks", [1, "home", now() - 1000])
    time.sleep(1)
    assert applier.poll() is None
    blocked.unlink()
    _until(lambda: told(world.folder).online == 1)
    applier.send_signal(signal.SIGINT)
    assert applier.wait(timeout=60) == 0


def test_a_wrong_url_of_redis_does_not_keep_pushed_events_waiting(tmp_path: Path) -> None:
    world = World(settings_in(tmp_path, WINDROW_STREAMS="nowhere"))
    world.send("clicks", [1, "home", now() - 1000])
    applier = _start(world.settings)
    _until(lambda: told(world.folder).online == 1)
    applier.terminate()
    assert applier.wait(timeout=60) == 0
    world.writer.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
