"""The simulators' known truth, so that a model's figures can be believed."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from assets.churn import simulate as churn
from assets.electricity import simulate as electricity


def test_demand_drops_by_the_planted_400_mw_at_the_regime_change() -> None:
    rows = electricity.demand()
    heating = 40 * np.abs(electricity.weather()["temperature"] - 18)
    rest, month = rows["mw"] - heating, np.timedelta64(28, "D")
    before = rest[(rows["ts"] >= electricity.REGIME - month) & (rows["ts"] < electricity.REGIME)]
    after = rest[(rows["ts"] >= electricity.REGIME) & (rows["ts"] < electricity.REGIME + month)]
    assert abs(before.mean() - after.mean() - 400) < 10


def test_demand_has_one_row_for_every_half_hour() -> None:
    steps = np.diff(electricity.demand()["ts"])
    assert (steps == np.timedelta64(30, "m")).all()


def test_as_many_customers_leave_as_the_hazard_says() -> None:
    rows = churn.snapshots()
    hazard = churn.hazard(rows)
    expected, spread = hazard.sum(), np.sqrt((hazard * (1 - hazard)).sum())
    assert abs(churn.left()["ts"].size - expected) < 3 * spread


def test_the_true_hazard_ranks_leavers_with_an_auc_above_080() -> None:
    rows, left = churn.snapshots(), churn.left()
    last = {customer: time for customer, time in zip(left["customer_id"], left["ts"], strict=True)}
    window = np.timedelta64(30, "D")
    leaves = [
        customer in last and time < last[customer] <= time + window
        for customer, time in zip(rows["customer_id"], rows["snapshot"], strict=True)
    ]
    assert roc_auc_score(leaves, churn.hazard(rows)) > 0.80


def test_nobody_is_seen_after_leaving() -> None:
    rows, left = churn.snapshots(), churn.left()
    last = dict(zip(left["customer_id"], left["ts"], strict=True))
    later = [t > last[c] for c, t in zip(rows["customer_id"], rows["snapshot"], strict=True) if c in last]
    assert not any(later)


def test_both_simulators_give_the_same_rows_every_time() -> None:
    first = churn.snapshots()["monthly_charges"].sum(), electricity.demand()["mw"].sum()
    churn._world.cache_clear()
    electricity._world.cache_clear()
    assert (churn.snapshots()["monthly_charges"].sum(), electricity.demand()["mw"].sum()) == first
