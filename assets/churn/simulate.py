"""A year of monthly customer snapshots with a known truth.

Truth: a customer leaves within the next 30 days with the probability `hazard`, a logistic function of
contract, tenure, internet, support, payment method and charges. Whoever leaves has no later snapshot; a
newcomer of the same habits takes the place, so that the customer base stays as it is.
"""

from functools import cache

import numpy as np

CUSTOMERS, MONTHS, SETTLING = 3000, 12, 72  # months before the first snapshot, until tenures settle
START = np.datetime64("2023-01-31T00:00:00", "us")
_DAY = np.timedelta64(1, "D")
_YES = np.array(["No", "Yes"])


def hazard(rows):
    """True chance of leaving within 30 days, shape (n,)."""
    score = -2.6 + 1.7 * (rows["contract"] == "Month-to-month") - 1.2 * (rows["contract"] == "Two year")
    score = score + 0.8 * (rows["internet"] == "Fiber optic") - 0.6 * (rows["support"] == "Yes")
    score = score + 0.5 * (rows["payment_method"] == "Electronic check") - 0.03 * rows["tenure_months"]
    return 1 / (1 + np.exp(-(score + 0.008 * (rows["monthly_charges"] - 65))))


@cache
def _world():
    random = np.random.default_rng(20230131)
    people, tenure = _people(random), random.integers(0, 72, CUSTOMERS)
    months, events = [], []
    for month in range(-SETTLING, MONTHS):
        at = START + month * 30 * _DAY
        rows = _snapshot(people, tenure, at)
        leaves = random.random(CUSTOMERS) < hazard(rows)
        if month >= 0:
            months.append(rows)
            events.append((rows["customer_id"][leaves], at + _days(random, leaves.sum())))
        tenure = np.where(leaves, 0, tenure + 1)
        number = people["number"] + CUSTOMERS * leaves
        people = {**people, "number": number}
    return months, events


def _days(random, leavers):
    # The last to leave does so in the last hour: the month is complete when its data are.
    hours = random.integers(1, 30 * 24, leavers)
    hours[-1:] = 30 * 24
    return hours.astype("timedelta64[h]")


def _people(random):
    def pick(values, weights):
        return random.choice(np.array(values), CUSTOMERS, p=weights)

    internet = pick(["DSL", "Fiber optic", "No"], [0.35, 0.45, 0.20])
    extras = {
        name: np.where(internet == "No", "No internet service", _YES[(random.random(CUSTOMERS) < 0.4).astype(int)])
        for name in ("security", "backup", "protection", "support", "tv", "movies")
    }
    plain = {
        name: _YES[(random.random(CUSTOMERS) < 0.5).astype(int)] for name in ("partner", "dependents", "paperless")
    }
    charges = 20 + 25 * (internet == "DSL") + 50 * (internet == "Fiber optic") + random.normal(0, 6, CUSTOMERS)
    return {
        "number": np.arange(CUSTOMERS),
        "gender": pick(["Female", "Male"], [0.5, 0.5]),
        "senior": (random.random(CUSTOMERS) < 0.16).astype(np.int64),
        "phone": pick(["No", "Yes"], [0.1, 0.9]),
        "lines": pick(["No", "Yes", "No phone service"], [0.5, 0.4, 0.1]),
        "internet": internet,
        "contract": pick(["Month-to-month", "One year", "Two year"], [0.55, 0.21, 0.24]),
        "payment_method": pick(["Electronic check", "Mailed check", "Credit card (automatic)"], [0.34, 0.23, 0.43]),
        "monthly_charges": np.round(charges.clip(18), 2),
        **extras,
        **plain,
    }


def _snapshot(people, tenure, at):
    total = np.where(tenure > 0, np.round(people["monthly_charges"] * tenure, 2), np.nan)
    own = {"customer_id": np.array([f"C{number:06d}" for number in people["number"]])}
    habits = {name: values for name, values in people.items() if name != "number"}
    times = {"snapshot": np.full(CUSTOMERS, at)}
    return {**own, **habits, **times, "tenure_months": tenure.astype(np.int64), "total_charges": total}


def snapshots():
    """Rows of the source ``snapshots``."""
    months, _ = _world()
    return {name: np.concatenate([month[name] for month in months]) for name in months[0]}


def left():
    """Rows of the source ``left``."""
    _, events = _world()
    ids, times = zip(*events, strict=True)
    return {"customer_id": np.concatenate(ids), "ts": np.concatenate(times)}
