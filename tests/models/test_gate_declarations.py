"""A gate that cannot be judged is refused when it is declared, with what exists."""

from __future__ import annotations

import pytest

from tests.models.worlds import fraud, load
from windrow import BetterThanGolden, Calibration, Fairness, Gate, Latency, Online, Slices, Waiver
from windrow.errors import DeclarationError
from windrow.models.gate import gate_names

REFUSED = [
    (lambda: Slices("plan", "auc"), r"Slices\('auc'\) has no bar.*give at_least or at_most"),
    (lambda: Slices([], "auc", at_least=0.5), r"Slices\(by=\[\]\) names no column.*such as by=\"region\""),
    (lambda: Slices("plan", "acc", at_least=0.5), "Slices.. has no metric 'acc'"),
    (lambda: Slices("plan", "auc", at_least=0.5, min_rows=0), r"Slices\(min_rows=0\) is no number of rows"),
    (lambda: BetterThanGolden("auc", confidence=95), r"BetterThanGolden\(confidence=95\) is not between 0 and 1"),
    (lambda: Calibration(at_most=5), r"Calibration\(at_most=5\) is not between 0 and 1"),
    (lambda: Calibration(0.1, bins=1), r"Calibration\(bins=1\) is no number of bins.*give 2 to 100"),
    (lambda: Fairness("sex", measure="parity"), "Fairness.. has no measure 'parity'.*'demographic_parity'"),
    (lambda: Fairness("sex", waiver="the boss said so"), r"is no Waiver. Next: write Waiver\("),
    (lambda: Fairness("sex", favourable=2), r"Fairness\(favourable=2\) is no class"),
    (lambda: Waiver(" ", until="2030-01-01"), "a Waiver has no reason. Next: say who decided it and why"),
    (lambda: Waiver("the board", until="next year"), r"Waiver\(until='next year'\) is no time.*such as \"2030-03-31\""),
    (
        lambda: Gate("auc", at_least=float("nan")),
        r"Gate\(at_least=nan\) is no bar. Next: give a number, such as at_least=0.1",
    ),
    (lambda: Gate("auc", at_least="0.7"), r"Gate\(at_least='0.7'\) is no bar"),
    (lambda: Gate(None, at_least=0.7), r"the metric of Gate\(\) is None. Next: write \"auc\""),
    (lambda: Gate("mae", at_most=-1), r"can never be cleared. mae is between 0 and inf"),
    (lambda: Gate("auc", at_least=1.5), r"can never be cleared. auc is between 0 and 1"),
    (lambda: Gate("mae", at_least=3, at_most=1), "can never be cleared"),
    (lambda: Gate("mae", of_baseline=-1), r"Gate\(of_baseline=-1\) is no share"),
    (lambda: Gate("auc", of_baseline=1.1), r"and more is better.*'brier'.*Next: write Gate\('auc', at_least=...\)"),
    (lambda: Slices("plan", "auc", at_least=float("nan")), r"Slices\(at_least=nan\) is no bar"),
    (lambda: Slices(3, "auc", at_least=0.5), r"Slices\(by=3\) names no column"),
    (lambda: Fairness(None), r"Fairness\(by=None\) names no column"),
    (lambda: Fairness(""), r"Fairness\(by=''\) names no column"),
    (lambda: BetterThanGolden("auc", margin=float("nan")), r"BetterThanGolden\(margin=nan\) is no bar"),
    (lambda: Latency(p99_ms=0), r"Latency\(p99_ms=0\) is no latency budget"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_a_gate_that_makes_no_sense_is_refused_when_it_is_made(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


IN_A_SERVICE = [
    (lambda: fraud(gates=[Fairness("pln")]), r"Fairness: a dataset row of service 'fraud' has no column 'pln'.*did you mean 'plan'\?"),
    (lambda: fraud(gates=[Slices(["plan", "card"], "auc", at_least=0.5)]), r"has no column 'card'.*'card_id'.*did you mean"),
    (lambda: load(gates=[BetterThanGolden("auc")]), r"service 'load' \(its label is a number\) has no metric 'auc'"),
    (lambda: load(gates=[Calibration(0.1)]), "service 'load' predicts a number, and Calibration judges classes"),
    (lambda: load(gates=[Fairness("meter")]), "service 'load' predicts a number, and Fairness judges classes"),
    (lambda: load(gates=[Latency()]), r"service 'load' is not online.*write Latency\(p99_ms=20\)"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), IN_A_SERVICE)
def test_a_gate_that_does_not_fit_its_service_is_refused_when_that_is_declared(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


def test_a_column_of_the_spine_that_no_feature_uses_can_be_judged_by():
    assert fraud(gates=[Fairness("card_id")]).gates[0].by == ("card_id",)


def test_a_declaration_is_part_of_what_diff_compares():
    service = fraud(
        gates=[Fairness("plan", waiver=Waiver("the board", until="2030-01-01")), Latency()], online=Online()
    )
    described = service.describe()["gates"]
    assert described[0]["waiver"] == {"reason": "the board", "until": "2030-01-01"}
    assert described[1] == {"kind": "Latency", "p99_ms": None}


def test_every_gate_has_a_check_of_its_own_name():
    gates = [Gate("auc", at_least=0.5), BetterThanGolden("auc"), Fairness("a"), Fairness(["a", "b"]), Fairness("a")]
    assert gate_names(gates) == [
        "gate_auc",
        "gate_golden_auc",
        "gate_fairness_a_demographic_parity",
        "gate_fairness_a_b_demographic_parity",
        "gate_fairness_a_demographic_parity_2",
    ]
