"""The law of promotion: a model and its features are one thing, also while they change under load."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT
from tests.laws import promotion
from tests.laws.promotion import CHANGES, SERVICE, Clients, Sent
from windrow.serving.local_key import local_key
from windrow.serving.run import start
from windrow.settings import Settings
from windrow.stores.metadata import Metadata

RATE = 500


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, promotion.Verdict]:
    """What became of all requests, and the settings of the home where it happened."""
    home = tmp_path_factory.mktemp("promotion") / "home"
    settings = Settings.read({"WINDROW_HOME": str(home), "WINDROW_PROJECT": str(ROOT)})
    promotion.prepare(settings)
    key = local_key(settings)
    with start(settings) as running, Clients(running.url, key, RATE) as clients:
        changes = promotion.change_releases(settings, clients)
    return settings, promotion.judge(settings, clients.all(), changes)


@pytest.mark.slow
def test_under_500_requests_a_second_no_request_fails(judged: tuple[Settings, promotion.Verdict]) -> None:
    verdict = judged[1]
    assert [(one.status, one.said) for one in verdict.failed] == []
    assert verdict.per_second >= 0.95 * RATE


@pytest.mark.slow
def test_every_promotion_and_rollback_is_in_effect_within_a_second(judged: tuple[Settings, promotion.Verdict]) -> None:
    assert len(judged[1].in_effect) == 20
    assert max(judged[1].in_effect) < 1.0


@pytest.mark.slow
def test_every_answer_is_that_of_its_release_to_what_was_asked_and_logged(
    judged: tuple[Settings, promotion.Verdict],
) -> None:
    assert judged[1].answers > 2000
    assert judged[1].mixed == []


@pytest.mark.slow
def test_the_history_holds_every_change_in_order(judged: tuple[Settings, promotion.Verdict]) -> None:
    metadata = Metadata(judged[0].metadata)
    assert [row.release for row in metadata.deployments(SERVICE)] == ["swift-1", *CHANGES]
    metadata.close()


def _said(release: str, value: float) -> Sent:
    answer = {"request_id": "r", "release": release, "predictions": [{"value": value}]}
    return Sent({"card_id": 3, "amount": 2.0, "x": 1.0}, 0.0, 1.0, 200, json.dumps(answer).encode())


def test_the_judge_knows_a_model_that_answers_with_the_features_of_another_release() -> None:
    # By hand: limit 130, amount 2 and |1 - 0.75| make -1 + 0.26 + 0.02 + 0.025 = -0.695, so 0.33292.
    vector = {"limit": 130.0, "amount": 2.0, "made": 0.25}
    row = {"release": "swift-1", "vector": json.dumps(vector), "output": 0.33292}
    assert promotion.wrong(_said("swift-1", 0.33292), {"r": row}) == ""
    other = {**row, "vector": json.dumps({**vector, "made": 0.0625})}
    assert "swift-1 computed" in promotion.wrong(_said("swift-1", 0.33292), {"r": other})
    assert "swift-1 said 0.7 to" in promotion.wrong(_said("swift-1", 0.7), {"r": {**row, "output": 0.7}})
    assert "swift-2 answered, and the log has swift-1" in promotion.wrong(_said("swift-2", 0.33292), {"r": row})
    assert promotion.wrong(_said("swift-1", 0.33292), {}) == "an answer is not in the log"
