"""What the two services reach on real data; each test is skipped, saying so, where its file is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from windrow.orchestrate.run import run_service
from windrow.settings import Settings


def model_facts(name: str, settings: Settings, data: Path) -> dict[str, Any]:
    project = Path(__file__).parents[2]
    select = ["sources/*", "features/*", f"{name}/training_dataset", f"{name}/model"]
    here = msgspec.structs.replace(settings, data=data, project=project)
    return run_service(name, here, select=select).step(f"{name}/model").facts


@pytest.mark.data("electricity_victoria.csv")
def test_electricity_error_is_at_most_080_of_last_weeks_value(settings: Settings, data: Path) -> None:
    facts = model_facts("electricity", settings, data)
    assert facts["mae"] <= 0.80 * facts["baseline mae"]


@pytest.mark.data("churn_telco.csv")
def test_churn_auc_is_at_least_081(settings: Settings, data: Path) -> None:
    assert model_facts("churn", settings, data)["auc"] >= 0.81
