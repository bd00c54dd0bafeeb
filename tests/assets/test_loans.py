"""The loans service: what is true of its simulator, and that the unfair model cannot go live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from assets.loans import on_demand as od
from assets.loans import simulate
from assets.loans.features import applicant_record
from assets.loans.service import loans
from assets.loans.train import pipeline, reweighed
from tests.assets.made import Made, make
from tests.models.worlds import DAY
from windrow.models.dataset import Split
from windrow.models.registry import Registry
from windrow.models.release import Release
from windrow.models.training import train
from windrow.orchestrate.resources import Stores
from windrow.orchestrate.run import run_service
from windrow.settings import Settings
from windrow.testing import no_look_ahead, partition_invariant

WORDS, PROXY = ("purpose", "region"), ("gap_months",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(loans, tmp_path_factory.mktemp("loans"))


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    rows = simulate.applied()
    return {**rows, "risk": simulate.risk(rows)}


def sex(rows: Split) -> Any:
    return np.array(rows.rows["sex"].to_pylist())


def risk_of(rows: Split, truth: dict[str, Any]) -> Any:
    return truth["risk"][np.array(rows.rows["loan_id"].to_pylist()) - 1]


def naive(made: Made) -> Any:
    return pipeline(words=WORDS).fit(made.train.X, made.train.y)


def mended(made: Made) -> Any:
    return pipeline(words=WORDS, without=PROXY).fit(made.train.X, made.train.y)


def weighed(made: Made) -> Any:
    weights = reweighed(sex(made.train), made.train.y)
    return pipeline(words=WORDS).fit(made.train.X, made.train.y, histgradientboostingclassifier__sample_weight=weights)


def released(made: Made, estimator: Any, home: Path) -> tuple[Release, Registry]:
    registry = Registry(made.world.metadata, home / "releases")
    return train(loans, made.dataset, registry=registry, metadata=made.world.metadata, estimator=estimator), registry


# --- the truth ------------------------------------------------------------------------------------------------------


def far(happened: Any, chance: Any) -> float:
    """How many deviations of chance lie between what happened and what was to be expected."""
    return float(abs(happened.sum() - chance.sum()) / np.sqrt((chance * (1 - chance)).sum()))


def test_men_and_later_women_default_as_often_as_their_risk_says(truth: dict[str, Any]) -> None:
    women, early = truth["sex"] == "F", truth["applied_at"] < simulate.CALLED_UNTIL
    for group in (~women & early, ~women & ~early, women & ~early):
        assert far(~truth["repaid"][group], truth["risk"][group]) < 3


def test_of_what_early_women_would_have_repaid_the_planted_share_was_called_in(truth: dict[str, Any]) -> None:
    unfair = (truth["sex"] == "F") & (truth["applied_at"] < simulate.CALLED_UNTIL)
    kept = (1 - truth["risk"][unfair]) * (1 - simulate.CALLED)
    assert far(truth["repaid"][unfair], kept) < 3
    assert far(truth["repaid"][unfair], 1 - truth["risk"][unfair]) > 10


def test_a_gap_tells_sex_and_nothing_of_the_risk(truth: dict[str, Any]) -> None:
    gap, women = truth["gap_months"] > 0, truth["sex"] == "F"
    assert (gap[women].mean(), gap[~women].mean()) == pytest.approx((0.75, 0.05), abs=0.02)
    assert abs(np.corrcoef(gap, truth["risk"])[0, 1]) < 0.03
    fair = truth["applied_at"] >= simulate.CALLED_UNTIL
    assert far(~truth["repaid"][fair & gap], truth["risk"][fair & gap]) < 3


def test_no_loan_settles_after_its_term(truth: dict[str, Any]) -> None:
    days = (truth["settled_at"] - truth["applied_at"]) / np.timedelta64(1, "D")
    assert (days <= 30 * truth["term_months"]).all()
    assert (days[truth["repaid"]] == 30 * truth["term_months"][truth["repaid"]]).all()


# --- the features ---------------------------------------------------------------------------------------------------


def test_a_region_is_looked_up_by_postcode_in_whatever_order_they_come() -> None:
    codes = np.array(["20099", "10115", "99999", "80331", "(missing)"], dtype=object)
    assert od.region(codes).tolist() == ["north", "capital", "elsewhere", "south", "elsewhere"]
    assert od.region(codes[::-1]).tolist() == ["elsewhere", "south", "elsewhere", "capital", "north"]


def test_without_an_income_the_share_of_the_instalment_is_missing() -> None:
    made = od.instalment_share(np.array([1200.0] * 3), np.array([12.0] * 3), np.array([12_000.0, 0.0, np.nan]))
    np.testing.assert_array_equal(made, [0.1, np.nan, np.nan])


def test_the_record_of_an_applicant_reads_no_future_and_no_other_applicant() -> None:
    names = ("income", "debt", "late_payments", "employed_years", "gap_months")
    rows = [
        {**dict.fromkeys(names, 1 + 7 * day), "applicant_id": who, "valid_from": f"2026-01-0{day}", "entered_at": f"2026-01-0{day + 3}"}
        for day, who in enumerate([1, 2, 1, 2, 1], start=1)
    ]  # fmt: skip
    no_look_ahead(applicant_record, applicants=rows)
    partition_invariant(applicant_record, applicants=rows)


def test_each_application_saw_the_record_that_was_entered_by_then(made: Made, truth: dict[str, Any]) -> None:
    place = np.array(made.test.rows["loan_id"].to_pylist()) - 1
    for name in ("income", "late_payments", "employed_years", "gap_months"):
        np.testing.assert_allclose(made.test.X[name], truth[name][place], rtol=1e-6, err_msg=name)


def test_sex_is_recorded_and_neither_a_feature_nor_asked_for() -> None:
    contract = loans.view.contract
    assert "sex" not in contract.feature_names
    assert [field.name for field in contract.request] == [
        "applicant_id", "amount", "term_months", "rate", "purpose", "postcode",
    ]  # fmt: skip


# --- the split ------------------------------------------------------------------------------------------------------


def test_no_loan_is_learned_from_that_was_settled_after_the_first_judged_application(made: Made) -> None:
    learned, judged = (part.rows["event_time"].cast("int64").to_numpy() for part in (made.train, made.test))
    assert learned.max() + 540 * DAY < judged.min()
    assert made.dataset.excluded["immature"] > 1000  # not over yet, and so neither repaid nor not


# --- fairness -------------------------------------------------------------------------------------------------------


def test_the_naive_model_fails_both_fairness_gates_and_does_not_go_live(made: Made, tmp_path: Path) -> None:
    release, registry = released(made, naive(made), tmp_path)
    gates = {gate.metric: gate for gate in release.gates}
    assert [name for name, gate in gates.items() if not gate.passed] == ["demographic_parity", "equal_opportunity"]
    assert gates["demographic_parity"].value == pytest.approx(0.32, abs=0.05)
    assert "the bar is at most 0.1: sex=M 0.755 of 758, sex=F 0.434 of 714" in gates["demographic_parity"].why
    assert registry.live("loans") is None


@pytest.mark.parametrize("mend", [mended, weighed])
def test_without_the_proxy_or_reweighed_it_passes_them_and_goes_live(made: Made, mend: Any, tmp_path: Path) -> None:
    release, registry = released(made, mend(made), tmp_path)
    gates = {gate.metric: gate for gate in release.gates}
    assert gates["demographic_parity"].value == pytest.approx(0.0, abs=0.05)
    assert gates["equal_opportunity"].value == pytest.approx(0.0, abs=0.09)
    live = registry.live("loans")
    assert live is not None
    assert live.id == release.id


def test_under_the_weights_sex_and_outcome_are_independent(made: Made) -> None:
    weights, women = reweighed(sex(made.train), made.train.y), sex(made.train) == "F"
    shares = [np.average(made.train.y[one], weights=weights[one]) for one in (women, ~women)]
    assert shares == pytest.approx([made.train.y.mean()] * 2)
    assert made.train.y[women].mean() < made.train.y[~women].mean() - 0.2


def test_the_fair_model_comes_nearer_to_what_is_attainable_than_the_naive_one(
    made: Made, truth: dict[str, Any]
) -> None:
    """The AUC of the true risk is what the best of all models would reach on these rows."""
    attainable = roc_auc_score(made.test.y, -risk_of(made.test, truth))
    reached = {
        name: roc_auc_score(made.test.y, fit(made).predict_proba(made.test.X)[:, 1])
        for name, fit in (("naive", naive), ("mended", mended))
    }
    assert attainable == pytest.approx(0.81, abs=0.02)
    assert attainable - 0.05 < reached["mended"] < attainable
    assert reached["naive"] < reached["mended"] - 0.02


# --- the whole way --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_notebook_is_the_model_and_releases_the_fair_one(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    settings = Settings.read({"WINDROW_HOME": str(tmp_path), "WINDROW_PROJECT": str(root)})
    select = ["sources/*", "features/*", "loans/training_dataset", "loans/model"]
    facts = run_service("loans", settings, select=select).step("loans/model").facts
    assert facts["naive_parity"] > 0.2 > 0.1 > facts["mended_parity"]
    live = Registry(Stores(settings).metadata, settings.folder("releases")).live("loans")
    assert live is not None
    assert {"auc", "demographic_parity", "equal_opportunity"} <= {gate.metric for gate in live.gates if gate.passed}
    assert live.metrics["auc"] > facts["naive_auc"] + 0.02
