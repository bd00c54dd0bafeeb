"""The audit finds every served value that is not what was known at the time, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge

from tests.models.worlds import HOUR, World, load, load_world, readings
from windrow import Notebook
from windrow.features.contract import MISSING_TEXT
from windrow.models.bundle import Bundle
from windrow.models.dataset import build_dataset, load_split
from windrow.models.training import train
from windrow.monitoring.audit import AuditReport, Difference, _compared, audit
from windrow.stores.engine import engine
from windrow.stores.log import LogRecord, LogWriter, PredictionLog

SERVICE = load(model=Notebook("train_load.ipynb"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = load_world(tmp_path)
    made.add(readings, meter=["west"], mw=[None], ts=[40 * HOUR])  # a meter without a value
    made.groups(SERVICE)
    return made


@pytest.fixture
def bundle(world: World) -> Bundle:
    made = build_dataset(SERVICE, world.lake, world.metadata, now=48 * HOUR, home=world.home)
    learn = load_split(made, SERVICE.view.contract, "train")
    fitted = Ridge().fit(learn.X, learn.y)
    release = train(SERVICE, made, registry=world.registry, metadata=world.metadata, estimator=fitted)
    return world.registry.load(release.id)


def served(release: str, meter: str, hour: float, mw: float | None) -> dict[str, Any]:
    return {
        "kind": "prediction", "request_id": f"{meter}-{hour}", "service": "load", "release": release,
        "event_time": int(hour * HOUR), "known_at": int(hour * HOUR), "request": {"meter": meter}, "vector": {"mw": mw},
    }  # fmt: skip


def audited(world: World, bundle: Bundle, *records: dict[str, Any]) -> AuditReport:
    with LogWriter(world.home / "log", "api-0") as log:
        log.append([LogRecord(**record) for record in records])
    return audit(SERVICE, bundle, lake=world.lake, log=PredictionLog(world.home / "log", world.lake), con=engine())


def test_vectors_as_they_were_known_are_equal_missing_ones_too(world: World, bundle: Bundle) -> None:
    true = 100.0 + (20 * 7 + 5) % 24
    rows = [served(bundle.id, "north", 20, true), served(bundle.id, "north", 20.5, true)]
    report = audited(world, bundle, *rows, served(bundle.id, "west", 41, None), served(bundle.id, "nowhere", 41, None))
    assert (report.rows, report.equal, report.by_feature, report.passed) == (4, 4, {}, True)


def test_a_value_from_the_next_hour_is_found_and_shown(world: World, bundle: Bundle) -> None:
    now, later = 100.0 + (20 * 7 + 5) % 24, 100.0 + (21 * 7 + 5) % 24
    report = audited(world, bundle, served(bundle.id, "north", 20, later), served(bundle.id, "north", 20, now))
    assert (report.rows, report.equal, report.by_feature) == (2, 1, {"mw": 1})
    assert report.shown == [Difference("north-20", 0, "mw", later, now)]


def test_a_value_served_as_missing_though_it_was_known_is_found(world: World, bundle: Bundle) -> None:
    report = audited(world, bundle, served(bundle.id, "north", 20, None))
    assert (report.equal, report.passed) == (0, False)


def test_what_another_release_served_is_not_judged_by_this_one(world: World, bundle: Bundle) -> None:
    report = audited(world, bundle, served("load-0-other", "north", 20, -1.0))
    assert (report.rows, report.passed, report.others) == (0, True, {"load-0-other": 1})


def test_a_missing_text_is_logged_as_the_model_saw_it_and_equals_a_missing_one() -> None:
    vectors = [f'{{"plan": "{MISSING_TEXT}"}}', '{"plan": "a"}']
    logged = pa.table({"request_id": ["r1", "r2"], "row": [0, 0], "vector": vectors})
    report = _compared("churn", "churn-1", logged, {"plan": np.array([MISSING_TEXT, MISSING_TEXT], dtype=object)})
    assert (report.rows, report.equal, report.by_feature) == (2, 1, {"plan": 1})
    assert report.shown == [Difference("r2", 0, "plan", "a", None)]
