from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.conftest import FIELDS
from windrow.errors import NotFoundError, StoreError
from windrow.features.contract import Frame
from windrow.models.service import Drift
from windrow.monitoring import drift
from windrow.monitoring.drift import Comparison, DriftReport, judge, load_report, outputs_of, store, with_predictions
from windrow.monitoring.windows import Window

Draw = Callable[..., Frame]
MONITOR = Drift(min_rows=100)
DAY = Window(0, 86_400_000_000)


def judged(draw: Draw, rows: int = 300, *, shift: float = 0.0, monitor: Drift = MONITOR, hint: str = "") -> DriftReport:
    sides = Comparison(draw(3000, 0), draw(rows, 1, shift=shift), FIELDS)
    return judge("churn", monitor, DAY, sides=sides, hint=hint)[0]


def test_a_window_like_the_training_data_passes(draw: Draw) -> None:
    report = judged(draw)
    assert (report.passed, report.judged, report.why) == (True, 7, "7 columns are as in the training data")
    assert (report.rows_reference, report.rows_current, report.window) == (3000, 300, (0, 86_400_000_000))


def test_a_shifted_window_fails_and_says_which_columns_changed(draw: Draw) -> None:
    report = judged(draw, shift=1.0)
    assert not report.passed
    assert [column.feature for column in report.found()] == ["load", "amount"]
    assert report.why.startswith("2 of 7 columns changed: load: distance 0.")


def test_one_broken_column_fails_the_report(draw: Draw) -> None:
    window = draw(300, 1)
    window["flag"] = np.full(300, np.nan, np.float32)
    report, _ = judge("churn", Drift(min_rows=100), DAY, sides=Comparison(draw(3000, 0), window, FIELDS))
    assert (report.passed, [column.verdict for column in report.found()]) == (False, ["missing"])


def test_too_few_rows_pass_but_say_that_nothing_was_judged_and_where_the_rows_are(draw: Draw) -> None:
    report = judged(draw, rows=5, hint="the log has 9 rows, the newest of 2015-01-01T00:00:00+00:00")
    assert (report.passed, report.judged) == (True, 0)
    assert report.why == (
        "nothing was judged: the window has 5 rows, 100 are wanted; "
        "the log has 9 rows, the newest of 2015-01-01T00:00:00+00:00"
    )


def test_ignored_features_are_named_in_the_report(draw: Draw) -> None:
    report = judged(draw, shift=1.0, monitor=Drift(min_rows=100, ignore=["load", "amount"]))
    assert (report.passed, report.ignored) == (True, ["load", "amount"])


class Answers:
    """A release that answers with the column ``amount``."""

    id = "churn-2"

    def predict(self, frame: Frame) -> np.ndarray:
        return frame["amount"].astype(np.float64)


def test_predictions_are_one_more_column(draw: Draw) -> None:
    sides = Comparison(draw(3000, 0), draw(300, 1), FIELDS)
    sides = with_predictions(sides, Answers(), draw(700, 2), draw(300, 3, shift=1.0)["amount"].astype(float))
    report, _ = judge("churn", MONITOR, DAY, sides=sides)
    assert [(c.feature, c.verdict) for c in report.found()] == [("prediction", "drift")]


def test_a_feature_called_prediction_keeps_its_name() -> None:
    ones = {"prediction": np.ones(3), "amount": np.ones(3)}
    sides = with_predictions(Comparison(ones, ones, ()), Answers(), ones, np.zeros(3))
    assert list(sides.reference) == ["prediction", "amount", "prediction (output)"]


def test_only_outputs_of_the_release_are_compared() -> None:
    rows = pa.table({"release": ["churn-1", "churn-2", "churn-2"], "output": pa.array([0.1, 0.2, None], pa.float64())})
    np.testing.assert_array_equal(outputs_of(rows, "churn-2"), [0.2, np.nan])


def test_a_stored_report_is_read_back_equal(draw: Draw, tmp_path: Path) -> None:
    report = judged(draw, rows=5)
    store(tmp_path, report, "<html></html>")
    assert load_report(tmp_path, "churn", "drift") == report
    assert (tmp_path / report.html).read_text() == "<html></html>"
    assert report.html == "churn/drift.html"


def test_a_stored_report_is_plain_json_that_other_users_may_read(draw: Draw, tmp_path: Path) -> None:
    store(tmp_path, judged(draw, rows=5), "")
    stored = tmp_path / "churn" / "drift.json"
    assert msgspec.json.decode(stored.read_bytes())["columns"][0]["verdict"] == "too few rows"
    assert stored.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_in_the_middle_leaves_no_half_written_file(draw: Draw, tmp_path: Path) -> None:
    (tmp_path / "churn" / "drift.json" / "in the way").mkdir(parents=True)  # the page can be put, the report cannot
    with pytest.raises(
        StoreError, match="report of monitor 'drift' cannot be written to .*: Is a directory. Next: free"
    ):
        store(tmp_path, judged(draw, rows=5), "page")
    assert sorted(file.name for file in (tmp_path / "churn").iterdir()) == ["drift.html", "drift.json"]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(draw: Draw, tmp_path: Path) -> None:
    (tmp_path / "churn").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written to .*: File exists"):
        store(tmp_path, judged(draw, rows=5), "page")


def test_a_monitor_that_never_ran_says_what_to_materialize(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no report yet. Next: materialize churn/monitoring/drift"):
        load_report(tmp_path, "churn", "drift")


def test_metadata_are_plain_facts(draw: Draw) -> None:
    facts = drift.as_metadata(judged(draw, rows=5))
    assert facts["window"] == "after 1970-01-01T00:00:00+00:00, up to 1970-01-02T00:00:00+00:00"
    assert facts["columns"][0]["feature"] == "load"
