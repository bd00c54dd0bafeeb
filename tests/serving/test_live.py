from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from tests.serving.world import GOOD, NOW
from windrow.errors import ModelError, RequestError
from windrow.models.experiment import Experiment
from windrow.serving.live import LiveService, LiveServices
from windrow.serving.loader import Loader
from windrow.settings import Settings
from windrow.stores.metadata import Metadata


class Shelf:
    """Releases that need no files: what is live is a dictionary, and loading can be made to fail."""

    def __init__(self, **live: str | None) -> None:
        self.live, self.counter, self.broken = live, 0, set[str]()

    def changed(self) -> int:
        return self.counter

    def find(self) -> Mapping[str, str | None]:
        return self.live

    def experiments(self) -> Mapping[str, Sequence[Experiment]]:
        return {}

    def load(self, id: str) -> LiveService:
        if id in self.broken:
            raise ModelError(f"release {id!r} is broken", next_step="train again")
        return cast(LiveService, Loaded(id))


class Loaded:
    """Stands where a loaded release would."""

    def __init__(self, id: str) -> None:
        self.release, self.predictor = Named(id), Named(id)


class Named:
    def __init__(self, id: str) -> None:
        self.id = id

    def close(self) -> None:
        """Nothing to close."""


def ids(live: LiveServices) -> dict[str, str]:
    return {name: service.release.id for name, service in live.services.items()}


def test_before_the_registry_was_read_a_request_is_told_to_wait() -> None:
    with pytest.raises(RequestError, match="starting. Next: wait until /readyz answers 200") as caught:
        LiveServices(Shelf(a="a-1")).service("a")
    assert caught.value.status == 503


def test_a_promoted_release_replaces_the_old_one_and_leaves_the_others() -> None:
    shelf = Shelf(a="a-1", b="b-1")
    live = LiveServices(shelf)
    live.refresh()
    kept = live.service("b")
    shelf.live = {"a": "a-2", "b": "b-1"}
    assert live.refresh() is True
    assert ids(live) == {"a": "a-2", "b": "b-1"}
    assert live.service("b") is kept
    assert live.refresh() is False


def test_going_back_to_an_older_release_is_the_same_switch() -> None:
    shelf = Shelf(a="a-1")
    live = LiveServices(shelf)
    for id in ("a-1", "a-2", "a-1"):
        shelf.live = {"a": id}
        live.refresh()
        assert ids(live) == {"a": id}


def test_a_release_that_cannot_be_loaded_never_replaces_one_that_answers() -> None:
    shelf = Shelf(a="a-1")
    live = LiveServices(shelf)
    live.refresh()
    shelf.live, shelf.broken = {"a": "a-2"}, {"a-2"}
    live.refresh()
    assert ids(live) == {"a": "a-1"}
    assert live.ready is False
    assert live.failures == {"a": "release 'a-2' is broken. Next: train again."}


def test_a_release_that_cannot_be_loaded_is_tried_again_until_it_can() -> None:
    shelf = Shelf(a="a-1")
    shelf.broken = {"a-1"}
    live = LiveServices(shelf)
    live.start()
    eventually(lambda: live.failures)
    shelf.broken = set()
    eventually(lambda: live.ready)
    live.close()
    assert ids(live) == {"a": "a-1"}


def test_a_registry_that_is_away_does_not_end_the_following() -> None:
    class Away(Shelf):
        def find(self) -> Mapping[str, str | None]:
            if self.counter == 1:
                raise OSError("away")
            return super().find()

    shelf = Away(a="a-1")
    live = LiveServices(shelf)
    live.start()
    eventually(lambda: live.ready)
    shelf.counter = 1
    shelf.live = {"a": "a-2"}
    shelf.counter = 2
    eventually(lambda: ids(live) == {"a": "a-2"})
    live.close()


def test_a_service_without_live_release_and_an_unknown_one_are_told_apart() -> None:
    live = LiveServices(Shelf(churn="churn-1", fraud=None))
    live.refresh()
    with pytest.raises(RequestError, match="'fraud' has no live release") as waiting:
        live.service("fraud")
    with pytest.raises(RequestError, match="Next: did you mean 'churn'") as unknown:
        live.service("chrun")
    assert (waiting.value.status, unknown.value.status) == (503, 404)


def _now(settings: Settings, **facts: Any) -> int:
    world.publish(settings)
    world.release_fraud(settings, **facts)
    loader = Loader(settings)
    loader.find()
    try:
        return loader.load("fraud-1").now()
    finally:
        loader.close()


def test_with_the_data_clock_now_is_the_latest_known_time_of_the_services_own_sources(settings: Settings) -> None:
    assert _now(settings) == NOW


def test_with_the_data_clock_a_release_without_sources_takes_all(settings: Settings) -> None:
    assert _now(settings, sources=()) == NOW + 10**15


def test_a_fixed_clock_is_now_for_every_service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_CLOCK", "fixed:1970-01-01T00:00:05Z")
    assert _now(Settings.read()) == 5_000_000


def test_the_data_clock_moves_on_without_a_new_release(fraud: Caller, fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_fraud(settings)
    eventually(lambda: fresh.worker.live.ready)
    metadata = Metadata(settings.metadata)
    metadata.record_span("payments", first=0, last=NOW, known=NOW + 1_000_000, rows=4)
    metadata.close()
    eventually(lambda: fresh.predict(GOOD).json["now"] == "1970-01-01T00:16:41+00:00")


def test_a_release_whose_file_was_changed_is_not_served(fresh: Caller) -> None:
    settings = fresh.worker.settings
    world.release_fraud(settings)
    eventually(lambda: fresh.worker.live.ready)
    world.release_fraud(settings, 2, promote=False)
    (settings.home / "releases" / "fraud-2" / "model.onnx").write_bytes(b"changed")
    metadata = Metadata(settings.metadata)
    metadata.deploy("fraud", "fraud-2", reason="test", at=0)
    metadata.close()
    eventually(lambda: fresh.worker.live.failures)
    assert "model.onnx is not the file that was released" in fresh("GET", "/readyz").json["detail"]
    assert fresh.predict(GOOD).json["release"] == "fraud-1"


def test_a_service_answers_as_soon_as_the_online_store_is_filled(settings: Settings, tmp_path: Any) -> None:
    empty = settings_in(tmp_path / "later")
    world.release_fraud(empty)
    loader = Loader(empty)
    live = LiveServices(loader)
    live.refresh()
    assert "there is no online store" in live.failures["fraud"]
    world.publish(empty)
    live.refresh()
    assert live.ready
    live.close()
    loader.close()
