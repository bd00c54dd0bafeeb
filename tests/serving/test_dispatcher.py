"""Experiments on a running worker: who answers, what is said of it, what the log keeps, and what shadows do not."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from tests.serving.world import GOOD, NOW
from windrow.models.assignment import unit_of
from windrow.models.experiment import Experiment, assigner, weighed
from windrow.models.experiments import Experiments
from windrow.models.registry import Registry
from windrow.serving import shadows
from windrow.serving.answers import Output
from windrow.serving.dispatcher import Dispatcher
from windrow.serving.live import LiveService
from windrow.serving.turn import Turn
from windrow.serving.vectors import Vectors
from windrow.serving.worker import Worker
from windrow.stores.lake import Lake
from windrow.stores.log import LogRecord, PredictionLog, records
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

CARDS = range(1, 25)
VALUES = {"fraud-1": 0.7211152, "fraud-2": 0.8099984, "fraud-3": 0.8754467}


class Rig(Caller):
    """A worker with releases fraud-1 (live), -2 and -3, and 24 cards that all have the same features."""

    def change(self, **plans: Any) -> None:
        """Start experiments by name, and wait until the worker runs them."""
        for name, facts in plans.items():
            self.act(lambda known, n=name, f=facts: known.start(plan(n, **f)))
        self.wait()

    def act(self, change: Any, releases: Path | None = None) -> None:
        metadata = Metadata(self.worker.settings.metadata)
        change(Experiments(metadata, Registry(metadata, releases or self.worker.settings.folder("releases"))))
        metadata.close()

    def wait(self) -> None:
        metadata = Metadata(self.worker.settings.metadata)
        known = Experiments(metadata, Registry(metadata, self.worker.settings.folder("releases"))).list("fraud")
        metadata.close()
        wanted = tuple(one for one in known if one.running)
        eventually(lambda: self.running == wanted)

    @property
    def running(self) -> tuple[Experiment, ...]:
        live = self.worker.live
        found = live.dispatcher(live.service("fraud"))
        return () if found is None else found.experiments

    def answers(self, card: int) -> Any:
        answered = self.predict({**GOOD, "card_id": card})
        assert answered.status == 200, answered.body
        return answered.json

    def logged(self, kind: str = "prediction") -> list[LogRecord]:
        return [record for _, record in records(self.worker.settings.folder("log")) if record.kind == kind]

    def together(self, bodies: Sequence[Any]) -> list[Any]:
        """Send the bodies in one turn of the event loop, and wait for the shadows."""

        async def asked() -> list[Any]:
            plane = self.worker.plane
            turn = Turn(plane)
            encoded = [json.dumps(body).encode() for body in bodies]
            calls = [turn.predict("fraud", body, request_id=f"r{i}") for i, body in enumerate(encoded)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await plane.shadows.drained()
            return answers

        return asyncio.run(asked())


def plan(name: str, **facts: Any) -> Experiment:
    values: dict[str, Any] = {"arms": weighed({"new": ("fraud-2", 0.5)}), "unit": ("card_id",), **facts}
    return Experiment(service="fraud", name=name, **values)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    settings = settings_in(tmp_path)
    world.publish(settings)
    with open_online(settings.online, write=True) as store:
        store.write("card_v1", ["limit", "x"], [((card,), Row(NOW, NOW, 9, (500.0, 1.5))) for card in CARDS])
    for number, shift in ((1, 0.0), (2, 0.5), (3, 1.0)):
        world.release_fraud(settings, number, shift=shift, promote=number == 1)
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready)
    yield Rig(worker)
    worker.close()


def expected(experiment: Experiment) -> dict[int, str]:
    arm_of = assigner(experiment)
    return {card: str(arm_of(unit_of(card))) for card in CARDS}


def test_without_an_experiment_an_answer_has_the_fields_it_always_had(rig: Rig) -> None:
    answer = rig.answers(1)
    assert list(answer) == ["request_id", "service", "release", "predictions", "now"]
    assert list(answer["predictions"][0]) == ["value", "statuses", "probability"]


def test_each_arm_answers_its_units_and_says_so_in_answer_and_log(rig: Rig) -> None:
    rig.change(trial={"holdout": 0.2})
    (trial,) = rig.running
    arms = expected(trial)
    assert set(arms.values()) == {"golden", "new", "holdout"}
    for card, arm in arms.items():
        release = "fraud-2" if arm == "new" else "fraud-1"
        answer = rig.answers(card)
        assert answer["release"] == release
        assert answer["predictions"][0]["arms"] == {"trial": arm}
        assert answer["predictions"][0]["value"] == pytest.approx(VALUES[release], abs=1e-6)
        record = rig.logged()[-1]
        assert (record.release, record.experiment, record.arms) == (release, "trial", {"trial": arm})
        assert record.propensities == {"trial": pytest.approx(0.2 if arm == "holdout" else 0.4)}
        assert record.output == answer["predictions"][0]["value"]


def test_rows_of_one_request_are_each_answered_by_their_own_arm(rig: Rig) -> None:
    rig.change(trial={})
    arms = expected(rig.running[0])
    (told,) = rig("GET", "/v1/fraud").json["experiments"]
    assert (told["experiment"], told["arms"]["new"]) == ("trial", {"release": "fraud-2", "weight": 0.5})
    answer = rig.predict({"rows": [{**GOOD, "card_id": card} for card in CARDS]}).json
    assert answer["release"] == "fraud-1"
    for card, said in zip(CARDS, answer["predictions"], strict=True):
        release = "fraud-2" if arms[card] == "new" else "fraud-1"
        assert said["arms"] == {"trial": arms[card]}
        assert said.get("release", answer["release"]) == release
        assert said["value"] == pytest.approx(VALUES[release], abs=1e-6)
    logged = {record.row: record for record in rig.logged()}
    assert [logged[row].release for row in range(24)] == [
        "fraud-2" if arm == "new" else "fraud-1" for arm in arms.values()
    ]


def test_requests_of_one_turn_are_answered_as_if_they_were_alone(rig: Rig) -> None:
    rig.change(trial={})
    bodies = [{**GOOD, "card_id": card} for card in CARDS]
    together = [json.loads(answer) for answer in rig.together(bodies)]
    alone = [rig.answers(card) for card in CARDS]
    for one, other in zip(together, alone, strict=True):
        assert {**one, "request_id": ""} == {**other, "request_id": ""}


def test_a_row_that_is_refused_is_named_by_its_place_in_the_request(rig: Rig) -> None:
    rig.change(trial={})
    rows = [{**GOOD, "card_id": card} for card in (1, 2, 3, 4, 5, 6, 4711)]
    problem = rig.predict({"rows": rows}).json
    assert (problem["status"], problem["where"]) == (404, "$.rows[6].card_id")


def test_weights_take_effect_and_a_stopped_experiment_leaves_no_trace_in_answers(rig: Rig) -> None:
    rig.change(trial={"arms": weighed({"new": ("fraud-2", 1.0)})})
    assert {rig.answers(card)["release"] for card in CARDS} == {"fraud-2"}
    rig.act(lambda known: known.reweigh("fraud", "trial", {"new": 0.0}))
    rig.wait()
    assert {rig.answers(card)["release"] for card in CARDS} == {"fraud-1"}
    assert rig.logged()[-1].propensities == {"trial": 1.0}
    rig.act(lambda known: known.stop("fraud", "trial"))
    rig.wait()
    assert "arms" not in rig.answers(1)["predictions"][0]
    assert rig.logged()[-1].arms == {}


def test_golden_follows_the_live_release_while_an_experiment_runs(rig: Rig) -> None:
    rig.change(trial={})
    arms = expected(rig.running[0])
    metadata = Metadata(rig.worker.settings.metadata)
    Registry(metadata, rig.worker.settings.folder("releases")).promote("fraud", "fraud-3", reason="test")
    metadata.close()
    eventually(lambda: rig.worker.live.service("fraud").release.id == "fraud-3" and rig.running)
    assert {card: rig.answers(card)["release"] for card in CARDS} == {
        card: "fraud-2" if arm == "new" else "fraud-3" for card, arm in arms.items()
    }


def test_the_challenger_may_become_golden(rig: Rig) -> None:
    rig.change(trial={})
    metadata = Metadata(rig.worker.settings.metadata)
    Registry(metadata, rig.worker.settings.folder("releases")).promote("fraud", "fraud-2", reason="test")
    metadata.close()
    eventually(lambda: rig.worker.live.service("fraud").release.id == "fraud-2" and rig.running)
    assert {rig.answers(card)["release"] for card in CARDS} == {"fraud-2"}
    assert set(expected(rig.running[0]).values()) == {
        rig.answers(card)["predictions"][0]["arms"]["trial"] for card in CARDS
    }


def test_of_two_layers_the_older_experiment_chooses_and_the_other_is_assigned_only(rig: Rig) -> None:
    third = {"layer": "limits", "arms": weighed({"third": ("fraud-3", 0.5)})}
    rig.change(first={"share": 0.5}, second=third)
    first, second = (assigner(one) for one in rig.running)
    patterns = Counter[tuple[bool, bool]]()
    for card in CARDS:
        ours, others = first(unit_of(card)), second(unit_of(card))
        said = rig.answers(card)
        wanted = {"first": ours, "second": others} if ours else {"second": others}
        assert said["predictions"][0]["arms"] == wanted
        exposed = "fraud-2" if ours == "new" else "fraud-3" if ours is None and others == "third" else "fraud-1"
        assert said["release"] == exposed
        assert rig.logged()[-1].experiment == ("first" if ours else "second")
        patterns[ours is None, others == "third"] += 1
    assert len(patterns) == 4


def test_an_experiment_of_shadows_alone_leaves_the_choice_to_the_next(rig: Rig) -> None:
    listening = {"arms": weighed({}), "shadows": ("fraud-3",), "layer": "listening"}
    rig.change(watch=listening, trial={"arms": weighed({"new": ("fraud-2", 1.0)})})
    answer = rig.answers(1)
    assert answer["release"] == "fraud-2"
    assert rig.logged()[-1].arms == {"watch": "golden", "trial": "new"}
    assert rig.logged()[-1].experiment == "trial"


def test_every_request_is_in_the_experiment_whose_unit_is_the_request(rig: Rig) -> None:
    rig.change(trial={"unit": ("request",)})
    answers = [rig.answers(1) for _ in range(40)]
    assert Counter(a["predictions"][0]["arms"]["trial"] for a in answers).keys() == {"golden", "new"}
    rows = rig.predict({"rows": [{**GOOD, "card_id": card} for card in CARDS]}).json["predictions"]
    assert len({row["arms"]["trial"] for row in rows}) == 1


def test_a_challenger_that_cannot_be_loaded_pauses_its_experiment_and_golden_answers(rig: Rig, tmp_path: Path) -> None:
    here, elsewhere = rig.worker.settings.home / "releases", tmp_path / "elsewhere"
    shutil.copytree(here, elsewhere)  # whole on the machine that starts the experiment, and not on the worker's
    (here / "fraud-2" / "model.onnx").write_bytes(b"changed")
    rig.act(lambda known: known.start(plan("trial")), elsewhere)
    eventually(lambda: rig.worker.live.paused)
    assert "model.onnx is not the file that was released" in rig.worker.live.paused["fraud/trial"]
    assert rig.worker.live.ready
    assert rig("GET", "/v1/fraud").json["paused"].keys() == {"fraud/trial"}
    assert {rig.answers(card)["release"] for card in CARDS} == {"fraud-1"}
    assert rig.logged()[-1].arms == {}


def test_a_shadow_is_asked_afterwards_and_logged_as_one(rig: Rig) -> None:
    rig.change(trial={"shadows": ("fraud-3",)})
    answers = [json.loads(a) for a in rig.together([{**GOOD, "card_id": card} for card in (1, 2, 3)])]
    heard = {record.request_id: record for record in rig.logged("shadow")}
    assert heard.keys() == {answer["request_id"] for answer in answers}
    for record in heard.values():
        assert (record.release, record.experiment, record.arms) == ("fraud-3", "", {"trial": "shadow"})
        assert record.output == pytest.approx(VALUES["fraud-3"], abs=1e-6)
        assert record.request["amount"] == 20.0
        assert msgspec.to_builtins(record.vector) == {"limit": 500.0, "amount": 20.0, "distance": 2.5}
    assert rig.worker.plane.shadows.counts == {("fraud", "fraud-3", "logged"): 3}


def test_no_reader_of_predictions_sees_a_shadow(rig: Rig) -> None:
    rig.change(trial={"shadows": ("fraud-3",)})
    rig.together([GOOD])
    settings = rig.worker.settings
    log = PredictionLog(settings.folder("log"), Lake(settings.lake))
    assert log.table("fraud")["request_id"].to_pylist() == ["r0"]
    assert log.vectors("fraud", world.FRAUD).num_rows == 1
    assert log.table("fraud", kind="shadow")["release"].to_pylist() == ["fraud-3"]


def test_a_shadow_under_another_contract_reads_its_own_features(rig: Rig) -> None:
    settings = rig.worker.settings
    payload, golden = world._compiled(2.0)
    request = (*world.FRAUD.request[:2],)
    narrow = msgspec.structs.replace(
        world.FRAUD, request=request, on_demand=(), on_demand_source="",
        features=(*world.FRAUD.features[:2], msgspec.structs.replace(world.FRAUD.features[2], name="card.x")),
    )  # fmt: skip
    inputs = {"card.x" if name == "distance" else name: values for name, values in golden.inputs.items()}
    golden = msgspec.structs.replace(golden, inputs=inputs)
    world._register(settings, narrow, "fraud-7", payload, golden, promote=False, number=7)
    rig.change(trial={"shadows": ("fraud-7",)})
    rig.together([GOOD])
    (record,) = rig.logged("shadow")
    assert msgspec.to_builtins(record.vector) == {"limit": 500.0, "amount": 20.0, "card.x": 1.5}
    assert record.output is not None


def test_answers_are_the_same_bytes_with_and_without_a_shadow(rig: Rig) -> None:
    bodies = [{"rows": [{**GOOD, "card_id": card, "amount": card * 1.5} for card in CARDS]}, GOOD, {"card_id": "x"}]
    quiet = {"shadows": ("fraud-3",), "arms": weighed({"new": ("fraud-2", 0.5)})}
    rig.change(trial={**quiet, "shadows": ()})
    before = rig.together(bodies)
    rig.act(lambda known: known.stop("fraud", "trial"))
    # The arms are drawn by the experiment's name: the same one, as if it had been started with shadows.
    live = rig.worker.live
    golden = live.service("fraud")
    found = {id: rig.worker._loader.load(id) for id in ("fraud-2", "fraud-3")}
    dispatcher = Dispatcher(golden, [plan("trial", **quiet)], found)
    live.dispatcher = lambda service: dispatcher  # type: ignore[method-assign]
    after = rig.together(bodies)
    assert after[:2] == before[:2]
    assert [str(error) for error in after[2:]] == [str(error) for error in before[2:]]
    assert len(rig.logged("shadow")) == 25


class Raising:
    """A model that always fails."""

    async def predict(self, vectors: Vectors) -> list[Output]:
        raise ZeroDivisionError("a bug in the shadow")

    def close(self) -> None:
        """Nothing to close."""


def _broken(rig: Rig, id: str) -> LiveService:
    return replace(rig.worker._loader.load(id), predictor=Raising())


def test_a_shadow_that_raises_changes_no_answer_and_is_counted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    (before,) = rig.together([GOOD])
    live = rig.worker.live
    watch = plan("watch", arms=weighed({}), shadows=("fraud-3",))
    dispatcher = Dispatcher(live.service("fraud"), [watch], {"fraud-3": _broken(rig, "fraud-3")})
    live.dispatcher = lambda service: dispatcher  # type: ignore[method-assign]
    (after,) = rig.together([GOOD])
    assert json.loads(after)["predictions"][0]["value"] == json.loads(before)["predictions"][0]["value"]
    (record,) = rig.logged("shadow")
    assert (record.output, record.status, record.error) == (None, 500, "internal")
    assert rig.worker.plane.shadows.counts == {("fraud", "fraud-3", "failed"): 1}
    assert "a bug in the shadow" in caplog.text


def test_shadows_that_cannot_keep_up_are_dropped_and_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MOST_ROWS", 30)
    rig.change(trial={"shadows": ("fraud-3",)})
    answers = rig.together([{**GOOD, "card_id": 1} for _ in range(100)])
    assert not any(isinstance(answer, Exception) for answer in answers)
    counts = rig.worker.plane.shadows.counts
    assert counts["fraud", "fraud-3", "logged"] + counts["fraud", "fraud-3", "dropped"] == 100
    assert counts["fraud", "fraud-3", "dropped"] >= 36
    assert len(rig.logged("shadow")) == counts["fraud", "fraud-3", "logged"]
    assert rig.worker.plane.shadows.waiting == 0


def test_arms_are_counted(rig: Rig) -> None:
    rig.change(trial={"arms": weighed({"new": ("fraud-2", 1.0)}), "shadows": ("fraud-3",)})
    rig.together([GOOD] * 3)
    told = rig("GET", "/metrics").body.decode()
    assert 'windrow_arm_rows_total{arm="new",experiment="trial",service="fraud"} 3.0' in told
    assert 'windrow_shadow_rows_total{became="logged",release="fraud-3",service="fraud"} 3.0' in told
