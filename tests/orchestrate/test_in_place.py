"""A service whose features another system keeps: trained, scored and served without a copy of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.orchestrate.conftest import copied_world, settings_of
from windrow.orchestrate.run import run_service
from windrow.settings import Settings
from windrow.stores.lake import Lake
from windrow.stores.online.store import open_online

EDITS = {
    "kept/visits/features.py": (
        "from windrow import Constant, CsvFile, Entity, Source, feature_group",
        "from windrow import Constant, CsvFile, Entity, Parquet, Source, external_group, feature_group",
    ),
    "kept/visits/service.py": (
        "FeatureView(\"visits\", spine=customers, features=[habits])",
        "FeatureView(\"visits\", spine=customers, features=[habits, limits])",
    ),
}  # fmt: skip
LIMITS = """

limits = external_group(
    "limits", customer, connect=Parquet("limits.parquet"), event_time="since", features={"limit": "float64"}
)
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    project = copied_world(tmp_path / "project", "kept", EDITS)
    features, service = (project / "kept" / "visits" / name for name in ("features.py", "service.py"))
    features.write_text(features.read_text() + LIMITS)
    service.write_text(
        service.read_text().replace("import customers, habits, returned", "import customers, habits, limits, returned")
    )
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("WINDROW_DATA", str(data))
    since = pa.array(np.full(100_000, "2024-01-01", "datetime64[us]"), pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"customer_id": np.arange(100_000), "limit": np.arange(100_000.0), "since": since}),
        data / "limits.parquet",
    )
    return settings_of(tmp_path / "home", project, data=data)


def test_an_external_group_is_trained_on_and_online_for_the_keys_in_use_only(kept: Settings) -> None:
    done = run_service("visits", kept, select=["sources/*", "features/*", "visits/training_dataset"], package="kept")
    facts = done.step("features/limits_v1").facts
    customers = done.step("sources/customers").facts["rows written"]
    assert (facts["keys in use"], facts["online entities"]) == (customers, customers)
    assert not Lake(kept.lake).table("features/limits_v1").exists
    with open_online(kept.online) as online:
        assert online.count("limits_v1") == customers < 100_000
    assert done.step("visits/training_dataset").facts
    again = run_service("visits", kept, select=["features/*"], package="kept")
    assert again.step("features/limits_v1").facts["online entities written"] == 0
    assert "those of the last run" in again.step("features/habits_v1").facts["skipped because"]


@pytest.mark.slow
def test_a_service_with_an_external_group_is_scored_by_day(kept: Settings) -> None:
    assert run_service("visits", kept, package="kept").step("visits/predictions").facts
