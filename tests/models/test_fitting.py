"""A trainer of its own hand is given its splits and nothing else, and what it returns is checked as any other."""

from __future__ import annotations

import sys

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from tests.models.worlds import DAY, World, fraud, fraud_world, linear
from windrow import TimeSplit
from windrow.errors import DeclarationError, ModelError, UnknownNameError
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.fitting import fit
from windrow.models.training import train

SPLIT = TimeSplit("10d", gap="2d", validation="8d")
GIVEN: dict[str, list[str]] = {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = fraud_world(tmp_path_factory.mktemp("fraud"))
    made.groups(fraud())
    return made


@pytest.fixture(scope="module")
def dataset(world: World) -> TrainingDataset:
    return build_dataset(fraud(split=SPLIT), world.lake, world.metadata, now=60 * DAY, home=world.home)


def service(train, **options):
    return fraud(model=None, train=train, split=SPLIT, **options)


def fit_alone(train):
    return linear().fit(train.X, train.y)


def fit_with_validation(train, validation):
    GIVEN["days"] = [int(part.rows["event_time"].cast("int64").to_numpy().max() // DAY) for part in (train, validation)]
    return linear().fit(train.X, train.y)


def fit_by_search(train):
    return GridSearchCV(linear(), {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(train.X, train.y)


def fit_everything(train, test):
    return linear()


def fit_nothing(train):
    return linear()


def stops(train):
    raise ZeroDivisionError("no luck")


def leaves(train):
    sys.exit(3)


class Leaves(DummyClassifier):
    def fit(self, X, y, sample_weight=None):
        sys.exit(3)


def test_a_trainer_that_asks_for_the_validation_split_is_given_it(dataset):
    fit(service(fit_with_validation), dataset)
    assert GIVEN["days"] == [28, 38]


def test_a_trainer_of_its_own_hand_makes_a_release(world, dataset):
    release = train(service(fit_alone), dataset, registry=world.registry, metadata=world.metadata)
    assert (release.backend, release.metrics["auc"] > 0.8) == ("onnx", True)


def test_a_trainer_may_return_a_search_that_it_fitted_itself(dataset):
    made = fit(service(fit_by_search), dataset)
    assert (len(made.trials), type(made.estimator).__name__) == (2, "Pipeline")


def test_a_trainer_that_wants_the_test_split_is_refused(dataset):
    with pytest.raises(ModelError, match=r"takes 'test', 'train'. Next: write def fit\(train\):"):
        fit(service(fit_everything), dataset)


def test_a_trainer_that_fits_nothing_is_refused(dataset):
    with pytest.raises(ModelError, match=r"Pipeline given to service 'fraud' is not fitted"):
        fit(service(fit_nothing), dataset)


def test_a_trainer_that_fails_is_told_where(dataset):
    with pytest.raises(DeclarationError, match=r"fails: ZeroDivisionError: no luck. It stops at .*test_fitting.py"):
        fit(service(stops), dataset)


def test_a_trainer_that_ends_the_process_is_named(dataset):
    with pytest.raises(DeclarationError, match=r"trainer of service 'fraud' \(.*leaves\) fails: it ends the process \(sys.exit\(3\)\). It stops at .*test_fitting.py.*Next: raise an error"):  # fmt: skip
        fit(service(leaves), dataset)


def test_an_estimator_that_ends_the_process_is_named(dataset):
    with pytest.raises(ModelError, match=r"the estimator of service 'fraud' cannot be fitted: SystemExit: 3"):
        fit(fraud(model=lambda: Leaves(), split=SPLIT), dataset)


def test_a_service_has_one_trainer():
    with pytest.raises(DeclarationError, match=r"service 'fraud' has both model= and train="):
        fraud(train=fit_alone)
    with pytest.raises(DeclarationError, match=r"service 'fraud' has no trainer"):
        fraud(model=None)


def test_a_trainer_is_named_by_its_module_and_read_when_it_is_needed(dataset):
    made = service("tests.models.test_fitting:fit_alone")
    assert (str(made.trainer), made.describe()["model"]) == ("tests.models.test_fitting:fit_alone",) * 2


@pytest.mark.parametrize(
    ("resources", "error", "message"),
    [
        ({"gpus": 1}, UnknownNameError, r"resource 'gpus'.*'gpu'"),
        ({"gpu": 0.5}, DeclarationError, r"asks for gpu=0.5. Next: write a whole number"),
        ({"memory": "8"}, DeclarationError, r"asks for memory='8'"),
    ],
)
def test_resources_that_no_launcher_knows_are_refused_when_declared(resources, error, message):
    with pytest.raises(error, match=message):
        fraud(resources=resources)


def test_a_notebooks_search_is_released_by_its_winner(world, dataset):
    search = GridSearchCV(linear(), {"logisticregression__C": [0.1, 1.0]}, cv=2)
    learn = load_split(dataset, fraud().view.contract, "train")
    fitted = search.fit(learn.X, learn.y)
    release = train(fraud(split=SPLIT), dataset, registry=world.registry, metadata=world.metadata, estimator=fitted)
    assert release.evidence["estimator"] == "Pipeline"
    assert len(world.metadata.runs("fraud")[-1]["trials"]) == 2


def test_curves_and_code_of_a_run_are_kept(world, dataset):
    train(fraud(split=SPLIT), dataset, registry=world.registry, metadata=world.metadata)
    run = world.metadata.runs("fraud")[-1]
    assert set(run["curves"]) == {"roc", "calibration"}
    assert (run["curves"]["roc"]["false"][0], run["curves"]["roc"]["true"][-1]) == (0.0, 1.0)
    assert sum(run["curves"]["calibration"]["rows"]) == 60
    assert len(run["code"]) == 16


def test_what_an_estimator_noted_of_itself_is_its_learning_curve(world, dataset):
    from sklearn.ensemble import GradientBoostingClassifier

    def boosted():
        from sklearn.compose import make_column_transformer
        from sklearn.pipeline import make_pipeline

        return make_pipeline(
            make_column_transformer(("passthrough", ["limit", "amount"])), GradientBoostingClassifier(n_estimators=5)
        )

    train(fraud(model=boosted, split=SPLIT), dataset, registry=world.registry, metadata=world.metadata)
    assert len(world.metadata.runs("fraud")[-1]["curves"]["learning"]["train"]) == 5
