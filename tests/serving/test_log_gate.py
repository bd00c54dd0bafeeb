"""What becomes of a prediction that the log cannot take: refused, or, if that is chosen, answered and counted as lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.serving import world
from tests.serving.conftest import Caller, eventually, settings_in
from tests.serving.world import GOOD
from windrow.errors import SettingsError
from windrow.serving import log_gate
from windrow.serving.worker import Worker
from windrow.settings import Settings
from windrow.stores.log import records
from windrow.stores.segments import DAMAGED


@pytest.fixture
def caller(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """A worker with the settings of a test, which looks at the backlog with every record."""
    monkeypatch.setattr(log_gate, "LOOK_SECONDS", 0.0)
    settings = msgspec.structs.replace(settings_in(tmp_path), **request.param)
    world.publish(settings)
    world.release_fraud(settings)
    worker = Worker(settings, committer=False)
    worker.start()
    eventually(lambda: worker.live.ready)
    yield Caller(worker)
    worker.close()


def given(**settings: Any) -> Any:
    return pytest.mark.parametrize("caller", [settings], indirect=True)


def until_refused(caller: Caller, most: int = 100) -> int:
    """Ask until the log is full; return how many were answered."""
    for number in range(most):
        if caller.predict(GOOD).status != 200:
            return number
    return most


def logged(caller: Caller, kind: str = "prediction") -> int:
    return sum(record.kind == kind for _, record in records(caller.worker.settings.home / "log"))


@given(log_backlog=4000)
def test_a_log_of_which_too_much_waits_for_the_lake_refuses_and_loses_nothing(caller: Caller) -> None:
    answered = until_refused(caller)
    assert 0 < answered < 100
    refused = caller.predict(GOOD)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert logged(caller) == answered
    page = caller("GET", "/metrics").body.decode()
    assert "windrow_log_shed_total 0.0" in page
    assert "windrow_log_backlog_bytes" in page


@given(log_backlog=4000, log_full="shed")
def test_where_that_is_chosen_predictions_go_on_and_what_is_lost_is_counted(caller: Caller) -> None:
    assert until_refused(caller) == 100
    lost = 100 - logged(caller)
    assert 0 < lost < 100
    assert f"windrow_log_shed_total {lost}.0" in caller("GET", "/metrics").body.decode()


@given(log_backlog=4000, log_full="shed")
def test_an_outcome_is_never_shed(caller: Caller) -> None:
    id = caller.predict(GOOD).json["request_id"]
    until_refused(caller)
    told = caller("POST", "/v1/fraud/outcomes", {"outcomes": [{"request_id": id, "value": 1.0}]})
    assert (told.status, logged(caller, "outcome")) == (503, 0)


@given(log_sync=True)
def test_every_record_may_be_on_the_disk_before_its_answer_leaves(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("windrow.stores.segment_writer.os.fdatasync", synced.append)
    assert [caller.predict(GOOD).status for _ in range(3)] == [200] * 3
    assert len(synced) == 3


@given()
def test_segments_that_were_put_aside_are_counted(caller: Caller) -> None:
    (caller.worker.settings.home / "log" / f"api-7-1{DAMAGED}").write_bytes(b"no log")
    assert "windrow_log_damaged 1.0" in caller("GET", "/metrics").body.decode()


def test_the_settings_are_checked_and_handed_to_child_processes() -> None:
    made = Settings.read({"WINDROW_LOG_FULL": "shed", "WINDROW_LOG_SYNC": "1", "WINDROW_LOG_BACKLOG": "5"})
    assert (made.log_full, made.log_sync, made.log_backlog) == ("shed", True, 5)
    assert Settings.read(made.environ()) == made
    with pytest.raises(SettingsError, match="WINDROW_LOG_FULL is 'drop'. Next: write refuse or shed"):
        Settings.read({"WINDROW_LOG_FULL": "drop"})
