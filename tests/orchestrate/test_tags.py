"""What training needs of a machine reaches Dagster's launchers as the tags that they read."""

from __future__ import annotations

import json

import dagster as dg

from tests.models.worlds import fraud
from windrow.orchestrate.service_assets import model_asset


def test_gpu_and_memory_are_tags_of_the_models_op() -> None:
    asset = model_asset(fraud(resources={"gpu": 1, "memory": "8Gi", "queue": "training"}))
    assert isinstance(asset.op, dg.OpDefinition)
    tags = asset.op.tags
    asked = {"nvidia.com/gpu": "1", "memory": "8Gi"}
    assert json.loads(tags["dagster-k8s/config"]) == {
        "container_config": {"resources": {"requests": asked, "limits": asked}}
    }
    assert (tags["windrow/gpu"], tags["windrow/memory"], tags["dagster-celery/queue"]) == ("1", "8Gi", "training")


def test_a_service_that_needs_nothing_has_no_such_tags() -> None:
    tags = model_asset(fraud()).op.tags
    assert [name for name in tags if name.startswith(("dagster-k8s", "dagster-celery", "windrow/"))] == []
