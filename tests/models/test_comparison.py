"""Two releases are compared part by part: features, data, metrics with intervals, gates, code, environment."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tests.models.judged import release_of
from windrow.models.comparison import Difference, compare_releases
from windrow.models.release import DatasetRef, GateResult
from windrow.stores.metadata import Metadata


def told(before, after, metadata=None):
    return [(d.part, d.name, d.before, d.after) for d in compare_releases(before, after, metadata)]


def test_a_release_does_not_differ_from_itself():
    assert compare_releases(release_of("a"), release_of("a")) == []


def test_a_new_feature_is_told_with_its_origin():
    found = compare_releases(release_of("a"), release_of("a", "b"))
    assert Difference("features", "feature b", None, "float64 from request") in found
    assert Difference("features", "order", "a", "a, b") in found


def test_metrics_are_told_with_their_intervals():
    sure = {"intervals": {"auc": {"low": 0.7, "high": 0.9, "rows": 1200}}}
    before = release_of("a", metrics={"auc": 0.75})
    assert told(before, release_of("a", metrics={"auc": 0.8}, evidence=sure)) == [
        ("metrics", "auc", "0.75", "0.8 (0.7 to 0.9, 1,200 rows)")
    ]


def test_a_gate_that_is_failed_now_is_told_with_value_and_bar():
    passed = GateResult("auc", 0.8, "at least 0.7", True, "", name="gate_auc")
    failed = msgspec.structs.replace(passed, value=0.6, passed=False)
    assert told(release_of("a", gates=[passed]), release_of("a", gates=[failed])) == [
        ("gates", "gate_auc", "passed at 0.8 (bar: at least 0.7)", "failed at 0.6 (bar: at least 0.7)")
    ]


def test_code_and_environment_are_told():
    before = release_of("a", groups={"card_v1": "x"}, environment={"numpy": "2.4.5"})
    contract = msgspec.structs.replace(before.contract, on_demand_source="def f(): ...\n")
    after = msgspec.structs.replace(before, groups={"card_v2": "y"}, environment={"numpy": "2.4.6"}, contract=contract)
    assert told(before, after) == [
        ("code", "group card_v1", "x", None),
        ("code", "on-demand functions", "", "def f(): ...\n"),
        ("code", "group card_v2", None, "y"),
        ("environment", "numpy", "2.4.5", "2.4.6"),
    ]


def test_what_a_release_was_made_by_is_told():
    searched = {"code": "c2", "search": {"candidates": 12, "folds": 5, "best": []}}
    elsewhere = {"onboarded": "ONNX", "file_sha256": "f00d"}
    before, after, other = (release_of("a", evidence=facts) for facts in ({"code": "c1"}, searched, elsewhere))
    assert told(before, after) == [
        ("code", "trainer", "c1", "c2"),
        ("code", "search", None, "12 candidates, 5 folds"),
    ]
    assert told(before, other) == [
        ("code", "trainer", "c1", None),
        ("code", "made elsewhere", None, "ONNX"),
        ("code", "file made elsewhere", None, "f00d"),
    ]


def test_the_statistics_of_the_training_rows_are_told_where_their_files_are_there(tmp_path):
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    releases = []
    for number, values in enumerate(([1.0, 3.0], [2.0, None, 4.0, 6.0])):
        path, id = tmp_path / f"{number}.parquet", f"d{number}"
        pq.write_table(pa.table({"a": values, "label": [0.0] * len(values)}), path)
        metadata.add_dataset(id, "toy", {"id": id, "path": str(path)})
        ref = DatasetRef(id=id, hash="h", rows=len(values), kind="view", now=0, splits={})
        releases.append(release_of("a", dataset=ref))
    assert told(*releases, metadata) == [
        ("data", "dataset", "d0", "d1"),
        ("data", "rows", "2", "4"),
        ("data", "statistics of a", "mean 2, sd 1, 0.0% missing", "mean 4, sd 1.633, 25.0% missing"),
    ]
