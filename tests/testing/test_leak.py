"""The leak probe finds every trainer that looks at the rows it is judged on, and no other."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from tests.conftest import ROOT
from tests.models.worlds import DAY, World, fraud, fraud_world, linear
from windrow import Notebook, TimeSplit
from windrow.discover import services
from windrow.features.arrow import arrow_type
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.service import PredictionService
from windrow.testing import fitted_content, no_leak

SPLIT = TimeSplit("10d", gap="2d", validation="8d")
NUMBERS = ["limit", "amount", "share"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TrainingDataset:
    world: World = fraud_world(tmp_path_factory.mktemp("fraud"))
    world.groups(fraud())
    return build_dataset(fraud(split=SPLIT), world.lake, world.metadata, now=60 * DAY, home=world.home)


def every_row(name: str = "test"):
    """The dataset as a trainer can load it for itself."""
    from windrow.models.dataset import TrainingDataset
    from windrow.settings import Settings
    from windrow.stores.metadata import Metadata

    document = Metadata(Settings.read().metadata).datasets("fraud")[-1]
    found = msgspec.convert(document, TrainingDataset)
    return load_split(found, fraud().view.contract, name)


class Peeping(LogisticRegression):
    """A planted leak: it centres on the mean of all rows, the test split's too."""

    def fit(self, X, y):
        kept = X[NUMBERS].astype(float)
        self.centre_ = float(every_row().frame["amount"].mean())
        super().fit(kept - self.centre_, y)
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        return self

    def predict_proba(self, X):
        names, self.feature_names_in_ = self.feature_names_in_, np.array(NUMBERS, dtype=object)
        try:
            return super().predict_proba(X[NUMBERS].astype(float) - self.centre_)
        finally:
            self.feature_names_in_ = names


def chosen_on_the_test_split(train):
    """A planted leak of the commonest kind: the candidate that does best on the test split is taken."""
    test = every_row()
    made = [linear().set_params(logisticregression__C=c).fit(train.X, train.y) for c in (1e-4, 1.0)]
    return max(made, key=lambda one: one.score(test.X, test.y))


def tuned_on_validation(train, validation):
    made = [linear().set_params(logisticregression__C=c).fit(train.X, train.y) for c in (1e-4, 1.0)]
    return max(made, key=lambda one: one.score(validation.X, validation.y))


def tuned_on_a_validation_split_it_was_not_given(train):
    return tuned_on_validation(train, every_row("validation"))


def peeping():
    return Peeping()


def search():
    return GridSearchCV(linear(), {"logisticregression__C": [0.1, 1.0]})


@pytest.mark.parametrize(
    "options", [{"model": linear}, {"train": tuned_on_validation}, {"model": search}], ids=["model", "train", "search"]
)
def test_a_trainer_that_keeps_to_what_it_is_given_passes(dataset, options):
    no_leak(fraud(split=SPLIT, **{"model": None, **options}), dataset)


@pytest.mark.parametrize(
    ("options", "split", "part"),
    [
        ({"model": peeping}, "validation and test", "centre_"),
        ({"train": chosen_on_the_test_split}, "validation and test", "answers to test rows"),
        ({"train": tuned_on_a_validation_split_it_was_not_given}, "validation and test", "steps.1.1.coef_"),
    ],
    ids=["an estimator", "a fit function", "tuned on validation"],
)
def test_a_trainer_that_looks_at_the_rows_it_is_judged_on_is_found_out(dataset, options, split, part):
    with pytest.raises(
        AssertionError, match=rf"looks at rows that it is judged on.*in the {split} split, .*differ"
    ) as caught:
        no_leak(fraud(split=SPLIT, **{"model": None, **options}), dataset)
    assert part in str(caught.value)


def test_a_pipeline_that_fits_on_every_row_is_found_out(dataset):
    def on_everything(service, dataset):
        rows = [load_split(dataset, service.view.contract, name) for name in dataset.splits]
        X, y = np.vstack([r.X[NUMBERS] for r in rows]), np.concatenate([r.y for r in rows])
        return make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, y)

    with pytest.raises(AssertionError, match="looks at rows that it is judged on"):
        no_leak(fraud(split=SPLIT), dataset, fit=lambda s, d: _as_view(on_everything(s, d)))


def _as_view(model):
    """The same model, asked by all of the view's columns."""
    from sklearn.compose import make_column_transformer

    inputs = make_column_transformer(("passthrough", NUMBERS)).fit(every_row("train").X)
    return make_pipeline(inputs, *[step for _, step in model.steps])


def test_a_trainer_that_is_not_repeatable_is_told_so_and_not_called_leaky(dataset):
    def forest():
        from sklearn.compose import make_column_transformer

        return make_pipeline(make_column_transformer(("passthrough", NUMBERS)), RandomForestClassifier(3))

    with pytest.raises(AssertionError, match=r"gives another result each time .*give every random part a random_state"):
        no_leak(fraud(split=SPLIT, model=forest), dataset)


def test_two_equal_fits_of_boosted_trees_have_the_same_content():
    X = np.random.default_rng(0).normal(size=(80, 3))
    one, two, other = (
        fitted_content(HistGradientBoostingClassifier(max_iter=n, random_state=0).fit(X, X[:, 0] > 0))
        for n in (3, 3, 4)
    )
    assert one == two
    assert one != other


# the services of this project


def made_up(service: PredictionService, home: Path, rows: int = 240) -> TrainingDataset:
    """A dataset of random rows in the shape of a service's view."""
    random, contract = np.random.default_rng(0), service.view.contract
    columns = {"event_time": pa.array(np.arange(rows) * DAY, pa.int64()).cast(pa.timestamp("us", "UTC"))}
    for field in contract.features:
        words = field.dtype == "string"
        values = random.choice(["Yes", "No"], rows).tolist() if words else random.normal(50, 9, rows).tolist()
        columns[field.name] = pa.array(values, arrow_type("string") if words else pa.float32())
    # What stands beside the features, such as who applied: a trainer may look at it, on the training rows.
    beside = [f for f in service.view.spine.spine_fields if f.name not in columns]
    columns |= {f.name: pa.array(random.integers(0, 2, rows)).cast(arrow_type(f.dtype)) for f in beside}
    first = next(iter(f.name for f in contract.features if f.dtype != "string"))
    signal = np.array(columns[first].to_pylist()) + random.normal(0, 3, rows)
    label = (signal > 50).astype(float) if service.label.binary else signal
    columns |= {"label": pa.array(label), "split": pa.array(["train"] * (rows - 60) + ["test"] * 60)}
    path = home / "made-up.parquet"
    pq.write_table(pa.table(columns), path)
    return TrainingDataset(
        id="made-up", service=service.name, rows=rows, features=list(contract.feature_names), excluded={},
        splits={"train": rows - 60, "test": 60}, split=str(service.split), content_hash="", seq=0,
        now=0, view_fingerprint=contract.fingerprint, kind="view", path=str(path),
    )  # fmt: skip


SERVICES = services("assets", project=ROOT)
# A notebook is run in a process of its own, three times.
NAMES = [
    pytest.param(n, marks=[pytest.mark.slow] if isinstance(s.model, Notebook) else [])
    for n, s in sorted(SERVICES.items())
]


@pytest.mark.parametrize("name", NAMES)
def test_no_service_of_this_project_fits_on_what_it_is_judged_on(name, tmp_path):
    service = SERVICES[name]
    no_leak(service, made_up(service, tmp_path), project=ROOT)
