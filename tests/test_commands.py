"""Commands that work on a project that has run, each in a process of its own; the project is a new one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import processes_of
from windrow.new import create
from windrow.serving.run import free_port
from windrow.stores.lake import Lake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project whose service was run once, and answered some requests."""
    parent = tmp_path_factory.mktemp("projects")
    create("harvest", parent=parent)
    done = _command(parent / "harvest", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    return parent / "harvest"


def _environ(project: Path, keep: Sequence[str] = ()) -> dict[str, str]:
    cleared = {name: value for name, value in os.environ.items() if name in keep or not name.startswith("WINDROW_")}
    return {**cleared, "WINDROW_HOME": str(project / ".windrow"), "WINDROW_PROJECT": str(project)}


def _command(project: Path, *arguments: str, keep: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command, environ = [sys.executable, "-m", "windrow.cli", *arguments], _environ(project, keep)
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)


def _json(project: Path, *arguments: str) -> Any:
    done = _command(project, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_running_again_makes_another_release(project: Path) -> None:
    before = len(_json(project, "releases", "bakery"))
    steps = _json(project, "run", "bakery", "--select", "bakery/model")["steps"]
    assert [step["asset"] for step in steps] == ["bakery/model"]
    assert len(_json(project, "releases", "bakery")) == before + 1


def test_only_one_release_is_live(project: Path) -> None:
    assert [row["live"] for row in _json(project, "releases", "bakery")].count(True) == 1


def test_rolling_back_and_promoting_change_which_release_is_live(project: Path) -> None:
    live = {row["release"]: row["live"] for row in _json(project, "releases", "bakery")}
    newest, older = list(live)
    assert live == {newest: True, older: False}
    assert _json(project, "rollback", "bakery") == {"service": "bakery", "live": older, "before": newest}
    changed = _json(project, "promote", "bakery", newest)
    assert changed == {"service": "bakery", "live": newest, "before": older, "override": None}


def test_the_history_says_which_release_answered_at_a_time(project: Path) -> None:
    history = _json(project, "releases", "bakery", "--history")
    assert [row["reason"] for row in history[:2]] == ["by hand", "rolled back by hand"]
    then = _json(project, "releases", "bakery", "--at", history[-1]["since"].replace("+00:00", ".999999+00:00"))
    assert then["deployment"]["release"] == history[-1]["release"]
    assert _json(project, "releases", "bakery", "--at", "1999-12-31")["deployment"] is None


def test_two_releases_are_compared_by_their_ids(project: Path) -> None:
    newest, older = (row["release"] for row in _json(project, "releases", "bakery"))
    assert _json(project, "diff", newest, newest) == _json(project, "diff", newest) == []  # it is the live one
    parts = {row["part"] for row in _json(project, "diff", older, newest)}
    assert parts <= {"data", "metrics", "gates", "code"}  # trained again on the same declarations
    unknown = _command(project, "diff", newest, "bakery-99-000000")
    assert (unknown.returncode, "no release 'bakery-99-000000'" in unknown.stderr) == (1, True)


def test_an_override_needs_a_name_and_is_not_signed_where_no_rule_is_in_the_way(project: Path) -> None:
    newest, older = (row["release"] for row in _json(project, "releases", "bakery"))
    nameless = _command(project, "promote", "bakery", older, "--override", "because")
    assert (nameless.returncode, "an override has no signature" in nameless.stderr) == (1, True)
    done = _command(project, "promote", "bakery", older, "--override", "because", "--by", "ada")
    assert (done.returncode, "No rule was in the way" in done.stdout) == (0, True)
    assert _json(project, "promote", "bakery", newest)["before"] == older


def test_promoting_what_is_live_says_so_and_adds_nothing(project: Path) -> None:
    live, history = (
        _json(project, "releases", "bakery")[0]["release"],
        _json(project, "releases", "bakery", "--history"),
    )
    done = _command(project, "promote", "bakery", live)
    assert (done.returncode, done.stdout.strip()) == (0, f"{live} is live already: nothing was changed.")
    again = _json(project, "promote", "bakery", live)
    assert again == {"service": "bakery", "live": live, "before": live, "override": None}
    assert _json(project, "releases", "bakery", "--history") == history


def test_promoting_a_release_that_is_not_there_names_those_that_are(project: Path) -> None:
    done = _command(project, "promote", "bakery", "bakery-99-000000")
    assert done.returncode == 1
    assert "It has 'bakery-1-" in done.stderr


def test_materializing_a_group_again_changes_nothing(project: Path) -> None:
    steps = {step["asset"]: step["facts"] for step in _json(project, "materialize", "recent_sales")["steps"]}
    assert list(steps) == ["sources/sales", "features/recent_sales_v1"]
    assert steps["features/recent_sales_v1"]["rows written"] == 0


def test_an_unknown_group_offers_the_closest(project: Path) -> None:
    done = _command(project, "materialize", "recent_sale")
    assert done.returncode == 2
    assert "did you mean 'recent_sales'" in done.stderr


def test_an_unknown_service_offers_the_closest(project: Path) -> None:
    done = _command(project, "run", "bakry")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'bakery'" in done.stderr


def test_a_request_is_traced_with_its_vector_and_answer(project: Path) -> None:
    script = (
        "from windrow.settings import Settings; from windrow.stores.lake import Lake; from windrow.stores.log import PredictionLog;"
        "s = Settings.read(); print(PredictionLog(s.folder('log'), Lake(s.lake)).table('bakery')['request_id'][0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], env=_environ(project), capture_output=True, text=True, check=True
    )
    records = {record["kind"]: record for record in _json(project, "trace", found.stdout.strip())}
    record = records["prediction"]
    assert set(records) == {"prediction", "outcome"}
    assert record["kind"] == "prediction"
    assert json.loads(record["vector"]).keys() == {"loaves", "loaves_6d", "loaves_mean_7d", "weekday_tomorrow"}
    assert "weekday_tomorrow present" in _command(project, "trace", found.stdout.strip()).stdout


def test_an_unknown_request_says_what_to_copy(project: Path) -> None:
    done = _command(project, "trace", "nothing-1")
    assert done.returncode == 1
    assert "copy the request_id of an answer" in done.stderr


UP = [sys.executable, "-m", "windrow.cli", "up", "--json"]


def _start(project: Path, folder: Path, command: list[str] = UP) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    with (folder / "up.json").open("wb") as out, (folder / "up.err").open("wb") as told:
        process = subprocess.Popen(
            command, cwd=project, env=_environ(project), stdout=out, stderr=told, start_new_session=True
        )
    try:
        _until(
            lambda: process.poll() is not None or (folder / "up.json").read_text().strip().endswith("}"), seconds=240
        )
        assert process.poll() is None
    except AssertionError:
        process.kill()
        raise
    return process, json.loads((folder / "up.json").read_text())


def _get(url: str, project: Path | None = None) -> int:
    key = "" if project is None else (project / ".windrow" / "service" / "key").read_text().strip()
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"authorization": f"Bearer {key}"}), timeout=10
    ) as answer:
        return int(answer.status)


def test_up_answers_at_every_address_and_leaves_nothing_behind(project: Path, tmp_path: Path) -> None:
    process, addresses = _start(project, tmp_path)
    try:
        answers = {name: _get(url, project) for name, url in addresses.items()}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _get(addresses["online service"])
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)
    assert (code, answers) == (0, dict.fromkeys(("online service", "its OpenAPI", "lineage by column", "Dagster"), 200))
    _until_gone(project / ".windrow")


def test_up_says_what_it_waits_for_and_where_that_will_be(project: Path, tmp_path: Path) -> None:
    process, addresses = _start(project, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    waited = [line.partition(" (log: ")[0] for line in (tmp_path / "up.err").read_text().splitlines()]
    online, dagster = addresses["online service"], addresses["Dagster"].removesuffix("/asset-groups")
    assert f"waiting for the online service on {online}" in waited
    assert f"waiting for Dagster on {dagster}" in waited


def test_a_report_that_was_linked_at_another_port_still_opens(project: Path, tmp_path: Path) -> None:
    linked = f"http://127.0.0.1:{free_port()}"
    address = project / ".windrow" / "service" / "url"
    address.write_text(linked)
    process, addresses = _start(project, tmp_path, [*UP, "--port", str(free_port())])
    report = next((project / ".windrow" / "reports").glob("*/*.html"))
    assert addresses["online service"] != linked
    assert _get(f"{linked}/ui/reports/{report.parent.name}/{report.name}", project) == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    address.unlink()


def test_up_that_is_killed_holds_no_port(project: Path, tmp_path: Path) -> None:
    process, addresses = _start(project, tmp_path)
    process.kill()
    process.wait()
    _until_gone(project / ".windrow", seconds=60)  # Dagster's code servers notice by their heartbeat
    with pytest.raises(OSError, match="refused"):
        _get(addresses["online service"])


def _until_gone(home: Path, *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_of(home) == {}


STREAM = 'stream=Stream(lookback="3d"), batch=Batch('


@pytest.fixture
def streaming(project: Path) -> Iterator[Path]:
    """The project with a service that declares a stream too."""
    path = project / "assets" / "bakery" / "service.py"
    plain = path.read_text()
    path.write_text(plain.replace("batch=Batch(", STREAM).replace("TimeSplit, on", "Stream, TimeSplit, on"))
    yield project
    path.write_text(plain)


def _pids(project: Path) -> list[int]:
    """The followers that run."""
    return [pid for pid, line in processes_of(project / ".windrow").items() if "--follow" in line]


def _until(done: Callable[[], bool], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_up_answers_declared_streams_and_begins_a_killed_follower_again(streaming: Path, tmp_path: Path) -> None:
    log = streaming / ".windrow" / "service" / "follow-bakery.log"
    process, _ = _start(streaming, tmp_path)
    try:
        _until(lambda: log.exists() and '"answers"' in log.read_text())
        first = _pids(streaming)
        os.kill(first[0], signal.SIGKILL)
        _until(lambda: _pids(streaming) not in (first, []))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    _until_gone(streaming / ".windrow")


def test_an_audit_finds_every_served_vector_equal(project: Path) -> None:
    first = _json(project, "releases", "bakery")[-1]["release"]  # the one that the demo asked
    assert _command(project, "promote", "bakery", first).returncode == 0
    report = _json(project, "audit", "bakery")
    assert report["rows"] > 0
    assert (report["equal"], report["passed"]) == (report["rows"], True)


def test_what_an_older_release_served_is_audited_by_its_name(project: Path) -> None:
    newest, *_, first = (row["release"] for row in _json(project, "releases", "bakery"))
    assert _json(project, "audit", "bakery", "--release", first)["rows"] > 0
    of_another = _json(project, "audit", "bakery", "--release", newest)
    assert (of_another["rows"], list(of_another["others"])) == (0, [first])
    assert f"It has '{first}'" in _command(project, "audit", "bakery", "--release", "bakery-0").stderr


def test_a_training_dataset_is_made_again_and_is_the_same(project: Path) -> None:
    made = _json(project, "recreate", "bakery")
    assert (made["same"], made["passed"], made["unexplained"]) == (True, True, 0)
    assert _json(project, "recreate", "bakery", "--dataset", made["dataset"]) == made
    assert _json(project, "recreate", "bakery", "--release", _json(project, "releases", "bakery")[0]["release"])["same"]


def test_a_difference_that_nothing_explains_is_exit_code_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project / ".windrow" / "lake", tmp_path / "lake")
    sales = Lake(str(tmp_path / "lake")).table("features/recent_sales_v1")
    sales.replace(sales.schema.empty_table().drop_columns(["_seq"]), "shop_id = 7")
    monkeypatch.setenv("WINDROW_LAKE", str(tmp_path / "lake"))
    done = _command(project, "recreate", "bakery", "--json", keep=["WINDROW_LAKE"])
    made = json.loads(done.stdout)
    assert (done.returncode, made["same"], made["passed"], made["tombstones"]) == (1, False, False, [])
    assert made["unexplained"] > 0


def test_a_dataset_or_release_that_is_not_there_names_those_that_are(project: Path) -> None:
    for option, told in (("--dataset", "no training dataset"), ("--release", "no release")):
        for name in ("x", ""):
            done = _command(project, "recreate", "bakery", option, name)
            assert (done.returncode, f"{told} {name!r}" in done.stderr) == (1, True)


def test_what_will_answer_in_the_future_is_not_told(project: Path) -> None:
    done = _command(project, "releases", "bakery", "--at", "2999-01-01")
    assert (done.returncode, "2999-01-01 is yet to come" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["trial", "--remove", "--diff", "bakery"], "--remove and --diff ask for two things"),
        (["--remove"], "name the branch"),
        (["trial", "--days", "3"], "--days says how much --diff SERVICE compares"),
    ],
)
def test_options_of_branch_that_do_not_go_together_are_refused(project: Path, given: list[str], told: str) -> None:
    done = _command(project, "branch", *given)
    assert (done.returncode, told in done.stderr) == (2, True)
    assert _json(project, "branch") == []


def test_an_entity_is_forgotten_once_and_only_when_it_is_meant(project: Path) -> None:
    would = _json(project, "forget", "shop", "7", "--dry-run")
    assert (would["dry_run"], would["rows"]["sources/sales"], would["rows"]["online/recent_sales_v1"]) == (True, 730, 1)
    unasked = _command(project, "forget", "shop", "7")
    assert (unasked.returncode, "Stopped." in unasked.stderr) == (1, True)
    gone = _json(project, "forget", "shop", "7", "--yes")
    assert (gone["rows"]["sources/sales"], len(gone["hash"])) == (730, 64)
    assert _json(project, "forget", "shop", "7", "--dry-run")["rows"] == {}
    made = _json(project, "recreate", "bakery")
    assert (made["same"], made["passed"], made["unexplained"], made["tombstones"]) == (False, True, 0, [gone["hash"]])


def test_forgetting_what_is_not_declared_offers_the_closest(project: Path) -> None:
    for more in (["--yes"], []):  # also before anything is asked
        done = _command(project, "forget", "shopp", "7", *more)
        assert (done.returncode, "did you mean 'shop'" in done.stderr, "Erase" in done.stderr) == (2, True, False)


def test_experiments_of_a_service_that_is_not_there_are_not_none(project: Path) -> None:
    done = _command(project, "experiment", "list", "bakary")
    assert (done.returncode, "did you mean 'bakery'" in done.stderr) == (1, True)
    assert _json(project, "experiment", "list", "bakery") == []


def test_a_model_file_is_onboarded_and_can_be_promoted(project: Path) -> None:
    (newest, *_) = [row["release"] for row in _json(project, "releases", "bakery")]
    file = project / ".windrow" / "releases" / newest / "model.skops"
    made = _json(project, "onboard", str(file), "--view", "bakery")
    assert (made["service"], made["from"], made["gates"]) == ("bakery", "skops", "passed")
    live = _json(project, "promote", "bakery", made["release"])["live"]
    assert live == made["release"]


def test_a_view_that_is_not_there_is_named(project: Path) -> None:
    done = _command(project, "onboard", "model.onnx", "--view", "bakry")
    assert done.returncode == 2
    assert "'bakry'" in done.stderr
    assert "'bakery'" in done.stderr
