"""Gates of three classes: the field's meaning of each, judged with rows and interval, or refused when declared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, true_positive_rate_difference
from sklearn import metrics as theirs

from tests.models.football import CLASSES, football, football_world, view
from tests.models.judged import bundle, candidate, release_of
from tests.models.worlds import DAY, World, fraud
from windrow import BetterThanGolden, Calibration, Fairness, Gate, Slices
from windrow.errors import DeclarationError, UnknownNameError
from windrow.models.card import card
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.gates import check_calibration, check_gate
from windrow.models.intervals import improvement, interval_of
from windrow.models.metrics import metrics_of
from windrow.models.training import train
from windrow.testing import no_leak
from windrow.testing.leak import replaced

N = 2_000
METRICS = ["auc", "log_loss", "brier", "accuracy"]


def draw(rng: np.random.Generator, rows: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The truth and answers of three classes, of which the last is rare."""
    truth = rng.choice(3, size=rows, p=[0.5, 0.35, 0.15])
    score = np.exp(skill * (truth[:, None] == np.arange(3)) + rng.normal(scale=0.7, size=(rows, 3)))
    return truth.astype(float), score / score.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return football_world(tmp_path_factory.mktemp("football"))


@pytest.fixture(scope="module")
def dataset(world) -> TrainingDataset:
    return build_dataset(football(), world.lake, world.metadata, now=299 * DAY, home=world.home)


def test_a_service_of_three_classes_is_judged_by_every_gate_with_rows_and_interval(world, dataset):
    gates = [
        Gate("log_loss", of_baseline=0.8),
        BetterThanGolden("log_loss", margin=-0.01),
        Slices("league", "accuracy", at_least=0.5, min_rows=10),
        Calibration(at_most=0.4),
        Fairness("league", favourable="home", at_most=0.9, min_rows=10),
        Fairness("league", favourable="away", measure="equal_opportunity", at_most=0.01, min_rows=3),
    ]
    live, made = (
        train(football(gates=declared), dataset, registry=world.registry, metadata=world.metadata)
        for declared in ([], gates)
    )
    found = {gate.name: gate for gate in made.gates}
    assert list(found) == [
        "gate_log_loss", "gate_golden_log_loss", "gate_slices_league_accuracy", "gate_calibration",
        "gate_fairness_league_demographic_parity", "gate_fairness_league_equal_opportunity", "parity", "golden_pairs",
    ]  # fmt: skip
    assert [name for name, gate in found.items() if not gate.passed] == ["gate_fairness_league_equal_opportunity"]
    assert all(gate.low <= gate.value <= gate.high for gate in list(found.values())[:6])
    rows = dataset.splits["test"]
    assert (found["gate_log_loss"].rows, found["gate_calibration"].rows) == (rows, rows)
    assert 10 <= found["gate_slices_league_accuracy"].rows < rows
    assert set(made.evidence["intervals"]) == set(METRICS)
    assert world.registry.live("football") == live  # the one that fails a gate is visible, and not promoted
    assert "brier sums over classes" in card(made)
    assert "equal_opportunity difference of &#x27;away&#x27; by league at most 0.01" in card(made)


def test_a_second_model_of_three_classes_is_compared_with_the_live_one_row_by_row(world, dataset):
    service = football(gates=[BetterThanGolden("auc"), BetterThanGolden("brier", margin=0.01)])
    plain = train(football(gates=[]), dataset, registry=world.registry, metadata=world.metadata)
    assert world.registry.live("football") == plain
    again = train(service, dataset, registry=world.registry, metadata=world.metadata)
    told = {gate.name: (gate.passed, gate.value, gate.rows) for gate in again.gates[:2]}
    rows = dataset.splits["test"]
    assert told == {"gate_golden_auc": (True, 0.0, rows), "gate_golden_brier": (False, 0.0, rows)}


def test_the_curves_of_three_classes_are_in_the_record_of_the_run(world, dataset):
    release = train(football(), dataset, registry=world.registry, metadata=world.metadata)
    (run,) = (run for run in world.metadata.runs("football") if run["release"] == release.id)
    assert set(run["curves"]) == {"roc home", "roc draw", "roc away", "calibration", "confusion"}
    counts, truth = run["curves"]["confusion"], load_split(dataset, view.contract, "test").y
    assert {name: sum(line) for name, line in counts.items()} == {
        name: float((truth == place).sum()) for place, name in enumerate(CLASSES)
    }
    hits = sum(counts[name][place] for place, name in enumerate(CLASSES))
    assert hits / len(truth) == pytest.approx(release.metrics["accuracy"])


def test_the_metrics_of_several_classes_are_those_of_scikit_learn():
    truth, answers = draw(np.random.default_rng(0), 500)
    found = metrics_of("multiclass", truth, answers)
    assert found["auc"] == pytest.approx(theirs.roc_auc_score(truth, answers, multi_class="ovr", average="macro"))
    assert found["log_loss"] == pytest.approx(theirs.log_loss(truth, answers))
    assert found["brier"] == pytest.approx(theirs.brier_score_loss(truth, answers, scale_by_half=False))
    assert found["accuracy"] == pytest.approx(theirs.accuracy_score(truth, answers.argmax(axis=1)))


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_of_several_classes_holds_the_truth_in_95_of_100_samples(metric):
    rng = np.random.default_rng(1)
    whole = metrics_of("multiclass", *draw(rng, 400_000))[metric]
    found = [interval_of(metric, *draw(rng, 400)) for _ in range(400)]
    assert 0.92 <= np.mean([one.low <= whole <= one.high for one in found]) <= 0.98


@pytest.mark.parametrize("metric", METRICS)
def test_the_value_in_an_interval_of_several_classes_is_the_metric(metric):
    truth, answers = draw(np.random.default_rng(3), 200)
    assert interval_of(metric, truth, answers).value == pytest.approx(metrics_of("multiclass", truth, answers)[metric])


def test_rows_without_one_of_the_classes_have_no_auc():
    truth, answers = draw(np.random.default_rng(4), 200)
    kept = truth < 2
    assert interval_of("auc", truth[kept], answers[kept]) is None
    assert "auc" not in metrics_of("multiclass", truth[kept], answers[kept])
    found = check_gate(
        Slices("kind", "auc", at_least=0.1), candidate(truth[kept], answers[kept], kind=["a"] * kept.sum())
    )
    assert (found.passed, found.why) == (False, "auc could not be computed in 'kind=a'")


def test_an_improvement_of_several_classes_is_positive_for_every_metric():
    rng = np.random.default_rng(5)
    truth, before = draw(rng, N)
    after = 0.8 * before + 0.2 * (truth[:, None] == np.arange(3))
    assert all(improvement(metric, truth, before, after).low > 0 for metric in METRICS)


def test_what_is_calibrated_of_several_classes_is_the_one_that_is_named():
    answers = np.tile([0.5, 0.3, 0.2], (400, 1))
    found = check_calibration(Calibration(0.1), np.tile([0.0, 0.0, 0.0, 2.0], 100), answers)
    assert (found.value, found.passed, found.rows) == (0.25, False, 400)  # it says 50 %, and 75 % come true
    assert found.low < 0.25 < found.high
    assert found.why.startswith("top-label expected calibration error is 0.25 on 400 rows (95 % interval ")
    assert check_calibration(Calibration(0.1), np.tile([0.0, 0.0, 1.0, 2.0], 100), answers).value == 0.0


@pytest.mark.parametrize("name", CLASSES)
def test_fairness_of_several_classes_is_that_of_fairlearn_for_the_named_one_against_the_rest(name):
    truth, answers = draw(np.random.default_rng(6), N)
    sex = np.random.default_rng(7).choice(["f", "m"], N)
    answers[:, 0] += 0.2 * (sex == "m")
    made = candidate(truth, answers, sex=sex.tolist(), classes=CLASSES)
    mine, said = truth == CLASSES.index(name), answers.argmax(axis=1) == CLASSES.index(name)
    found = check_gate(Fairness("sex", favourable=name), made)
    assert found.value == pytest.approx(demographic_parity_difference(mine, said, sensitive_features=sex))
    assert found.rows == N
    equal = check_gate(Fairness("sex", favourable=name, measure="equal_opportunity", min_rows=10), made)
    assert equal.value == pytest.approx(true_positive_rate_difference(mine, said, sensitive_features=sex))
    assert equal.rows == mine.sum()


def test_the_favourable_one_of_two_named_classes_is_judged_by_its_name():
    rng, sex = np.random.default_rng(8), ["f", "m"] * 500
    made = candidate(rng.integers(2, size=1000), rng.random(1000), sex=sex, classes=["refused", "admitted"])
    by_name, by_number = (check_gate(Fairness("sex", favourable=which), made) for which in ("refused", 0))
    assert (by_name.value, by_name.low, by_name.rows) == (by_number.value, by_number.low, by_number.rows)


@pytest.mark.parametrize(("task", "kind"), [("classification", "one of 2 classes"), ("regression", "a number")])
def test_a_golden_of_another_kind_of_answer_is_no_measure(task, kind):
    truth, answers = draw(np.random.default_rng(9), 100)
    live = bundle(release_of("score", id="toy-1", number=1, task=task, metrics={"log_loss": 9.0}))
    found = check_gate(BetterThanGolden("log_loss"), candidate(truth, answers, classes=CLASSES, live=live))
    assert (found.passed, found.value) == (False, None)
    assert f"not comparable with toy-1, which answers with {kind} and this one with one of 3 classes" in found.why


REFUSED = [
    (lambda: football(gates=[Fairness("league")]), DeclarationError, r"has 3 classes, and Fairness\(\) does not say which one is good.*Next: name it: Fairness\(favourable='home'\)"),
    (lambda: football(gates=[Fairness("league", favourable="hme")]), UnknownNameError, r"has no class 'hme'.*did you mean 'home'\?"),
    (lambda: football(gates=[Fairness("league", favourable="home", threshold=0.3)]), DeclarationError, r"answers with the most probable one, so Fairness\(threshold=0.3\) changes nothing. Next: leave threshold= out"),
    (lambda: fraud(gates=[Fairness("plan", favourable="home")]), DeclarationError, r"the classes of service 'fraud' have no names.*Next: give 0 or 1, or name them in its label: classes="),
    (lambda: football(gates=[Gate("mae", at_most=1)]), UnknownNameError, r"its label is a class\) has no metric 'mae'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_cannot_be_judged_of_several_classes_is_refused_when_declared(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_replaced_labels_of_several_classes_are_classes_still():
    import pyarrow as pa

    rows = pa.table({"label": [0.0, 1.0, 2.0, 2.0], "split": ["test", "test", "test", "train"]})
    assert replaced(rows, ["label"], ["test"], classes=3)["label"].to_pylist() == [1.0, 2.0, 0.0, 2.0]


def on_every_row(service, dataset):
    rows = [load_split(dataset, view.contract, name) for name in dataset.splits]
    return football_linear().fit(pd.concat([r.X for r in rows]), np.concatenate([r.y for r in rows]))


def football_linear():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), LogisticRegression())


def test_a_leak_of_three_classes_is_found_and_an_honest_trainer_passes(dataset):
    no_leak(football(model=football_linear), dataset)
    with pytest.raises(AssertionError, match=r"looks at rows that it is judged on.*in the test split, .*coef_"):
        no_leak(football(model=football_linear), dataset, fit=on_every_row)


def test_a_search_over_three_classes_leaves_out_folds_of_one_class(dataset):
    from windrow.models.search import with_folds

    class Grid:
        cv = None

        def set_params(self, cv):
            return cv

    learn = load_split(dataset, view.contract, "train")
    late = replace(learn, y=np.where(np.arange(len(learn.y)) < len(learn.y) // 2, 0.0, learn.y))
    assert with_folds(Grid(), football(), learn).get_n_splits() == 5
    assert with_folds(Grid(), football(), late).get_n_splits() == 2
