"""The document of a dataset says what each split holds."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tests.models.worlds import DAY, fraud, fraud_world
from windrow import TimeSplit
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.statistics import as_table, statistics_of
from windrow.orchestrate.service_assets import _dataset_facts


def test_missing_values_count_as_missing_and_in_nothing_else():
    frame = {"x": np.array([1, np.nan, 3], np.float32), "plan": np.array(["b", "(missing)", "b"], object)}
    made = statistics_of(frame, np.array([5, 1, 9]), np.array([0.0, 1.0, 0.0])).features
    assert (made["x"].missing, made["x"].mean, made["x"].quantiles[0], made["x"].quantiles[-1]) == (1, 2.0, 1.0, 3.0)
    assert (made["plan"].missing, made["plan"].distinct, made["plan"].top) == (1, 1, {"b": 2})


def test_a_feature_that_is_never_there_has_no_mean():
    made = statistics_of({"x": np.full(2, np.nan, np.float32)}, np.array([1, 2]), np.array([0.0, 1.0]))
    assert (made.features["x"].missing, made.features["x"].mean, made.features["x"].quantiles) == (2, None, [])
    assert as_table({"train": made})[1][-1] == ["x", "nothing, 2 missing"]


def test_a_dataset_keeps_the_statistics_of_every_split_and_shows_them(tmp_path):
    world, service = fraud_world(tmp_path), fraud(split=TimeSplit("10d", gap="2d", validation="8d"))
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    kept = msgspec.convert(world.metadata.datasets("fraud")[-1], TrainingDataset)
    assert kept.statistics == made.statistics
    for name, count in made.splits.items():
        part, told = load_split(made, service.view.contract, name), made.statistics[name]
        assert (told.rows, told.label.mean) == (count, pytest.approx(part.y.mean(), rel=1e-5))
        assert told.features["amount"].mean == pytest.approx(part.frame["amount"].mean(), rel=1e-5)
        assert set(told.features["plan"].top) == {"a", "b"}
    facts = _dataset_facts(made)
    assert facts["label mean, validation"] == made.statistics["validation"].label.mean
    assert facts["statistics"].value.splitlines()[0] == "|  | train | validation | test |"
