"""A model that stayed in scikit-learn, behind its own process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from windrow.errors import ModelError, RequestError
from windrow.models.policies import Policies
from windrow.serving.side_process import SidePredictor
from windrow.serving.vectors import Vectors
from windrow.serving.worker import Worker

FRAME: dict[str, Any] = {
    "plan": np.array(["gold", "basic"], dtype=object),
    "months": np.array([24, 1], dtype=np.float32),
}
VECTORS = Vectors(("plan", "months"), None, FRAME, [["gold", 24.0], ["basic", 1.0]], [False, False], [{}, {}], {})


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A running worker with the service churn, which is not compiled."""
    settings = settings_in(tmp_path_factory.mktemp("churn"))
    world.publish(settings)
    world.release_churn(settings, policies=Policies(cache=None))  # every row is the model's own
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready, seconds=60)
    yield Caller(worker)
    worker.close()


def side(caller: Caller) -> SidePredictor:
    predictor = caller.worker.live.service("churn").predictor
    assert isinstance(predictor, SidePredictor)
    return predictor


def test_it_answers_as_the_model_did_when_it_was_released(churn: Caller) -> None:
    bundle = churn.worker._loader._registry.load("churn-1")
    expected = bundle.predict(FRAME).tolist()
    assert asyncio.run(side(churn).predict(VECTORS)) == expected
    answer = churn.predict({"rows": [{"customer_id": "anna"}, {"customer_id": "ben"}]}, service="churn")
    assert answer.status == 200
    assert answer.json["predictions"][0]["value"] == pytest.approx(expected[0], abs=1e-9)
    assert answer.json["predictions"][0]["statuses"] == {"plan": "present", "months": "present"}
    assert answer.json["predictions"][1]["statuses"] == {"plan": "null", "months": "present"}


def test_a_row_that_the_model_refuses_is_the_callers_problem(churn: Caller) -> None:
    answer = churn.predict({"customer_id": "nobody"}, service="churn")
    assert (answer.status, answer.json["type"]) == (422, "urn:windrow:problem:value-refused")
    assert "NaN" in answer.json["detail"]


def test_its_child_uses_one_native_thread(churn: Caller) -> None:
    environ = Path(f"/proc/{side(churn).pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in environ


def test_callers_at_once_each_get_their_own_answer(churn: Caller) -> None:
    predictor = side(churn)
    made = [
        Vectors(
            ("plan", "months"),
            None,
            {"plan": FRAME["plan"][:1], "months": np.array([m], dtype=np.float32)},
            [["gold", m]],
            [False],
            [{}],
            {},
        )
        for m in range(12)
    ]

    async def all_at_once() -> list[list[float]]:
        return await asyncio.gather(*(predictor.predict(v) for v in made))

    answers = asyncio.run(all_at_once())
    assert answers == [asyncio.run(predictor.predict(v)) for v in made]
    assert len({a[0] for a in answers}) == 12


def test_a_model_that_does_not_answer_in_time_is_504_and_answers_again_later(churn: Caller) -> None:
    predictor = side(churn)
    os.kill(predictor.pid, signal.SIGSTOP)
    begin = time.monotonic()
    answer = churn.predict({"customer_id": "anna"}, service="churn")
    spent = time.monotonic() - begin
    os.kill(predictor.pid, signal.SIGCONT)
    assert (answer.status, answer.json["type"]) == (504, "urn:windrow:problem:deadline")
    assert 0.7 < spent < 1.0
    eventually(lambda: churn.predict({"customer_id": "anna"}, service="churn").status == 200)


def test_a_child_that_dies_is_started_again_and_callers_are_told(churn: Caller) -> None:
    predictor = side(churn)
    before = predictor.pid
    os.kill(before, signal.SIGKILL)
    eventually(
        lambda: not Path(f"/proc/{before}/cmdline").exists() or Path(f"/proc/{before}/cmdline").read_bytes() == b""
    )
    answer = churn.predict({"customer_id": "anna"}, service="churn")
    assert (answer.status, answer.json["type"]) == (503, "urn:windrow:problem:model-restarting")
    eventually(lambda: churn.predict({"customer_id": "anna"}, service="churn").status == 200, seconds=60)
    assert predictor.pid != before


def test_a_child_ends_with_its_parent(churn: Caller) -> None:
    folder = churn.worker.settings.home / "releases" / "churn-1"
    code = f"""
import os, time
from pathlib import Path
from windrow.serving.side_process import SidePredictor
print(SidePredictor(Path({str(folder)!r})).pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    eventually(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


def test_a_release_that_cannot_be_loaded_is_refused_with_the_reason(churn: Caller, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be used: ModelError: .*release.json cannot be read"):
        SidePredictor(tmp_path)


def test_more_callers_than_can_be_answered_are_told_at_once(churn: Caller) -> None:
    predictor = side(churn)
    predictor._waiting = 64
    try:
        with pytest.raises(RequestError, match="more callers than it can answer in time") as caught:
            asyncio.run(predictor.predict(VECTORS))
    finally:
        predictor._waiting = 0
    assert caught.value.status == 503
