"""The bugs that were made in training and that nobody noticed, each told by windrow's default path.

The others, and what this is about, stand in `test_seven_bugs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.laws import lookups
from tests.models.worlds import DAY, World
from windrow import Entity, FeatureView, Label, PredictionService, RandomSplit, Source, feature_group, on_demand
from windrow.errors import DataError, DeclarationError, ModelError, NotFoundError, UnknownNameError
from windrow.features.join import view_frame
from windrow.models.claims import check_claims
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.dataset_ids import dataset_with
from windrow.models.fitting import fit, unfitted
from windrow.models.release import Release
from windrow.models.training import evaluate, train
from windrow.stores.engine import engine
from windrow.testing import features_of, no_look_ahead, times

APPLICATION = {"loan_id": "int64", "amount": "float64"}
applications = Source("applications", id="loan_id", event_time="ts", columns=APPLICATION)
repaid = Source("repaid", event_time="ts", columns={"loan_id": "int64"})
view = FeatureView("loans", spine=applications, features=[applications.amount])

EVERYTHING = np.array([[10.0], [20.0], [900.0]])  # the test rows among them


def loans(model: Any) -> PredictionService:
    label = Label.joined(repaid, on="loan_id", matures_after="1d", absent=0)
    return PredictionService("loans", view, label, model=model, split=RandomSplit(0.5))


def built(home: Path, service: PredictionService) -> tuple[World, TrainingDataset]:
    """Forty loans of 0 to 39 EUR, of which the greater half is repaid."""
    world, ids = World(home), list(range(40))
    world.add(applications, loan_id=ids, amount=[float(n) for n in ids], ts=[DAY] * 40)
    world.add(repaid, loan_id=ids[20:], ts=[2 * DAY] * 20)
    return world, build_dataset(service, world.lake, world.metadata, now=10 * DAY, home=home)


# --- churn: a model's version where a training dataset's version belongs ---------------------------------------------


def trained(home: Path) -> tuple[World, Release]:
    service = loans(LogisticRegression)
    world, dataset = built(home, service)
    return world, train(service, dataset, registry=world.registry, metadata=world.metadata, estimator=fitted(dataset))


def fitted(dataset: TrainingDataset) -> Any:
    learn = load_split(dataset, view.contract, "train")
    return LogisticRegression().fit(learn.X, learn.y)


def test_churn_the_id_of_a_release_is_no_id_of_a_training_dataset(tmp_path: Path) -> None:
    world, release = trained(tmp_path)
    with pytest.raises(DataError, match="is a release of service 'loans', and no training dataset.*Next: give id='"):
        dataset_with(world.metadata, "loans", release.id)
    with pytest.raises(UnknownNameError, match="training dataset '1'"):  # a bare number could be of either
        dataset_with(world.metadata, "loans", "1")
    assert dataset_with(world.metadata, "loans", release.dataset.id).id == release.dataset.id


def test_churn_the_id_of_a_training_dataset_is_no_id_of_a_release(tmp_path: Path) -> None:
    world, release = trained(tmp_path)
    for ask in (world.registry.release, world.registry.load):
        with pytest.raises(NotFoundError, match=release.dataset.id):
            ask(release.dataset.id)
    assert world.registry.release(release.id).dataset.id == release.dataset.id


# --- loans, the first: a statistic of all rows, taken before the split -----------------------------------------------

applicant = Entity("applicant", applicant_id="int64")
incomes = Source("incomes", event_time="ts", columns={"applicant_id": "int64", "income": "float64", "term": "string"})
EARNED = [{"applicant_id": i % 2, "income": float(10 * i), "term": "36", "ts": f"2026-01-0{1 + i}"} for i in range(6)]


def test_loans_a_statistic_of_all_rows_in_a_feature_reads_the_future() -> None:
    @feature_group(applicant)
    def standing(incomes):
        return incomes.select("applicant_id", above=incomes.income - incomes.income.mean())

    with pytest.raises(AssertionError, match="'above' of 'standing' reads the future"):
        no_look_ahead(standing, incomes=EARNED)


def test_loans_a_statistic_of_what_was_before_is_right() -> None:
    @feature_group(applicant)
    def standing(incomes):
        so_far = ibis.cumulative_window(group_by=incomes.applicant_id, order_by=incomes.ts)
        return incomes.select("applicant_id", above=incomes.income - incomes.income.mean().over(so_far))

    no_look_ahead(standing, incomes=EARNED)


def test_loans_a_statistic_of_all_rows_in_an_on_demand_function_is_refused() -> None:
    with pytest.raises(DeclarationError, match="'rank' gives 2 of 2 rows another value.*take no statistic over the"):
        looked_up(lookups.rank, "float64")


def test_loans_a_model_that_has_seen_all_rows_is_refused_where_it_is_made() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.raises(ModelError, match="fitted already.*Next: return it unfitted: windrow fits it, on the training"):
        unfitted(loans(lambda: model.fit(EVERYTHING, [0, 1, 1])))


def test_loans_a_scaler_that_has_seen_all_rows_learns_again_from_the_training_split_only(tmp_path: Path) -> None:
    service = loans(lambda: make_pipeline(StandardScaler().fit(EVERYTHING), LogisticRegression()))
    _, dataset = built(tmp_path, service)
    made = fit(service, dataset)
    scaler, learn = made.estimator[0], load_split(dataset, view.contract, "train")
    assert (scaler.n_samples_seen_, scaler.mean_.tolist()) == (20, pytest.approx([float(learn.X["amount"].mean())]))


# --- loans, the second: a look-up by position instead of by key ------------------------------------------------------


def looked_up(function: Any, dtype: str = "string") -> list[Any]:
    """What a view says of four applications through an on-demand function of their postcode."""
    asked = Source("asked", id="loan_id", event_time="ts", columns={"loan_id": "int64", "postcode": "string"})
    feature = on_demand(function, dtype, name="region", postcode=asked.postcode)
    contract = FeatureView("loans", spine=asked, features=[feature]).contract
    rows = {"loan_id": [1, 2, 3, 4], "postcode": ["20", "10", "80", "10"], "event_time": times(*["2026-01-01"] * 4)}
    made = view_frame(engine(), contract, pa.table(rows), {}, functions={function.__name__: function})
    found: list[Any] = made["region"].to_pylist()
    return found


def test_loans_a_look_up_by_position_is_refused() -> None:
    with pytest.raises(
        DeclarationError,
        match=r"'by_position' gives 2 of 2 rows another value when they are computed without the others.*look up by key",
    ):
        looked_up(lookups.by_position)


def test_loans_a_look_up_by_key_is_right() -> None:
    assert looked_up(lookups.by_key) == ["north", "capital", "south", "capital"]


# --- loans, the third: an "accuracy" that is an AUC ------------------------------------------------------------------


class Ranks(LogisticRegression):
    """Orders all loans rightly, and calls none of them good."""

    def predict_proba(self, X):
        return np.column_stack([1 - np.asarray(X)[:, 0] / 1000, np.asarray(X)[:, 0] / 1000])


def test_loans_an_accuracy_that_is_an_auc_is_refused_by_its_name(tmp_path: Path) -> None:
    service = loans(LogisticRegression)
    _, dataset = built(tmp_path, service)
    learn, test = (load_split(dataset, view.contract, split) for split in ("train", "test"))
    model = Ranks().fit(learn.X, learn.y)
    measured = evaluate(service, dataset, model)["metrics"]
    assert measured["auc"] == 1.0
    assert measured["accuracy"] == pytest.approx(1 - test.y.mean())
    reported = roc_auc_score(test.y, model.predict_proba(test.X)[:, 1])
    with pytest.raises(ModelError, match="reports accuracy 1, but on the test split accuracy is 0.*1 is its auc. Next"):
        check_claims(service, dataset, model, {"accuracy": reported})
    check_claims(service, dataset, model, {"auc": reported, "accuracy": measured["accuracy"], "rows": 40})


# --- loans, the fourth: a text compared with a number ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("long", "said"),
    [
        (lambda t: t.term == 36, "'long' cannot be built: .*term:string and Literal.36.:int8 are not comparable"),
        (lambda t: t.income == "36", "income:float64 and Literal.36.:string are not comparable"),
        (lambda t: t.term.isin([36, 60]), "looks for a number in 'term', which is a string: nothing will ever"),
        (lambda t: t.income.isin(["36"]), "looks for a text in 'income', which is float64: nothing will ever"),
    ],
)
def test_loans_a_text_compared_with_a_number_is_refused_in_a_group(long: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):

        @feature_group(applicant, name="long")
        def term(incomes):
            return incomes.select("applicant_id", long=long(incomes))


def test_loans_a_text_compared_with_a_text_is_right() -> None:
    @feature_group(applicant)
    def term(incomes):
        return incomes.select("applicant_id", long=incomes.term == "36")

    assert {row["long"] for row in features_of(term, incomes=EARNED)} == {True}


def test_loans_a_text_compared_with_a_number_is_refused_in_an_on_demand_function() -> None:
    with pytest.raises(DeclarationError, match=r"'compared' fails.*a text is compared with the number 10"):
        looked_up(lookups.compared)
