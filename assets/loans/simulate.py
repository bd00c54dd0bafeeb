"""Six years of loan applications with a known truth, and a history that was unfair to women.

Truth: a loan defaults with the probability `risk`, a logistic function of the applicant's debt and late payments, the
instalment, the term, the purpose and the region. Neither sex nor a gap in employment changes it. But women have
such gaps far more often, and until `CALLED_UNTIL` the bank called in one loan in `CALLED` of those that women would
have repaid, and wrote it down as not repaid. Whoever learns from these years learns to punish the gap.
"""

from functools import cache

import numpy as np

APPLICATIONS, APPLICANTS, DAYS = 9000, 6000, 6 * 365
START = np.datetime64("2017-01-01T00:00:00", "us")
CALLED_UNTIL, CALLED = START + np.timedelta64(3 * 365, "D"), 0.45
TERMS, PURPOSES = [6, 12, 18], ["car", "debt", "home", "business"]
POSTCODES = ["10", "14", "20", "28", "40", "50", "60", "70", "80", "90"]  # their first two digits
HARD_TIMES = ["14", "40"]  # where work is scarce
_DAY, _MONTH = np.timedelta64(1, "D"), np.timedelta64(30, "D")


@cache
def _world():
    random = np.random.default_rng(20170101)
    people = _people(random)
    rows = _asked(random, people)
    defaults = random.random(APPLICATIONS) < risk(rows)
    unfair = (rows["sex"] == "F") & (rows["applied_at"] < CALLED_UNTIL) & (random.random(APPLICATIONS) < CALLED)
    rows["repaid"] = ~defaults & ~unfair
    late = random.uniform(0.2, 1, APPLICATIONS)  # what is not repaid is known before the end of the term
    length = np.where(rows["repaid"], 1, late) * rows["term_months"] * 30
    rows["settled_at"] = rows["applied_at"] + length.astype(int) * _DAY
    return people, rows


def _people(random):
    """Two records of each applicant: one from before the first application, one from a later day."""
    sex = random.choice(["F", "M"], APPLICANTS)
    gap = random.random(APPLICANTS) < np.where(sex == "F", 0.75, 0.05)
    income = random.lognormal(10.4, 0.35, APPLICANTS)
    first = {
        "sex": sex,
        "income": np.round(income, -2),
        "debt": np.round(income / 12 * random.beta(2, 5, APPLICANTS), 2),
        "late_payments": random.poisson(0.7, APPLICANTS),
        "employed_years": np.round(random.gamma(2, 4, APPLICANTS), 1),
        "gap_months": np.where(gap, random.integers(6, 37, APPLICANTS), 0),
        "valid_from": np.full(APPLICANTS, START - 30 * _DAY),
    }
    later = {
        **first,
        "debt": np.round(first["debt"] * random.lognormal(0, 0.4, APPLICANTS), 2),
        "late_payments": random.poisson(0.7, APPLICANTS),
        "valid_from": START + random.integers(0, DAYS - 3, APPLICANTS) * _DAY,
    }
    return first, later


def _asked(random, people):
    first, later = people
    at = START + np.sort(random.integers(0, DAYS * 86_400, APPLICATIONS)).astype("timedelta64[s]")
    who, month = random.integers(0, APPLICANTS, APPLICATIONS), random.choice(TERMS, APPLICATIONS)
    updated = at >= later["valid_from"][who] + 3 * _DAY
    record = {name: np.where(updated, later[name][who], first[name][who]) for name in first}
    amount = np.round(record["income"] * random.uniform(0.05, 0.4, APPLICATIONS) * month / 12, -2)
    prefix = random.choice(POSTCODES, APPLICATIONS)
    rows = {
        **record,
        "loan_id": np.arange(1, APPLICATIONS + 1),
        "applicant_id": who + 1,
        "amount": amount,
        "term_months": month,
        "purpose": random.choice(PURPOSES, APPLICATIONS),
        "postcode": np.char.add(prefix, random.integers(100, 1000, APPLICATIONS).astype(str)),
        "applied_at": at,
    }
    rows["rate"] = np.round(4 + 8 * risk(rows) + random.normal(0, 1.5, APPLICATIONS).clip(-2, 4), 2)
    return rows


def risk(rows):
    """True chance that a loan is not repaid, shape (n,)."""
    monthly = rows["income"] / 12
    score = -3.9 + 4.5 * rows["debt"] / monthly + 0.9 * rows["late_payments"]
    score = score + 4 * rows["amount"] / rows["term_months"] / monthly + 0.05 * (rows["term_months"] - 12)
    score = score + 0.7 * (rows["purpose"] == "business") - 0.04 * rows["employed_years"].clip(0, 15)
    return 1 / (1 + np.exp(-(score + 0.8 * np.isin(np.asarray(rows["postcode"]).astype("<U2"), HARD_TIMES))))


def applied():
    """The truth: every application with the applicant's record of that time and what came of it."""
    return dict(_world()[1])


def applications():
    """Rows of the source ``applications``."""
    names = ("loan_id", "applicant_id", "amount", "term_months", "rate", "purpose", "postcode", "sex", "applied_at")
    return {name: _world()[1][name] for name in names}


def applicants():
    """Rows of the source ``applicants``; what changed is entered three days after it."""
    first, later = _world()[0]
    both = {name: np.concatenate([first[name], later[name]]) for name in first if name != "sex"}
    ids = np.tile(np.arange(1, APPLICANTS + 1), 2)
    return {"applicant_id": ids, **both, "entered_at": both["valid_from"] + 3 * _DAY}


def settlements():
    """Rows of the source ``settlements``: what is known of them on the last day."""
    rows = _world()[1]
    known = rows["settled_at"] <= START + DAYS * _DAY
    return {name: rows[name][known] for name in ("loan_id", "repaid", "settled_at")}
