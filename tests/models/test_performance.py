"""Promises of an experiment's report, on logs whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.worlds import DAY, World, fraud
from windrow.errors import DeclarationError
from windrow.models.assignment import unit_of
from windrow.models.experiment import HOLDOUT, Experiment, assigner, weighed
from windrow.models.performance import Performance, as_document, performance, rewards
from windrow.models.release import Task
from windrow.models.thompson import Rewards
from windrow.stores.engine import engine
from windrow.stores.log import LogRecord, LogWriter, PredictionLog

RELEASES = {"golden": "fraud-1", HOLDOUT: "fraud-1", "new": "fraud-2"}
ROWS = 400


def trial(**facts: Any) -> Experiment:
    values: dict[str, Any] = {"arms": weighed({"new": ("fraud-2", 0.5)}), "unit": ("card_id",), **facts}
    return Experiment(service="fraud", name="trial", **values)


def predicted(trial_of: Experiment, card: int, arm: str, **changes: Any) -> LogRecord:
    """A row of one card: golden is right of every second one, new of all."""
    truth = float(card % 3 == 0)
    right = arm == "new" or card % 2 == 0
    values: dict[str, Any] = {
        "kind": "prediction", "request_id": f"r{card:04}", "service": "fraud", "release": RELEASES.get(arm, "fraud-3"),
        "received_at": 10**9, "event_time": DAY, "known_at": DAY, "keys": {"card_id": card},
        "request": {"payment_id": card, "card_id": card, "amount": 1.0},
        "output": 0.9 if (truth == 1) == right else 0.1,
        "experiment": "trial", "arms": {"trial": arm}, "propensities": {"trial": trial_of.propensities.get(arm, 1.0)},
        **changes,
    }  # fmt: skip
    return LogRecord(**values)


def outcome(card: int) -> LogRecord:
    return LogRecord(
        kind="outcome", request_id=f"r{card:04}", service="fraud", known_at=2 * DAY, event_time=2 * DAY,
        outcome=float(card % 3 == 0),
    )  # fmt: skip


def measured(
    folder: Path,
    experiment: Experiment,
    records: list[LogRecord],
    measure: Callable[..., Any] = performance,
    *,
    task: Task = "classification",
    now: int = 60 * DAY,
) -> Any:
    world = World(folder)
    with LogWriter(folder / "log", "api-0") as log:
        for start in range(0, len(records), 500):
            log.append(records[start : start + 500])
    log_of = PredictionLog(folder / "log", world.lake)
    return measure(experiment, fraud(), task=task, log=log_of, lake=world.lake, con=engine(), now=now)


def divided(experiment: Experiment, rows: int = ROWS) -> list[LogRecord]:
    arm_of = assigner(experiment)
    return [predicted(experiment, card, str(arm_of(unit_of(card)))) for card in range(rows)]


def test_each_arm_has_its_requests_units_and_metrics_on_matured_outcomes(tmp_path: Path) -> None:
    experiment = trial(holdout=0.1)
    rows = divided(experiment)
    known = [outcome(card) for card in range(0, ROWS, 2)] + [outcome(card) for card in range(1, 100, 2)]
    found: Performance = measured(tmp_path, experiment, [*rows, *known])
    arms = {arm.arm: arm for arm in found.arms}
    assert list(arms) == ["golden", "new", "holdout"]
    assert sum(arm.requests for arm in arms.values()) == ROWS
    assert sum(arm.matured for arm in arms.values()) == 250
    assert (arms["golden"].release, arms["new"].release) == ("fraud-1", "fraud-2")
    assert arms["new"].metrics["accuracy"].value == 1.0
    assert arms["new"].metrics["auc"].value == 1.0
    accuracy = arms["golden"].metrics["accuracy"]
    golden = [r for r in rows if r.arms == {"trial": "golden"}]
    cards = [int(row.request_id[1:]) for row in golden]
    right = np.mean([card % 2 == 0 for card in cards if card % 2 == 0 or card < 100])
    assert accuracy.value == pytest.approx(right)
    assert accuracy.low < right < accuracy.high
    assert arms["new"].propensity == pytest.approx(0.45)
    assert arms["new"].outputs.p5 == pytest.approx(0.1)


def test_an_outcome_that_has_not_matured_counts_nowhere(tmp_path: Path) -> None:
    experiment = trial()
    found = measured(tmp_path, experiment, [*divided(experiment, 50), *map(outcome, range(50))], now=5 * DAY)
    assert {(arm.matured, len(arm.metrics)) for arm in found.arms} == {(0, 0)}


def test_units_divided_as_told_are_no_mismatch(tmp_path: Path) -> None:
    experiment = trial(holdout=0.1)
    found = measured(tmp_path, experiment, divided(experiment))
    assert found.mismatch is not None
    assert found.mismatch.p > 0.01
    assert not found.mismatch.suspicious
    assert found.notes == []


def test_units_that_one_arm_loses_are_a_mismatch(tmp_path: Path) -> None:
    experiment = trial()
    lost = [r for r in divided(experiment) if r.arms != {"trial": "new"} or int(r.request_id[1:]) % 3]
    found = measured(tmp_path, experiment, lost)
    assert found.mismatch is not None
    assert found.mismatch.suspicious
    assert "trust no figure before you know why" in found.notes[0]


def test_only_what_came_after_the_last_change_of_weights_is_judged_by_them(tmp_path: Path) -> None:
    experiment = trial(changed_at=10**9)
    found = measured(tmp_path, experiment, divided(experiment))
    assert found.mismatch is None
    assert "too few units since the last change of weights" in found.notes[0]


def test_rows_that_another_experiment_answered_are_counted_and_not_compared(tmp_path: Path) -> None:
    experiment = trial()
    rows = [predicted(experiment, card, "golden", experiment="other") for card in range(30)]
    found = measured(tmp_path, experiment, [*rows, predicted(experiment, 30, "new")])
    assert found.assigned == 30
    assert [(arm.arm, arm.rows) for arm in found.arms] == [("new", 1)]


def test_a_shadow_is_compared_on_the_same_rows(tmp_path: Path) -> None:
    experiment = trial(shadows=("fraud-3",))
    heard = [predicted(experiment, card, "shadow", kind="shadow", experiment="") for card in range(40)]
    found = measured(tmp_path, experiment, [*divided(experiment, 40), *heard, *map(outcome, range(40))])
    shadow = found.arms[-1]
    assert (shadow.arm, shadow.release, shadow.rows, shadow.propensity) == ("shadow", "fraud-3", 40, None)
    assert shadow.metrics["accuracy"].value == 0.5


def test_a_golden_that_was_replaced_is_two_lines_and_a_note(tmp_path: Path) -> None:
    experiment = trial()
    rows = divided(experiment, 40)
    for row in rows[20:]:
        row.release = "fraud-2"
    found = measured(tmp_path, experiment, rows)
    assert [(arm.arm, arm.release) for arm in found.arms] == [
        ("golden", "fraud-1"), ("golden", "fraud-2"), ("new", "fraud-2"),
    ]  # fmt: skip
    assert "golden was fraud-1, then fraud-2: compare rows of the same time only" in found.notes
    assert "new and golden are one release by now: stop the experiment" in found.notes


def test_rewards_are_right_answers_or_the_outcomes_themselves(tmp_path: Path) -> None:
    rows = [predicted(trial(), card, "golden" if card % 2 else "new") for card in range(60)]
    known = list(map(outcome, range(60)))
    assert measured(tmp_path / "a", trial(), [*rows, *known], rewards) == {
        "golden": Rewards(0, 30), "new": Rewards(30, 30),
    }  # fmt: skip
    assert measured(tmp_path / "b", trial(reward="outcome"), [*rows, *known], rewards) == {
        "golden": Rewards(10, 30), "new": Rewards(10, 30),
    }  # fmt: skip


def test_a_regression_has_no_right_answer_to_learn_from(tmp_path: Path) -> None:
    rows = [predicted(trial(), 1, "golden"), outcome(1)]
    with pytest.raises(DeclarationError, match=r"has no reward of 0 or 1 \(correct, regression\)"):
        measured(tmp_path, trial(), rows, rewards, task="regression")


def test_nothing_logged_is_a_report_without_arms(tmp_path: Path) -> None:
    found = measured(tmp_path, trial(), [])
    assert (found.arms, found.assigned, found.mismatch) == ([], 0, None)


def test_a_report_is_plain_json(tmp_path: Path) -> None:
    experiment = trial()
    document = as_document(measured(tmp_path, experiment, [*divided(experiment, 50), *map(outcome, range(50))]))
    assert document["arms"][1]["metrics"]["accuracy"]["value"] == 1.0
    assert document["mismatch"]["suspicious"] is False
