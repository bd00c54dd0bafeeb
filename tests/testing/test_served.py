from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from windrow.errors import ModelError, StoreError
from windrow.models.gate import Gate
from windrow.models.service import PredictionService
from windrow.testing import Served, service
from windrow.testing.tiny import model, tiny

pytestmark = pytest.mark.xdist_group("bento")

ROW = {"card_id": 20, "shop_id": 3, "amount": 120.0}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with service() as found:
        yield found


def test_a_service_of_ones_own_answers_over_http_with_a_release_that_it_trained(served: Served) -> None:
    answer = served.predict([ROW, {**ROW, "card_id": 3}, {**ROW, "card_id": 1000}])
    assert answer["release"] == served.release.id == served.registry.list("tiny")[0].id
    assert [row["statuses"]["limit"] for row in answer["predictions"]] == ["present", "expired", "not_found"]
    assert served.release.metrics["auc"] > 0.7
    assert served.log()["request_id"].to_pylist()[-3:] == [answer["request_id"]] * 3


def test_what_is_refused_raises_with_the_problem(served: Served) -> None:
    with pytest.raises(StoreError, match=r"/v1/tiny/predict was answered with 422.*shop_id"):
        served.predict({"card_id": 20})
    assert served.ask("GET", "/v1/no_such/predict")[0] == 405


def test_a_challenger_is_judged_and_does_not_answer(served: Served) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    made = served.challenger(HistGradientBoostingClassifier(max_iter=3))
    assert made.passed
    assert made.id != served.predict(ROW)["release"] == served.release.id


@pytest.mark.slow
def test_it_stops_and_goes_on_with_what_it_has_stored(served: Served) -> None:
    before = served.predict(ROW)["predictions"]
    served.stop()
    assert "stopped" in repr(served)
    served.start()
    assert served.predict(ROW)["predictions"] == before


@pytest.mark.slow
def test_nothing_of_it_is_left_where_its_model_does_not_clear_a_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    homes = list[str]()
    made = Served.make

    def make(self: Served) -> None:
        homes.append(str(self.settings.home))
        made(self)

    monkeypatch.setattr(Served, "make", make)
    strict = PredictionService(
        "tiny", tiny.view, tiny.label, model=model, split=tiny.split, gates=[Gate("auc", at_least=0.99)]
    )
    with pytest.raises(ModelError, match="does not clear its gates: auc"):
        service(strict)
    assert [os.path.exists(home) for home in homes] == [False]
