"""Promises of the committer: each record in the lake once, and visible once, whatever is killed when."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.stores.log_tools import SPAWN, killed_writer, outcome, prediction, write_quietly
from windrow.errors import SchemaError
from windrow.stores.committer import commit, elected, pace_for
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.stores.log import LogWriter, PredictionLog
from windrow.stores.segments import lock_if_dead


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "log"


@pytest.fixture
def log(home: Path, folder: Path) -> PredictionLog:
    return PredictionLog(folder, Lake(str(home / "lake")))


def _ids(log: PredictionLog) -> list[str]:
    found: list[str] = log.table("churn").column("request_id").to_pylist()
    return found


def _write(folder: Path, numbers: range, *, worker: str = "w", service: str = "churn", **options: Any) -> None:
    with LogWriter(folder, worker, **options) as writer:
        for number in numbers:
            writer.append([prediction(number, service=service)])


def _files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".open", ".seg", ".damaged"))


def test_a_finished_segment_is_committed_and_deleted(folder: Path, log: PredictionLog) -> None:
    _write(folder, range(3))
    assert commit(folder, log.lake) == 3
    assert _files(folder) == []
    assert log.lake.table("log/churn").stats().rows == 3
    assert _ids(log) == ["r0", "r1", "r2"]


def test_committing_again_commits_nothing(folder: Path, log: PredictionLog) -> None:
    _write(folder, range(3))
    commit(folder, log.lake)
    version = log.lake.table("log/churn").stats().version
    assert commit(folder, log.lake) == 0
    assert log.lake.table("log/churn").stats().version == version


def test_the_segment_that_a_living_worker_writes_is_left_alone(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        assert commit(folder, log.lake) == 0
        writer.append([prediction(2)])
    assert commit(folder, log.lake) == 2


def test_the_open_segment_of_a_dead_worker_is_committed(folder: Path, log: PredictionLog) -> None:
    last = killed_writer(folder, after=5)
    assert commit(folder, log.lake) >= 2 * (last + 1)
    assert _files(folder) == []


def test_predictions_errors_and_outcomes_go_to_their_tables(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1), prediction(2, kind="error", release="churn-1")])
        writer.append([outcome("r1", 1.0, known_at=5)])
    assert commit(folder, log.lake) == 3
    assert log.lake.keys() == ["log/churn", "outcomes/churn"]
    kinds = log.lake.table("log/churn").scan(engine()).kind.to_pyarrow().to_pylist()
    assert sorted(kinds) == ["error", "prediction"]


def test_a_segment_committed_but_not_deleted_is_visible_once_and_never_committed_again(
    folder: Path, log: PredictionLog, tmp_path: Path
) -> None:
    _write(folder, range(3))
    shutil.copytree(folder, tmp_path / "copy")
    commit(folder, log.lake)
    for name in os.listdir(tmp_path / "copy"):  # as if killed between the commit and the deletion
        if name.endswith(".seg"):
            shutil.copy(tmp_path / "copy" / name, folder / name)
    assert _ids(log) == ["r0", "r1", "r2"]
    assert commit(folder, log.lake) == 0
    assert _ids(log) == ["r0", "r1", "r2"]
    assert _files(folder) == []


def test_of_a_half_committed_batch_only_the_missing_table_is_written(
    folder: Path, log: PredictionLog, tmp_path: Path
) -> None:
    with LogWriter(folder, "w", segment_bytes=1) as writer:
        for number in range(3):
            writer.append([prediction(number), outcome(f"r{number}", 1.0, known_at=5)])
    shutil.copytree(folder, tmp_path / "copy")
    commit(folder, log.lake)
    shutil.rmtree(Path(log.lake.root) / "outcomes")  # as if killed after the first of the two tables
    for path in (tmp_path / "copy").glob("*.seg"):
        shutil.copy(path, folder)
    _write(folder, range(3, 5))
    assert log.table("churn", "outcome").num_rows == 3
    assert commit(folder, log.lake) == 3 + 2
    assert (_ids(log), log.table("churn", "outcome").num_rows) == ([f"r{n}" for n in range(5)], 3)


def test_workers_do_not_wait_for_each_other(folder: Path, log: PredictionLog) -> None:
    with LogWriter(folder, "a") as living:
        living.append([prediction(1)])
        _write(folder, range(2, 4), worker="b")
        assert commit(folder, log.lake) == 2
        assert _ids(log) == ["r1", "r2", "r3"]


def test_a_damaged_segment_is_kept_and_what_could_be_read_is_committed(
    folder: Path, log: PredictionLog, caplog: pytest.LogCaptureFixture
) -> None:
    with LogWriter(folder, "w") as writer:
        writer.append([prediction(1)])
        (path,) = folder.glob("*.open")
        good = path.stat().st_size
        writer.append([prediction(2)])
    (path,) = folder.glob("*.seg")
    data = bytearray(path.read_bytes())
    data[good + 4] = 0xC1  # a byte that msgpack never uses
    path.write_bytes(data)
    assert commit(folder, log.lake) == 1
    assert _files(folder) == [path.name.replace(".seg", ".damaged")]
    assert "is damaged" in caplog.text


def test_only_the_elected_process_commits(folder: Path, log: PredictionLog) -> None:
    _write(folder, range(3))
    with elected(folder) as first, elected(folder) as second:
        assert (first, second) == (True, False)
        assert commit(folder, log.lake) == 0
    assert commit(folder, log.lake) == 3


def test_a_failed_commit_keeps_the_segment_and_stops_no_other_worker(folder: Path, log: PredictionLog) -> None:
    _write(folder, range(3))
    log.lake.table("log/churn").append(pa.table({"other": [1]}))
    _write(folder, range(3), worker="x-other", service="fraud")
    with pytest.raises(SchemaError, match="log/churn"):
        commit(folder, log.lake)
    assert [name[:2] for name in _files(folder)] == ["w-"]
    assert log.table("fraud").num_rows == 3


def test_a_worker_is_not_taken_for_dead_while_it_makes_its_segment(folder: Path) -> None:
    wrong: list[str] = []
    stop = threading.Event()

    def grab() -> None:
        while not stop.is_set():
            for path in folder.glob("*.open"):
                lock = lock_if_dead(path)
                if lock is not None:
                    # Only a segment that has just been sealed, and so lost its name, may be unlocked.
                    wrong.extend([path.name] if path.exists() else [])
                    os.close(lock)

    with LogWriter(folder, "w", segment_bytes=1) as writer:
        writer.append([prediction(0)])
        thread = threading.Thread(target=grab)
        thread.start()
        for number in range(300):
            writer.append([prediction(number)])
        stop.set()
        thread.join()
    assert wrong == []


def test_every_record_is_visible_once_while_segments_are_committed(folder: Path, log: PredictionLog) -> None:
    writer = SPAWN.Process(target=write_quietly, args=(folder, "w"))
    writer.start()
    try:
        stop = threading.Event()

        def commit_always() -> None:
            while not stop.is_set():
                commit(folder, log.lake)

        thread = threading.Thread(target=commit_always)
        thread.start()
        before = 0
        _wait(lambda: log.lake.table("log/churn").exists)
        try:
            for _ in range(25):
                ids = _ids(log)
                assert sorted(int(i.removeprefix("r")) for i in ids) == list(range(len(ids)))
                assert len(ids) >= before
                before = len(ids)
        finally:
            stop.set()
            thread.join()
        assert before > 50
        assert log.lake.table("log/churn").stats().version > 3
    finally:
        writer.kill()
        writer.join()


def _start(home: Path, *, every: float = 0.02, by_setting: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "windrow.stores.committer", "--every", str(every)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WINDROW_")}
    if by_setting:
        environ["WINDROW_HOME"] = str(home)
    else:
        command += ["--home", str(home)]
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _wait(condition: object, *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_committer_killed_at_any_moment_loses_nothing_and_doubles_nothing(
    home: Path, folder: Path, log: PredictionLog
) -> None:
    pause = random.Random(7)
    written = 0
    for _ in range(4):
        committer = _start(home)
        try:
            _wait(lambda: (folder / "committer.lock").exists())
            for _ in range(6):
                _write(folder, range(written, written + 20), segment_bytes=1500)
                written += 20
                time.sleep(pause.uniform(0, 0.1))
            time.sleep(pause.uniform(0, 0.2))
        finally:
            os.kill(committer.pid, signal.SIGKILL)
            committer.communicate()
        assert sorted(int(i[1:]) for i in _ids(log)) == list(range(written))
    commit(folder, log.lake)
    assert sorted(int(i[1:]) for i in _ids(log)) == list(range(written))
    assert log.lake.table("log/churn").stats().rows == written
    assert _files(folder) == []


def test_a_second_committer_waits_quietly_and_takes_over(home: Path, folder: Path, log: PredictionLog) -> None:
    first = _start(home)
    _write(folder, range(3))
    _wait(lambda: _files(folder) == [])
    second = _start(home)
    time.sleep(0.5)
    assert (first.poll(), second.poll()) == (None, None)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    _write(folder, range(3, 6))
    _wait(lambda: _files(folder) == [])
    second.terminate()
    assert second.communicate(timeout=10)[1] == ""
    assert second.returncode == 0
    assert log.lake.table("log/churn").stats().rows == 6


@pytest.mark.parametrize(("waiting", "rests"), [(1 << 20, True), (40 << 20, False)])
def test_the_committer_rests_at_work_unless_so_much_waits_that_it_could_not_follow(
    folder: Path, waiting: int, rests: bool
) -> None:
    folder.mkdir(parents=True)
    with (folder / "api-0-1.seg").open("wb") as segment:
        segment.truncate(waiting)
    with pace_for(folder):
        assert (signal.getitimer(signal.ITIMER_PROF)[0] > 0) is rests
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_without_a_folder_the_committer_takes_the_one_of_the_settings(home: Path, folder: Path) -> None:
    _write(folder, range(3))
    committer = _start(home, by_setting=True)
    try:
        _wait(lambda: _files(folder) == [])
    finally:
        committer.kill()
        committer.communicate()


def test_the_committer_ends_when_its_parent_is_killed(home: Path, folder: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'windrow.stores.committer', '--home', {str(home)!r}, '--every', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WINDROW_")}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environ)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    _wait(lambda: (folder / "committer.lock").exists())
    parent.kill()
    parent.communicate()

    def free() -> bool:
        with elected(folder) as mine:
            return mine

    _wait(free, seconds=10)
    _wait(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text(), seconds=10)
