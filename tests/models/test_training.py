"""Training fits on the training split only, and only what clears its gates goes live."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tests.models.worlds import DAY, HOUR, World, fraud, fraud_world, linear, load, load_world
from windrow import BetterThanGolden, Gate, Notebook, Online, Slices, TimeSplit
from windrow.errors import ModelError
from windrow.features.contract import Lookup
from windrow.models.dataset import TrainingDataset, build_dataset, load_split
from windrow.models.fitting import fit
from windrow.models.golden import seen_rows
from windrow.models.release import Release, decode_release, encode_release
from windrow.models.training import evaluate, train


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    made = fraud_world(tmp_path_factory.mktemp("fraud"))
    made.groups(fraud())
    return made


@pytest.fixture(scope="module")
def dataset(world) -> TrainingDataset:
    return build_dataset(fraud(), world.lake, world.metadata, now=60 * DAY, home=world.home)


@pytest.fixture(scope="module")
def good(dataset, tmp_path_factory):
    """A release that cleared its gate, with the world it is in."""
    service = fraud(online=Online(p99_ms=20, unknown_entity="predict"), gates=[Gate("auc", at_least=0.6)])
    return released(service, dataset, tmp_path_factory.mktemp("good"), at=7)


def released(service, dataset, home, **options) -> tuple[Release, World]:
    other = World(home)
    return train(service, dataset, registry=other.registry, metadata=other.metadata, **options), other


def test_a_release_names_everything_it_was_made_from(dataset, good):
    service, (release, other) = fraud(), good
    assert (release.service, release.number, release.task, release.backend) == ("fraud", 1, "classification", "onnx")
    assert release.contract == service.view.contract
    assert release.view_fingerprint == service.view.fingerprint
    assert release.groups == {"card_profile_v1": service.view.groups[0].fingerprint}
    assert release.sources == ("payments", "customers", "chargebacks")
    assert (release.dataset.id, release.dataset.hash, release.seq) == (dataset.id, dataset.content_hash, dataset.seq)
    assert (release.unknown_entity, release.p99_ms) == ("predict", 20)
    assert release.environment["scikit-learn"].startswith("1.")
    assert set(release.files) == {
        "model.onnx",
        "model.skops",
        "contract.json",
        "golden.json",
        "environment.txt",
        "background.json",
        "card.html",
    }
    assert other.registry.release(release.id) == release


def test_a_release_brings_training_rows_and_the_source_columns_of_its_features(dataset, good):
    from windrow.models.background import FILE, read_background

    release, world = good
    found = read_background(world.registry.load(release.id).file(FILE), where=FILE)
    learned = load_split(dataset, fraud().view.contract, "train").frame
    assert 1 < len(found.rows["amount"]) <= 200
    assert set(found.rows["amount"]) <= set(learned["amount"].tolist())
    assert found.origins == {
        "limit": ["customers.limit"],
        "plan": ["customers.plan"],
        "amount": ["payments.amount"],
        "share": ["customers.limit", "payments.amount"],
    }
    assert found.immutable == []


def test_a_training_reads_each_split_once(world, tmp_path, monkeypatch):
    split = TimeSplit("10d", gap="2d", validation="8d")
    dataset = build_dataset(fraud(split=split), world.lake, world.metadata, now=60 * DAY, home=tmp_path)
    read, asked = pq.read_table, []

    def seen(path, **options):
        asked.append(options["filters"])
        return read(path, **options)

    monkeypatch.setattr(pq, "read_table", seen)
    released(fraud(split=split), dataset, tmp_path)
    assert sorted(asked) == [[("split", "==", name)] for name in ("test", "train", "validation")]


def spoil(train):
    fitted = linear().fit(train.X, train.y)
    train.X["amount"], train.y[:] = 0.0, 1.0
    with pytest.raises(ValueError, match="read-only"):
        train.frame["amount"][:] = 0.0
    return fitted


def test_what_a_trainer_does_to_the_rows_it_was_given_changes_no_metric(dataset, tmp_path):
    release, _ = released(fraud(model=None, train=spoil), dataset, tmp_path / "spoilt")
    clean, _ = released(fraud(), dataset, tmp_path / "clean")
    assert (release.metrics, release.baseline) == (clean.metrics, clean.baseline)
    assert release.evidence["train"] == clean.evidence["train"]


def test_a_candidate_that_clears_its_gates_goes_live_with_the_reason(good):
    release, other = good
    assert other.registry.live("fraud") == release
    deployment = other.metadata.deployments("fraud")[0]
    assert (deployment.at, deployment.reason) == (
        7,
        "all gates cleared: auc is 1 on 60 rows (95 % interval 1 to 1); the baseline's is 0.5",
    )


def test_a_release_that_is_not_to_be_promoted_clears_its_gates_and_leaves_what_is_live(dataset, tmp_path):
    release, other = released(fraud(), dataset, tmp_path, promote=False)
    assert release.passed
    assert other.registry.list("fraud") == [release]
    assert other.registry.live("fraud") is None


def test_the_parts_of_a_composite_key_stay_in_their_order_when_a_release_is_written_and_read(good):
    release, _ = good
    pair = Lookup(
        "pair_v1", "f", {"home": "home", "away": "away"}, {"z": "z", "b": "b"}, {"z": "float64", "b": "float64"}
    )
    made = structs.replace(release, contract=structs.replace(release.contract, lookups=(pair,)))
    (read,) = decode_release(encode_release(made), where="a test").contract.lookups
    assert (read.fields, list(read.columns)) == (("home", "away"), ["z", "b"])


def test_a_candidate_that_fails_a_gate_is_visible_and_leaves_what_is_live(dataset, tmp_path):
    first, other = released(fraud(), dataset, tmp_path)
    second = train(fraud(gates=[Gate("brier", at_most=0.0)]), dataset, registry=other.registry, metadata=other.metadata)
    assert (second.number, second.passed) == (2, False)
    assert second.gates[0].why.endswith("the bar is at most 0")
    assert [r.id for r in other.registry.list("fraud")] == [first.id, second.id]
    assert other.registry.live("fraud") == first


def test_a_candidate_is_compared_with_the_live_release_on_rows_that_neither_was_trained_on(dataset, tmp_path):
    first, other = released(fraud(), dataset, tmp_path)
    service = fraud(gates=[BetterThanGolden("auc"), Slices("card_id", "brier", at_most=1.0, min_rows=5)])
    other.metadata.add_dataset(dataset.id, "fraud", msgspec.to_builtins(dataset))
    second = train(service, dataset, registry=other.registry, metadata=other.metadata)
    golden, slices, parity, pairs = second.gates
    assert (golden.name, golden.value, golden.rows, golden.passed) == ("gate_golden_auc", 0.0, 60, True)
    assert f"over 1 of {first.id}; the bar is" in golden.why
    assert slices.why.startswith("the worst of 6 slices is card_id=")
    assert [(g.name, g.passed) for g in (parity, pairs)] == [("parity", True), ("golden_pairs", True)]
    assert second.evidence["intervals"]["auc"] == {"low": 1.0, "high": 1.0, "rows": 60}


def test_a_live_release_that_is_broken_does_not_keep_its_successor_out(dataset, tmp_path):
    first, other = released(fraud(), dataset, tmp_path)
    (tmp_path / "releases" / first.id / "model.onnx").write_bytes(b"damaged")
    service = fraud(gates=[BetterThanGolden("brier", margin=-0.5)])
    second = train(service, dataset, registry=other.registry, metadata=other.metadata)
    assert "it cannot be loaded here, so decided by the" in second.gates[0].why
    assert other.registry.live("fraud") == second


def test_rows_that_the_live_release_learned_from_are_known_by_their_identity(dataset, good):
    release, other = good
    other.metadata.add_dataset(dataset.id, "fraud", msgspec.to_builtins(dataset))
    contract = fraud().view.contract
    learned, kept = load_split(dataset, contract, "train"), load_split(dataset, contract, "test")
    assert seen_rows(release, learned, other.metadata).all()
    assert not seen_rows(release, kept, other.metadata).any()


def test_a_first_candidate_that_fails_a_gate_leaves_nothing_live(dataset, tmp_path):
    release, other = released(fraud(gates=[Gate("brier", at_most=0.0)]), dataset, tmp_path)
    assert other.registry.release(release.id) == release
    assert other.registry.live("fraud") is None


def test_the_baseline_of_classes_is_the_training_rows_share(dataset):
    made = evaluate(fraud(), dataset, fit(fraud(), dataset).estimator)
    assert set(made["metrics"]) == {"auc", "log_loss", "brier", "accuracy"}
    assert made["baseline"]["auc"] == 0.5
    assert made["metrics"]["auc"] > 0.8


def test_the_baseline_of_numbers_can_be_a_feature(tmp_path):
    world, service = load_world(tmp_path), load(gates=[Gate("mae", of_baseline=10.0)])
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=48 * HOUR, home=tmp_path)
    release = train(service, made, registry=world.registry, metadata=world.metadata)
    test = load_split(made, service.view.contract, "test")
    assert release.task == "regression"
    assert release.baseline["mae"] == pytest.approx(np.abs(test.frame["mw"] - test.y).mean())


def test_a_baseline_that_is_missing_is_compared_on_the_rows_that_have_it(dataset, tmp_path):
    rows = pq.read_table(dataset.path)
    place, test = rows.schema.get_field_index("amount"), pc.equal(rows["split"], "test").to_pylist()
    gone = [
        None if hit and i % 2 else value
        for i, (hit, value) in enumerate(zip(test, rows["amount"].to_pylist(), strict=True))
    ]
    pq.write_table(rows.set_column(place, "amount", pa.array(gone, pa.float32())), tmp_path / "gone.parquet")
    other = msgspec.structs.replace(dataset, path=str(tmp_path / "gone.parquet"))
    service = fraud(baseline="amount")
    made = evaluate(service, other, fit(service, other).estimator)
    assert made["baseline"]["rows"] == 30
    assert "model_auc" in made["baseline"]


def test_a_fitted_estimator_is_judged_and_released_the_same_way(dataset, tmp_path):
    service = fraud(model=Notebook("train_fraud.ipynb"))
    learn = load_split(dataset, service.view.contract, "train")
    release, other = released(service, dataset, tmp_path, estimator=linear().fit(learn.X, learn.y))
    assert release.metrics["auc"] > 0.8
    assert other.registry.live("fraud") == release


def test_a_run_is_recorded_with_parameters_metrics_and_duration(good):
    release, other = good
    run = other.metadata.runs("fraud")[0]
    assert (run["release"], run["metrics"], run["passed"]) == (release.id, release.metrics, True)
    assert run["parameters"]["logisticregression__C"] == "1.0"
    assert run["seconds"] > 0


def test_a_release_says_why_an_earlier_way_to_answer_was_not_taken(dataset, tmp_path):
    service = fraud(model=Notebook("train_fraud.ipynb"))
    learn = load_split(dataset, service.view.contract, "train")

    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline

    numbers = make_column_transformer((StandardScaler(), ["limit", "amount", "share"]))
    model = make_pipeline(numbers, RandomForestClassifier(5, random_state=0)).fit(learn.X, learn.y)
    release, other = released(service, dataset, tmp_path, estimator=model)
    assert release.backend == "treelite"
    assert "rows differently, by up to" in release.backend_reason
    assert other.registry.load(release.id).replay_golden() == 0.0


BAD_TRAINERS = [
    (lambda: None, r"returned None, which is no estimator.*Next: return an unfitted scikit-learn estimator"),
    (lambda: "model", r"returned str, which is no estimator"),
    (
        lambda: DummyClassifier().fit([[0], [1]], [0, 1]),
        r"returned a DummyClassifier that is fitted already.*Next: return it unfitted",
    ),
    (lambda: LogisticRegression, r"returned the class 'LogisticRegression', not an.*Next: return LogisticRegression\("),
    (lambda: Ridge(), r"Ridge is made for regression, but the label of service 'fraud' is classes"),
    (lambda: LinearSVC(), r"LinearSVC gives no probability.*Next: wrap it: CalibratedClassifierCV"),
    (lambda: StandardScaler(), r"returned StandardScaler, which is no estimator"),
    (
        lambda: LogisticRegression(),
        r"cannot be fitted: ValueError: .*could not convert string to float.*columns are 'amount', 'limit', 'plan', 'share'",
    ),
]


@pytest.mark.parametrize(("trainer", "message"), BAD_TRAINERS)
def test_a_trainer_that_does_not_fit_the_view_is_refused(dataset, tmp_path, trainer, message):
    other = World(tmp_path)
    with pytest.raises(ModelError, match=message):
        train(fraud(model=trainer), dataset, registry=other.registry, metadata=other.metadata)
    assert other.registry.list("fraud") == []


def test_a_trainer_that_asks_for_a_wrong_column_is_told_which_there_are(dataset):
    def wrong():
        from sklearn.compose import make_column_transformer
        from sklearn.pipeline import make_pipeline

        return make_pipeline(make_column_transformer((StandardScaler(), ["amout"])), LogisticRegression())

    with pytest.raises(
        ModelError, match=r"cannot be fitted: ValueError: .*amout.*columns are 'amount', 'limit', 'plan', 'share'"
    ):
        fit(fraud(model=wrong), dataset)


def test_a_regressor_for_classes_and_a_classifier_for_numbers_are_refused(tmp_path):
    world, service = load_world(tmp_path), load(model=LogisticRegression)
    world.groups(service)
    made = build_dataset(service, world.lake, world.metadata, now=48 * HOUR, home=tmp_path)
    with pytest.raises(
        ModelError, match="LogisticRegression is made for classification, but the label of service 'load' is numbers"
    ):
        fit(service, made)


BAD_ESTIMATORS = [
    (lambda s: None, r"was given NoneType|trained by the notebook"),
    (
        lambda s: linear(),
        r"Pipeline given to service 'fraud' is not fitted.*Next: call fit\(train\.X, train\.y\) first",
    ),
    (lambda s: LogisticRegression().fit(s.X[["amount"]], s.y), r"fitted on other columns than its view has"),
    (lambda s: linear().fit(s.X, s.y + 1), r"knows the classes \[.*\], not 0 and 1"),
    (lambda s: LinearRegression().fit(s.X[["amount"]], s.y), r"LinearRegression is made for regression"),
]


@pytest.mark.parametrize(("make", "message"), BAD_ESTIMATORS)
def test_a_notebooks_estimator_that_does_not_fit_the_view_is_refused(dataset, tmp_path, make, message):
    service, other = fraud(model=Notebook("train_fraud.ipynb")), World(tmp_path)
    estimator = make(load_split(dataset, service.view.contract, "train"))
    with pytest.raises(ModelError, match=message):
        train(service, dataset, registry=other.registry, metadata=other.metadata, estimator=estimator)


def test_a_dataset_of_an_older_view_is_not_trained_on(dataset, tmp_path):
    other = World(tmp_path)
    old = msgspec.structs.replace(dataset, view_fingerprint="0" * 16)
    with pytest.raises(
        ModelError, match=r"is not of service 'fraud' as it is declared now.*Next: build fraud/training_dataset again"
    ):
        train(fraud(), old, registry=other.registry, metadata=other.metadata)


def test_one_class_in_the_training_split_is_an_error(dataset, tmp_path):
    rows = pq.read_table(dataset.path)
    flat = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array([0.0] * rows.num_rows))
    pq.write_table(flat, tmp_path / "flat.parquet")
    with pytest.raises(ModelError, match="every row of the training split of service 'fraud' has the label 0"):
        fit(fraud(), msgspec.structs.replace(dataset, path=str(tmp_path / "flat.parquet")))
