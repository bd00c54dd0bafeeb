"""Promises of the handle used inside notebooks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import windrow.notebook as handle
from tests.orchestrate.conftest import PACKAGE, WORLD, copied_world, settings_of
from windrow.errors import ModelError, NotFoundError, UnknownNameError
from windrow.notebook import StoredTable, TrainingData, history, latest, load, report, save, service
from windrow.orchestrate.run import run_service
from windrow.settings import Settings


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The tiny project with the data and training dataset of one service."""
    settings = settings_of(tmp_path_factory.mktemp("stored") / "home")
    keys = ["sources/*", "features/*", "visits/training_dataset"]
    run_service("visits", settings, package=PACKAGE, select=keys)
    return settings


@pytest.fixture
def inside(stored: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The environment of a notebook of that project."""
    for name, value in stored.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handle, "_PACKAGE", PACKAGE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return stored


def test_a_feature_group_is_loaded_as_a_table(inside: Settings) -> None:
    habits = load("features/habits_v1")
    assert isinstance(habits, StoredTable)
    assert habits.columns == ("customer_id", "plan", "visits", "often", "event_time", "known_at", "_seq")
    assert habits.table.count().execute() == 120


def test_a_loaded_tables_dtypes_follow_the_declaration(inside: Settings) -> None:
    frame = load("features/habits_v1").to_pandas()
    assert [str(frame[name].dtype) for name in ("customer_id", "plan", "often", "event_time")] == [
        "float64",
        "object",
        "float64",
        "datetime64[us]",
    ]


def test_a_services_view_has_a_history_and_a_newest_row_per_entity(inside: Settings) -> None:
    newest = latest("visits")
    assert newest.num_rows == len(set(newest["customer_id"].to_pylist())) > 0
    assert history("visits", "1970-01-01", "2200-01-01").num_rows >= newest.num_rows


def test_a_training_dataset_has_a_train_and_a_test_split_with_inputs_and_labels(inside: Settings) -> None:
    data = load("visits/training_dataset")
    assert isinstance(data, TrainingData)
    assert (data.train.X.shape, data.train.y.shape, data.test.X.shape) == ((90, 3), (90,), (30, 3))
    assert list(data.test.X.columns) == ["plan", "visits", "often"]
    assert set(np.unique(data.train.y)) == {0.0, 1.0}


def test_a_service_is_found_by_name(inside: Settings) -> None:
    assert service("visits").description == "Chance that a customer comes back within 30 days."


def test_a_misspelt_key_is_refused_with_the_close_one(inside: Settings) -> None:
    with pytest.raises(UnknownNameError, match=r"no asset 'features/habit_v1'.*did you mean 'features/habits_v1'\?"):
        load("features/habit_v1")


def test_what_was_not_made_yet_is_said_with_the_next_step(inside: Settings) -> None:
    with pytest.raises(NotFoundError, match=r"no training dataset yet. Next: run windrow run heat"):
        load("heat/training_dataset")


def test_an_empty_log_is_a_table_without_rows(inside: Settings) -> None:
    assert load("visits/log").table.count().execute() == 0


def test_errors_show_one_line_in_a_notebook_and_no_frames(inside: Settings) -> None:
    with pytest.raises(NotFoundError, match="no training dataset yet") as caught:
        load("heat/training_dataset")
    assert caught.value._render_traceback_() == [
        "NotFoundError: service 'heat' has no training dataset yet. Next: run windrow run heat."
    ]


def test_reported_figures_are_plain_values_and_shown_as_a_card() -> None:
    made = report(mae=np.float32(0.5), rows=np.int64(3), word="<b>")
    assert made.facts == {"mae": 0.5, "rows": 3, "word": "<b>"}
    assert "&lt;b&gt;" in made._repr_html_()


def test_a_saved_model_outside_dagster_names_the_next_step(inside: Settings) -> None:
    from sklearn.linear_model import LogisticRegression

    data = load("visits/training_dataset")
    made = save(LogisticRegression().fit(data.train.X[["visits"]], data.train.y))
    assert made.next_step == "run it as the asset visits/model to make a release (windrow run visits)"
    assert (inside.home / "notebooks" / str(made.facts["file"])).is_file()


def test_a_saved_search_is_its_winner_with_every_trial(inside: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    data, sent = load("visits/training_dataset"), []
    monkeypatch.setattr(handle, "_send", sent.append)
    made = save(GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(data.train.X[["visits"]], data.train.y))
    assert made.facts["model"] == "LogisticRegression"
    assert [trial["parameters"] for trial in sent[0]["trials"]] == [{"C": "0.1"}, {"C": "1.0"}]


def test_a_service_whose_rows_have_one_time_asks_for_no_folds_of_its_own(inside: Settings) -> None:
    assert load("visits/training_dataset").folds is None


def test_only_something_that_predicts_can_be_saved(inside: Settings) -> None:
    with pytest.raises(ModelError, match=r"save\(\) was given a dict, which cannot predict"):
        save({}, service="visits")


def test_a_model_of_nobody_is_refused(inside: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "_last_loaded", [])
    with pytest.raises(ModelError, match=r"does not know whose model this is"):
        save(object())


def test_a_notebook_runs_unchanged_without_dagster_and_without_settings(stored: Settings, tmp_path: Path) -> None:
    project = copied_world(tmp_path / "project", "assets")
    (project / ".windrow").symlink_to(stored.home)
    cells = json.loads((WORLD / "notebooks" / "look_at_habits.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(len(frame))"],
        cwd=project / "notebooks",
        env={"PATH": "/usr/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("120", 0), done.stderr
