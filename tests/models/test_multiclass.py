"""Home, draw or away: a label of three classes goes the whole way, from the label to the answer."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tests.models.football import CLASSES, fixtures, football, football_world, model, results, view
from tests.models.worlds import DAY, World
from windrow import Label, PredictionService, TimeSplit
from windrow.errors import DeclarationError, ModelError, UnknownNameError
from windrow.features.contract import matrix
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.metrics import metrics_of
from windrow.models.release import Release
from windrow.models.scoring import score
from windrow.models.training import train
from windrow.serving.answers import Speaker
from windrow.serving.predictor import CompiledPredictor
from windrow.serving.requests import read_outcomes
from windrow.serving.transformer import Transformer
from windrow.stores.engine import engine


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return football_world(tmp_path_factory.mktemp("football"))


@pytest.fixture(scope="module")
def dataset(world) -> TrainingDataset:
    return build_dataset(football(), world.lake, world.metadata, now=299 * DAY, home=world.home)


@pytest.fixture(scope="module")
def release(world, dataset) -> Release:
    return train(football(), dataset, registry=world.registry, metadata=world.metadata)


def test_a_label_is_the_place_of_its_class_and_another_text_leaves_it_unknown(dataset):
    train_rows = load_split(dataset, view.contract, "train")
    assert sorted(set(train_rows.y)) == [0.0, 1.0, 2.0]
    assert dataset.excluded["unknown"] == 1


def test_a_release_of_three_classes_is_compiled_proven_and_live(release, world):
    assert (release.task, release.classes, release.backend) == ("multiclass", ("home", "draw", "away"), "treelite")
    assert release.parity["measure"] == "largest absolute difference of the probability of a class"
    assert set(release.metrics) == {"auc", "log_loss", "brier", "accuracy"}
    assert release.metrics["accuracy"] > 0.6 > release.baseline["accuracy"]
    assert world.registry.live("football") == release


def test_the_probabilities_of_a_row_add_up_to_one(release, world, dataset):
    bundle, test = world.registry.load(release.id), load_split(dataset, view.contract, "test")
    found = bundle.predict(test.frame)
    assert found.shape == (len(test.y), 3)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert bundle.predict_matrix(matrix(test.frame)).tolist() == found.tolist()


def test_a_batch_has_the_place_of_the_class_and_every_probability(release, world):
    rows = score(football(), world.registry.load(release.id), world.lake, engine(), start=0, end=9 * DAY, now=299 * DAY)
    shares = np.array([rows[f"probability_{name}"].to_pylist() for name in CLASSES]).T
    assert rows.num_rows == 9
    assert rows["prediction"].to_pylist() == shares.argmax(axis=1).tolist()
    assert rows.schema.field("prediction").type == pa.float64()


def test_an_answer_names_the_class_and_gives_every_probability(release, world):
    predictor, transformer = CompiledPredictor(world.registry.load(release.id)), Transformer(release.contract, None)
    vectors = transformer.vectors([{"match_id": 1, "strength": 3.0, "form": 0.0}], [0])
    outputs = asyncio.run(predictor.predict(vectors))
    names = release.contract.feature_names
    speaker = Speaker("football", release.id, names, classes=False, names=release.classes)
    (told,) = msgspec.json.decode(speaker.answer("r", outputs, vectors.statuses, now=0))["predictions"]
    assert (told["class"], told["value"], list(told["probabilities"])) == ("home", 0.0, CLASSES)
    assert sum(told["probabilities"].values()) == pytest.approx(1.0)


def test_an_outcome_is_the_place_of_a_class():
    body = b'{"outcomes": [{"request_id": "a", "row": 0, "value": %d}]}'
    assert read_outcomes(body % 2, classes=3)[0].value == 2.0
    with pytest.raises(Exception, match="Field 'value' is not a whole number from 0 to 2"):
        read_outcomes(body % 3, classes=3)


def test_the_metrics_of_three_classes():
    truth, answers = np.array([0.0, 2.0]), np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    found = metrics_of("multiclass", truth, answers)
    assert found == {"log_loss": pytest.approx(1.0397207708), "brier": pytest.approx(0.625), "accuracy": 0.5}


def test_a_class_that_training_never_saw_is_an_error(dataset, world):
    label = Label.joined(results, on="match_id", matures_after="1d", column="result", classes=[*CLASSES, "postponed"])
    service = PredictionService("football", view, label, model=model, split=TimeSplit(test="50d"))
    made = build_dataset(service, world.lake, world.metadata, now=299 * DAY, home=world.home)
    with pytest.raises(
        ModelError, match="no row of the training split of service 'football' has the class 'postponed'"
    ):
        train(service, made, registry=world.registry, metadata=world.metadata)


def test_classes_are_declared_with_care():
    with pytest.raises(DeclarationError, match="needs a text column, not 'match_id'"):
        Label.joined(results, on="match_id", matures_after="1d", column="match_id", classes=CLASSES)
    with pytest.raises(DeclarationError, match="are not two different classes or more"):
        Label.joined(results, on="match_id", matures_after="1d", column="result", classes=["home"])
    with pytest.raises(UnknownNameError, match="drawn"):
        Label.joined(results, on="match_id", matures_after="1d", column="result", classes=CLASSES, absent="drawn")
    with pytest.raises(DeclarationError, match="its label has 3 classes"):
        football(baseline="form")


def test_names_of_classes_change_the_labels_fingerprint_and_nothing_else_does():
    plain = Label.value(fixtures, "form", ahead="1d")
    assert "classes" not in plain.describe()
    first = Label.joined(results, on="match_id", matures_after="1d", column="result", classes=CLASSES)
    other = Label.joined(results, on="match_id", matures_after="1d", column="result", classes=CLASSES[::-1])
    assert first.fingerprint != other.fingerprint
