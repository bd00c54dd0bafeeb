"""Experiments on the real BentoML process, started and changed by the command line while requests run."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT
from tests.serving import world
from tests.serving.conftest import eventually
from tests.serving.world import GOOD, NOW
from windrow.models.assignment import unit_of
from windrow.models.experiment import assigner
from windrow.models.experiments import Experiments
from windrow.models.registry import Registry
from windrow.serving.run import Running, start
from windrow.settings import Settings
from windrow.stores.lake import Lake
from windrow.stores.log import PredictionLog
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

pytestmark = pytest.mark.xdist_group("bento")

CARDS = range(1, 41)
SERVICE = """
from windrow import Entity, FeatureView, Label, Online, PredictionService, RandomSplit, Source, feature_group

card = Entity("card", card_id="int64")
columns = {"payment_id": "int64", "card_id": "int64", "amount": "float64", "x": "float64"}
payments = Source("payments", id="payment_id", event_time="ts", columns=columns)
cards = Source("cards", event_time="ts", columns={"card_id": "int64", "limit": "float64"})
frauds = Source("frauds", event_time="ts", columns={"payment_id": "int64"})

@feature_group(card)
def card(cards):
    return cards.select("card_id", "limit")

view = FeatureView("fraud", spine=payments, features=[card, payments.amount, payments.x])
label = Label.joined(frauds, on="payment_id", absent=0, matures_after="1s")
fraud = PredictionService("fraud", view, label, model="train:model", split=RandomSplit(0.2), online=Online())
"""


class Served:
    """A running service, and the command line of its project."""

    def __init__(self, settings: Settings, running: Running, project: Path) -> None:
        self.settings, self.project = settings, project
        self.address = urlsplit(running.url)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address.hostname or "", self.address.port, timeout=10)

    def windrow(self, *arguments: str) -> Any:
        environ = {**os.environ, **self.settings.environ(), "WINDROW_PROJECT": str(self.project)}
        command = [sys.executable, "-m", "windrow.cli", "experiment", *arguments, "--json"]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def post(connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    data = answer.read()
    assert answer.status == 200, data
    return json.loads(data)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("experiments")
    settings = Settings.read(
        {
            "WINDROW_HOME": str(folder / "home"),
            "WINDROW_DATA": str(folder),
            "WINDROW_PROJECT": str(ROOT),
            "WINDROW_INSECURE": "1",
        }
    )
    world.publish(settings)
    with open_online(settings.online, write=True) as store:
        store.write("card_v1", ["limit", "x"], [((card,), Row(NOW, NOW, 9, (500.0, 1.5))) for card in CARDS])
    for number, shift in ((1, 0.0), (2, 0.5), (3, 1.0)):
        world.release_fraud(settings, number, shift=shift, promote=number == 1)
    package = folder / "project" / "assets" / "fraud"
    package.mkdir(parents=True)
    for module in (package.parent, package):
        (module / "__init__.py").write_text("")
    (package / "service.py").write_text(SERVICE)
    with start(settings) as running:
        yield Served(settings, running, folder / "project")


class Load(threading.Thread):
    """Asks about one card after the other on a connection of its own, until it is told to stop."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.answers: list[tuple[int, Any]] = []
        self.failed: BaseException | None = None
        self._served, self._enough = served, threading.Event()

    def run(self) -> None:
        connection = self._served.connect()
        try:
            while not self._enough.is_set():
                for card in CARDS:
                    answer = post(connection, "/v1/fraud/predict", {**GOOD, "card_id": card})
                    self.answers.append((card, answer))
                time.sleep(0.01)
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits for this one
            self.failed = error
        connection.close()

    def seen(self, condition: Any) -> None:
        """Wait until an answer from now on has it."""
        place = len(self.answers)
        eventually(lambda: self.failed or any(condition(answer) for _, answer in self.answers[place:]))

    def __enter__(self) -> Load:
        self.start()
        self.seen(lambda answer: True)
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        self.join()
        assert self.failed is None


def releases(answers: list[tuple[int, Any]]) -> dict[str, set[str]]:
    """Arm -> the releases that answered it."""
    found: dict[str, set[str]] = {}
    for _, answer in answers:
        (row,) = answer["predictions"]
        found.setdefault(row.get("arms", {}).get("trial", ""), set()).add(answer["release"])
    return found


def test_an_experiment_begins_changes_and_ends_under_load_without_a_failed_or_mixed_request(served: Served) -> None:
    with Load(served) as load:
        begun = served.windrow(
            "start", "fraud", "trial", "--arm", "new=fraud-2:0.3", "--unit", "card_id", "--shadow", "fraud-3"
        )
        assert begun["arms"][0] == {"name": "golden", "weight": 0.7, "release": ""}
        load.seen(lambda answer: "arms" in answer["predictions"][0])
        served.windrow("weights", "fraud", "trial", "--arm", "new=1")
        load.seen(lambda answer: answer["predictions"][0]["arms"]["trial"] == "new" and answer["release"] == "fraud-2")
        # What came before the change had taken effect is answered by now: whoever asks from here on gets the new arm.
        eventually(lambda: {a["predictions"][0]["arms"]["trial"] for _, a in load.answers[-len(CARDS) :]} == {"new"})
        served.windrow("stop", "fraud", "trial", "--reason", "enough")
        load.seen(lambda answer: "arms" not in answer["predictions"][0])
    assert releases(load.answers) == {"": {"fraud-1"}, "golden": {"fraud-1"}, "new": {"fraud-2"}}
    values = {answer["release"]: set[float]() for _, answer in load.answers}
    for _, answer in load.answers:
        values[answer["release"]].add(round(answer["predictions"][0]["value"], 6))
    assert values == {"fraud-1": {0.721115}, "fraud-2": {0.809998}}
    _check_log(served, load.answers)


def _check_log(served: Served, answers: list[tuple[int, Any]]) -> None:
    metadata = Metadata(served.settings.metadata)
    known = Experiments(metadata, Registry(metadata, served.settings.folder("releases")))
    first, second, _ = known.history("fraud", "trial")
    metadata.close()
    log = PredictionLog(served.settings.folder("log"), Lake(served.settings.lake))
    rows = {row["request_id"]: row for row in log.table("fraud").to_pylist()}
    drawn = {one.arms[1].weight: assigner(one) for one in (first, second)}
    for card, answer in answers:
        row, said = rows[answer["request_id"]], answer["predictions"][0].get("arms", {})
        assert (row["release"], json.loads(row["arms"])) == (answer["release"], said)
        if said:
            arm, likely = said["trial"], json.loads(row["propensities"])["trial"]
            weight = likely if arm == "new" else 1 - likely
            assert drawn[round(weight, 6)](unit_of(card)) == arm
    eventually(lambda: log.table("fraud", kind="shadow").num_rows > 0)
    assert set(log.table("fraud", kind="shadow")["release"].to_pylist()) == {"fraud-3"}


@pytest.mark.slow
def test_a_change_takes_effect_within_a_second_of_its_row(served: Served) -> None:
    with Load(served) as load:
        served.windrow("start", "fraud", "quick", "--arm", "new=fraud-2:1")
        metadata = Metadata(served.settings.metadata)
        (row,) = metadata.experiments("fraud", name="quick")
        metadata.close()
        load.seen(lambda answer: "arms" in answer["predictions"][0])
        served.windrow("stop", "fraud", "quick")
    log = PredictionLog(served.settings.folder("log"), Lake(served.settings.lake)).table("fraud")
    times = log["received_at"].cast("int64").to_pylist()
    first = min(time for time, arms in zip(times, log["arms"].to_pylist(), strict=True) if "quick" in arms)
    assert first - row.at < 5_000_000  # 0.1 s on a quiet machine; loading a release is part of it, and tests share it


@pytest.mark.slow
def test_the_report_compares_arms_by_the_outcomes_that_were_posted(served: Served) -> None:
    served.windrow("start", "fraud", "told", "--arm", "new=fraud-2:0.5", "--unit", "card_id", "--reward", "outcome")
    connection = served.connect()
    eventually(lambda: "arms" in post(connection, "/v1/fraud/predict", GOOD)["predictions"][0])
    answers = [post(connection, "/v1/fraud/predict", {**GOOD, "card_id": card}) for card in CARDS]
    won = [{"request_id": a["request_id"], "value": float(a["release"] == "fraud-2")} for a in answers]
    assert post(connection, "/v1/fraud/outcomes", {"outcomes": won})["accepted"] == len(CARDS)
    connection.close()
    # An outcome is final when its row's time plus a second has come, by the clock of the data.
    metadata = Metadata(served.settings.metadata)
    metadata.record_span("payments", first=0, last=NOW, known=NOW + 10_000_000, rows=4)
    report = served.windrow("report", "fraud", "told")
    arms = {arm["arm"]: arm for arm in report["arms"]}
    assert [arms[name]["reward"] for name in ("golden", "new")] == [0.0, 1.0]
    assert arms["new"]["matured"] == sum(a["release"] == "fraud-2" for a in answers)
    (kept,) = metadata.performances("fraud", "told")
    assert kept.document == report
    metadata.close()
    learned = served.windrow("weights", "fraud", "told", "--thompson")
    assert [arm["weight"] for arm in learned["arms"]] == pytest.approx([0.02, 0.98])
    assert learned["reason"] == "Thompson sampling"
    served.windrow("stop", "fraud", "told")
    listed = {row["experiment"]: row["running"] for row in served.windrow("list", "fraud")}
    assert listed["told"] is False
