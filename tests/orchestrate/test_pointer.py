"""One pointer: batch, online and monitors follow the release that is live, forth and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.orchestrate.conftest import PACKAGE, settings_of
from windrow.models.registry import Registry
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import run_service
from windrow.serving.loader import Loader
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.log import LogRecord, LogWriter

FOLLOWING = ["visits/predictions", "visits/monitoring/drift"]


@pytest.mark.slow
def test_batch_online_and_drift_follow_a_promotion_and_a_rollback(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    for select in (None, ["visits/model"]):
        run_service("visits", settings, package=PACKAGE, select=select)
    stores = Stores(settings)
    registry = Registry(stores.metadata, settings.folder("releases"))
    first, second = [release.id for release in registry.list("visits")]
    _log(settings, first, rows=40)
    _log(settings, second, rows=3)
    assert _followed(settings, registry, second) == (second, second, "too few rows")
    assert _followed(settings, registry, first) == (first, first, "judged")
    assert _followed(settings, registry, second) == (second, second, "too few rows")


def _log(settings: Settings, release: str, *, rows: int) -> None:
    now = max(span.known for span in Stores(settings).spans().values())
    with LogWriter(settings.home / "log", "api-0") as log:
        for n in range(rows):
            vector: dict[str, float | str | None] = {"plan": "gold", "visits": float(n % 11), "often": float(n % 2)}
            facts = {"service": "visits", "request_id": f"{release}-{n}", "event_time": now, "known_at": now}
            log.append([LogRecord(kind="prediction", release=release, vector=vector, output=0.5, **facts)])


def _followed(settings: Settings, registry: Registry, id: str) -> tuple[object, object, str]:
    """Promote a release; return who scores in batch, who answers online, and whether its few answers are judged."""
    registry.promote("visits", id, reason="test")
    made = run_service("visits", settings, package=PACKAGE, select=FOLLOWING)
    rows = Stores(settings).lake.table("predictions/visits").scan(engine())
    (scored,) = rows.select("release").distinct().to_pyarrow()["release"].to_pylist()
    assert made.step("visits/predictions").facts["release"] == scored
    loader = Loader(settings)
    online = loader.find()["visits"]
    loader.close()
    verdicts = json.loads((settings.home / "reports" / "visits" / "drift.json").read_bytes())["columns"]
    (word,) = [column["verdict"] for column in verdicts if column["feature"] == "prediction"]
    return scored, online, word if word == "too few rows" else "judged"
