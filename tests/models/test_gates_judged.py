"""What gates say of candidates whose faults are known: value, bar, sample size and interval, every time."""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference, true_positive_rate_difference

from tests.models.judged import PROOF, bundle, candidate, release_of
from windrow import BetterThanGolden, Calibration, Fairness, Gate, Latency, Slices, Waiver
from windrow.clock import parse_time
from windrow.models.gates import check_calibration, check_gate, check_golden_pairs, check_parity

N = 2_000


def world(seed: int = 0) -> dict[str, np.ndarray]:
    """Scores that favour men by the same merit; `old` people are few."""
    rng = np.random.default_rng(seed)
    sex, old = rng.choice(["f", "m"], N), rng.random(N) < 0.04
    truth = (rng.random(N) < 0.4).astype(float)
    score = np.clip(0.25 + 0.3 * truth + 0.25 * (sex == "m") + rng.normal(scale=0.1, size=N), 0, 1)
    return {"sex": sex, "age": np.where(old, "old", "young"), "truth": truth, "score": score.astype(np.float32)}


def judge(gate, seed: int = 0, **options):
    made = world(seed)
    columns = {name: list(made[name]) for name in ("sex", "age")}
    return check_gate(gate, candidate(made["truth"], made["score"], **columns, **options))


def test_demographic_parity_is_that_of_fairlearn_and_a_proxy_is_seen():
    made, found = world(), judge(Fairness("sex", at_most=0.1))
    theirs = demographic_parity_difference(made["truth"], made["score"] > 0.5, sensitive_features=made["sex"])
    assert (found.passed, found.rows) == (False, N)
    assert found.value == pytest.approx(theirs)
    assert found.low < theirs < found.high
    assert found.why.startswith(
        f"demographic_parity difference is {theirs:.6g} on 2,000 rows (95 % interval {found.low:.4g} to {found.high:.4g}); "
        "the bar is at most 0.1: sex=m "
    )


def test_equal_opportunity_counts_those_who_had_it_coming():
    made, found = world(), judge(Fairness("sex", measure="equal_opportunity"))
    theirs = true_positive_rate_difference(made["truth"], made["score"] > 0.5, sensitive_features=made["sex"])
    assert found.value == pytest.approx(theirs)
    assert found.rows == int(made["truth"].sum())


def test_a_favourable_answer_may_be_class_0():
    made = world()
    found = judge(Fairness("sex", measure="equal_opportunity", favourable=0))
    rates = equalized_odds_difference(1 - made["truth"], made["score"] <= 0.5, sensitive_features=made["sex"])
    assert found.rows == int((made["truth"] == 0).sum())
    assert found.value <= rates + 1e-12
    assert found.value > 0.1


def test_groups_of_several_attributes_are_judged_and_small_ones_are_named_only():
    found = judge(Fairness(["sex", "age"], at_most=0.9))
    assert found.passed
    assert "not judged, under 100 rows: 'sex=f, age=old (" in found.why


def test_nobody_to_compare_with_is_no_fairness():
    found = judge(Fairness("age", min_rows=1_000))
    assert (found.passed, found.value) == (False, None)
    assert "cannot be judged: 1 group with 1000 rows or more, and two are compared" in found.why


def test_a_fair_model_passes_and_its_interval_starts_at_nothing():
    made = world()
    fair = np.where(np.arange(N) % 2, 0.9, 0.1).astype(np.float32)
    found = check_gate(Fairness("sex"), candidate(made["truth"], fair, sex=list(made["sex"])))
    assert (found.passed, found.low) == (True, 0.0)


def test_a_waiver_counts_until_it_ends_and_is_seen():
    found = judge(Fairness("sex", waiver=Waiver("the risk board", until="2030-01-01")))
    end = parse_time("2030-01-01")
    assert (found.passed, found.verdict(end - 1), found.verdict(end)) == (False, "waived", "failed")
    assert found.waived.reason == "the risk board"


def test_a_waiver_that_is_not_needed_is_not_told():
    assert judge(Fairness("sex", at_most=0.99, waiver=Waiver("the risk board", until="2030-01-01"))).waived is None


def test_a_column_of_people_without_a_value_is_a_group_of_its_own():
    score = np.tile([0.2, 0.8], 200)
    found = check_gate(Fairness("sex", at_most=0.9), candidate(np.tile([0, 1], 200), score, sex=["f", None] * 200))
    assert "sex=(missing) 1 of 200" in found.why


def test_the_worst_slice_is_judged_with_its_own_interval():
    rng = np.random.default_rng(0)
    truth = np.tile([0.0, 1.0], 300)
    plan = np.repeat(["good", "bad"], 300)
    score = np.where(plan == "good", 0.2 + 0.6 * truth, rng.random(600))
    made = candidate(truth, score, plan=list(plan))
    found = check_gate(Slices("plan", "auc", at_least=0.9), made)
    assert (found.passed, found.rows) == (False, 300)
    assert found.low < found.value < found.high < 0.9
    assert found.why.startswith("the worst of 2 slices is plan=bad: auc is ")
    assert check_gate(Gate("auc", at_least=0.7), made).passed  # all rows together hide it


def test_a_slice_by_a_feature_of_the_view():
    frame = {"flag": np.tile(np.float32([0.0, 1.0]), 100)}
    found = check_gate(Slices("flag", "brier", at_most=0.5), candidate(np.ones(200), np.full(200, 0.9), features=frame))
    assert (found.passed, found.why[:34]) == (True, "the worst of 2 slices is flag=0: b")


def test_slices_that_are_all_too_small_do_not_pass():
    found = check_gate(
        Slices("plan", "brier", at_most=0.5), candidate(np.ones(8), np.full(8, 0.9), plan=["a", "b"] * 4)
    )
    assert (found.passed, found.why) == (
        False,
        "no slice has enough rows; not judged, under 100 rows: 'plan=a (4)', 'plan=b (4)'",
    )


def test_a_slice_of_one_class_has_no_auc_and_does_not_pass():
    made = candidate(np.repeat([0.0, 1.0], 100), np.full(200, 0.5), plan=["a", "b"] * 50 + ["b"] * 100)
    found = check_gate(Slices("plan", "auc", at_least=0.1, min_rows=10), made)
    assert (found.passed, found.why) == (False, "auc could not be computed in 'plan=a'")


def test_overconfidence_is_a_calibration_error_with_its_interval():
    rng = np.random.default_rng(0)
    truth = (rng.random(N) < 0.5).astype(float)
    found = check_calibration(Calibration(0.05), truth, np.full(N, 0.7))
    assert found.value == pytest.approx(abs(truth.mean() - 0.7))
    assert (found.passed, found.rows) == (False, N)
    assert found.low < 0.2 < found.high
    assert check_calibration(Calibration(0.05), truth, np.full(N, 0.5)).passed


def test_one_row_is_timed_and_told_in_milliseconds():
    made = candidate([0, 1], [0.2, 0.8])
    found = check_gate(Latency(), made)
    assert (found.passed, found.rows, found.bar) == (True, 1000, "at most 50 ms")
    assert 0 < found.low <= found.value <= found.high < 50
    assert not check_gate(Latency(p99_ms=1e-6), made).passed


def live(*features: str, **facts):
    return bundle(release_of("score", *features, id="toy-1", number=1, metrics={"auc": 0.8}, **facts))


class Worse:
    """The live model: right on the first half of the rows only."""

    def predict(self, frame):
        score = np.asarray(frame["score"], dtype=float)
        return np.where(np.arange(len(score)) % 2, score, 0.5)


def test_without_a_golden_every_candidate_passes():
    found = judge(BetterThanGolden("auc"))
    assert (found.passed, found.why) == (True, "no golden yet: nothing is live to be compared with")


def test_a_better_candidate_passes_by_the_rows_that_both_answer():
    golden = live()
    golden._model = Worse()
    found = judge(BetterThanGolden("auc"), live=golden)
    assert (found.passed, found.rows) == (True, N)
    assert 0 < found.low < found.value < found.high
    assert "of toy-1; the bar is auc no worse than the live release's, with 95 % confidence" in found.why


def test_the_same_model_again_is_no_worse_and_not_better():
    assert judge(BetterThanGolden("brier"), live=live()).passed
    found = judge(BetterThanGolden("brier", margin=0.001), live=live())
    assert (found.passed, found.value) == (False, 0.0)


def test_a_candidate_that_may_be_worse_by_chance_does_not_pass():
    made, rng = world(), np.random.default_rng(1)
    other = {"noise": rng.normal(scale=0.02, size=N).astype(np.float32)}

    class Noisy:
        def predict(self, frame):
            return np.asarray(frame["score"] + frame["noise"], dtype=float)

    golden = live("noise")
    golden._model = Noisy()
    both = candidate(made["truth"], made["score"], features=other, live=golden)
    sure, allowed = (check_gate(BetterThanGolden("auc", margin=m), both) for m in (0.01, -0.01))
    assert (sure.passed, allowed.passed) == (False, True)
    assert sure.low < sure.value < sure.high


def test_rows_that_the_golden_was_trained_on_are_left_out():
    seen = np.arange(N) < 500
    found = judge(BetterThanGolden("brier"), live=live(), seen=seen)
    assert found.rows == 1500
    assert "(left out: 500 rows that it was trained on)" in found.why


def test_a_golden_of_other_features_is_compared_by_its_recorded_metric_and_that_is_said():
    found = judge(BetterThanGolden("auc"), live=live("gone"))
    assert found.why.startswith(
        "not comparable row by row with toy-1: its view has other features ('gone'), so decided by the 0.8 recorded with it"
    )
    assert found.passed is (found.low >= 0)


def test_a_golden_of_another_definition_of_a_group_is_not_comparable():
    found = judge(BetterThanGolden("auc"), live=live(groups={"card_v1": "abc"}))
    assert "its feature groups are defined differently ('card_v1')" in found.why


def test_parity_and_golden_pairs_are_gates_of_every_release():
    made = candidate([0, 1], [0.2, 0.8])
    assert (check_parity(made).passed, check_parity(made).rows) == (True, 100)
    assert (check_golden_pairs(made).passed, check_golden_pairs(made).rows) == (True, 1)


def test_a_release_that_is_not_as_the_fitted_model_fails_parity():
    worse = {**PROOF, "max_difference": {"held out": 1e-3}}
    made = candidate([0, 1], [0.2, 0.8])
    made = type(made)(bundle(release_of("score", parity=worse)), made.test)
    assert (check_parity(made).passed, check_parity(made).value) == (False, 1e-3)


def test_golden_pairs_that_are_answered_differently_fail():
    made = candidate([0, 1], [0.2, 0.8])
    made.bundle.golden.outputs[0] = 0.6
    assert not check_golden_pairs(made).passed
