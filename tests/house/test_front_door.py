from __future__ import annotations

import subprocess
import sys

import pytest

import windrow

EXPORTED = [
    "AggregateGroup", "Batch", "BetterThanGolden", "Cache", "Calibration", "Constant", "CsvFile", "Drift", "Entity", "Every",
    "Fairness", "FeatureGroup", "FeatureView", "Field", "Gate", "GroupSplit", "IbisTable", "Label", "Latency",
    "Notebook", "Online", "Parquet", "Postgres", "PredictionService", "RandomSplit", "Settings", "Slices", "Source",
    "Status", "StratifiedSplit", "Stream", "TimeSplit", "Waiver", "WindrowError", "agg", "aggregate", "columns",
    "external_group", "feature_group", "history", "latest", "on_demand", "point_in_time", "runs", "sql_group", "trials",
]  # fmt: skip


def test_the_front_door_exports_these_names_and_no_others() -> None:
    assert windrow.__all__ == EXPORTED
    assert dir(windrow) == sorted([*EXPORTED, "__version__"])


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_is_there_and_documented(name: str) -> None:
    assert getattr(windrow, name).__doc__


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'FeatureStore'"):
        windrow.FeatureStore  # noqa: B018 - the access is the test


def test_importing_windrow_imports_nothing_heavy() -> None:
    code = "import sys, windrow; print(sorted({'ibis', 'pandas', 'numpy', 'dagster', 'sklearn', 'msgspec'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
