"""The whole way: a stored dataset and a written log in, a stored report out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from windrow.clock import duration, parse_time
from windrow.errors import NotFoundError
from windrow.features.contract import Contract, Frame
from windrow.features.label import Label
from windrow.features.source import Source
from windrow.features.view import FeatureView
from windrow.models.dataset import TrainingDataset
from windrow.models.service import Drift, PredictionService, RandomSplit
from windrow.monitoring.drift import DriftReport, load_report, watch
from windrow.stores.lake import Lake
from windrow.stores.log import LogRecord, LogWriter, PredictionLog

NOW = parse_time("2019-09-30")
HOUR = duration("1h")

customers = Source(
    "customers",
    id="customer_id",
    event_time="at",
    columns={"customer_id": "int64", "tenure": "int64", "plan": "string"},
)
left = Source("left", id="customer_id", event_time="at", columns={"customer_id": "int64"})
view = FeatureView("churn", spine=customers, features=[customers.tenure, customers.plan])
monitor = Drift(window="7d", min_rows=100)
service = PredictionService(
    "churn",
    view,
    Label.joined(left, on="customer_id", absent=0, matures_after="30d"),
    model="train:model",
    split=RandomSplit(),
    monitors=[monitor],
)
contract: Contract = view.contract


class Half:
    """A release that answers with half of the share of a tenure of ten years."""

    id = "churn-1"

    def predict(self, frame: Frame) -> np.ndarray:
        return np.asarray(frame["tenure"] / 240, dtype=np.float64)


@pytest.fixture
def dataset(tmp_path: Path) -> TrainingDataset:
    rng = np.random.default_rng(0)
    rows = pa.table(
        {
            "customer_id": np.arange(4000),
            "event_time": pa.array(NOW - 90 * duration("1d") + np.arange(4000) * HOUR // 2, pa.timestamp("us", "UTC")),
            "tenure": rng.integers(1, 72, 4000),
            "plan": rng.choice(["basic", "plus"], 4000).tolist(),
            "label": np.zeros(4000),
            "split": ["train"] * 3000 + ["test"] * 1000,
        }
    )
    pq.write_table(rows, tmp_path / "d.parquet")
    return TrainingDataset(
        id="d", service="churn", rows=4000, features=["tenure", "plan"], excluded={}, splits={"train": 3000, "test": 1000},
        split="", content_hash="", seq=0, now=NOW, view_fingerprint="", kind="view", path=str(tmp_path / "d.parquet"),
    )  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path / "log", Lake(str(tmp_path / "lake")))


def ask(log: PredictionLog, rows: int, *, at: int = NOW, longer: int = 0, release: str = "churn-1") -> None:
    rng = np.random.default_rng(1)
    records = [
        LogRecord(
            kind="prediction",
            request_id=f"{release}-{at}-{i}",
            service="churn",
            release=release,
            event_time=at - i,
            known_at=at - i,
            vector={"tenure": float(rng.integers(1, 72) + longer), "plan": str(rng.choice(["basic", "plus"]))},
            output=float(rng.integers(1, 72)) / 240,
        )
        for i in range(rows)
    ]
    with LogWriter(log.folder, f"api-{abs(at)}") as writer:
        writer.append(records)


def look(log: PredictionLog, dataset: TrainingDataset, reports: Path, *, bundle: Half | None = None) -> DriftReport:
    return watch(service, monitor, dataset=dataset, log=log, contract=contract, now=NOW, reports=reports, bundle=bundle)


def test_requests_like_the_training_data_pass(log: PredictionLog, dataset: TrainingDataset, tmp_path: Path) -> None:
    ask(log, 300)
    report = look(log, dataset, tmp_path / "reports", bundle=Half())
    assert [(c.feature, c.verdict) for c in report.columns] == [("tenure", "ok"), ("plan", "ok"), ("prediction", "ok")]
    assert (report.passed, report.rows_reference, report.rows_current, report.note) == (True, 3000, 300, "")


def test_requests_of_other_customers_fail_and_the_report_is_stored(
    log: PredictionLog, dataset: TrainingDataset, tmp_path: Path
) -> None:
    ask(log, 300, longer=40)
    report = look(log, dataset, tmp_path / "reports")
    assert (report.passed, [c.feature for c in report.found()]) == (False, ["tenure"])
    assert load_report(tmp_path / "reports", "churn", "drift") == report
    assert (tmp_path / "reports" / report.html).stat().st_size == report.html_bytes > 3_000_000


def test_only_the_window_counts(log: PredictionLog, dataset: TrainingDataset, tmp_path: Path) -> None:
    ask(log, 300, at=NOW - duration("8d"), longer=40)
    ask(log, 300, at=NOW + 10 * duration("365000d"), longer=40)  # a request may ask about any time at all
    report = look(log, dataset, tmp_path / "reports")
    assert (report.rows_current, report.passed) == (0, True)
    assert report.why.startswith(
        "nothing was judged: the window has 0 rows, 100 are wanted; the log has 600 rows, the newest of 12"
    )


def test_a_log_without_predictions_says_so(log: PredictionLog, dataset: TrainingDataset, tmp_path: Path) -> None:
    assert look(log, dataset, tmp_path / "reports").why.endswith("100 are wanted; the log has no prediction yet")


def test_predictions_of_other_releases_are_left_out(
    log: PredictionLog, dataset: TrainingDataset, tmp_path: Path
) -> None:
    ask(log, 300)
    ask(log, 50, at=NOW - HOUR, release="churn-0")
    report = look(log, dataset, tmp_path / "reports", bundle=Half())
    assert report.rows_current == 350
    assert [c.verdict for c in report.columns] == ["ok", "ok", "ok"]


def test_a_dataset_that_is_gone_is_named(log: PredictionLog, dataset: TrainingDataset, tmp_path: Path) -> None:
    Path(dataset.path).unlink()
    with pytest.raises(NotFoundError, match="the file of dataset 'd' is gone"):
        look(log, dataset, tmp_path / "reports")
