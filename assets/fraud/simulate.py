"""Five months of card payments with a known truth: planted frauds, some payments late, some delivered twice.

Truth: a fraud is an episode of 3 to 6 payments within 40 minutes, at least 1,000 km from the card's home,
of about four times its usual amount, mostly at the merchants below `SHADY`. Of every twenty frauds one is never
complained about; each other one is, 1 to 30 days later. Honest payments are made within some 30 km of the home, a
few of them at a shop abroad.
"""

from functools import cache

import numpy as np

CARDS, MERCHANTS, SHADY, DAYS, EPISODES = 240, 60, 6, 150, 390
START = np.datetime64("2025-01-01T00:00:00", "us")
LATE, TWICE, COMPLAINED, ABROAD = 0.01, 0.005, 0.95, 0.04
END = START + np.timedelta64(24 * DAYS - 10, "h")  # early in the afternoon, when most is paid
_SECOND, _DAY = np.timedelta64(1_000_000, "us"), np.timedelta64(1, "D")


@cache
def _world():
    random = np.random.default_rng(20250101)
    people = _people(random)
    rows = _concatenated([_honest(random, people), *(_episode(random, people) for _ in range(EPISODES))])
    order = np.argsort(rows["ts"], kind="stable")
    rows = {name: values[order] for name, values in rows.items()}
    rows["received"] = rows["ts"] + _lateness(random, order.size)
    come = rows["received"] < END
    rows = {name: values[come] for name, values in rows.items()}
    rows["payment_id"] = np.arange(1, come.sum() + 1)
    return people, rows


def _people(random):
    return {
        "lat": random.uniform(44, 54, CARDS).round(4),
        "lon": random.uniform(0, 16, CARDS).round(4),
        "usual": random.lognormal(3.2, 0.5, CARDS),
        "limit": random.choice([1000.0, 2000.0, 5000.0], CARDS),
    }


def _honest(random, people):
    count = random.poisson(1.2 * DAYS, CARDS)
    card = np.repeat(np.arange(CARDS), count)
    day, hour = random.integers(0, DAYS, card.size), np.clip(random.normal(14, 4, card.size), 0, 23.99)
    return _payments(random, people, card, START + _micros((day * 24 + hour) * 3600), far=0.15, times=1, shady=0.05)


def _episode(random, people):
    size, begin = random.integers(3, 7), random.uniform(10 * 86_400, (DAYS - 1) * 86_400)
    card = np.full(size, random.integers(CARDS))
    seconds = begin + np.sort(random.uniform(0, 2400, size))
    made = _payments(random, people, card, START + _micros(seconds), far=0.1, times=4, shady=0.7)
    # One place, a flight away from home.
    away = random.uniform(15, 40) * random.choice([-1, 1])
    made["lon"] = np.round(made["lon"] + away, 4)
    return {**made, "abroad": np.full(size, True), "fraud": np.full(size, True)}


def _payments(random, people, card, ts, *, far, times, shady):
    n = card.size
    merchant = np.where(random.random(n) < shady, random.integers(0, SHADY, n), random.integers(SHADY, MERCHANTS, n))
    return {
        "card_id": card,
        "merchant_id": merchant,
        "ts": ts,
        "amount": np.round(people["usual"][card] * times * random.lognormal(0, 0.4, n), 2),
        "lat": np.round(people["lat"][card] + random.normal(0, far, n), 4),
        "lon": np.round(people["lon"][card] + random.normal(0, far, n), 4),
        "abroad": random.random(n) < ABROAD,
        "fraud": np.full(n, False),
    }


def _lateness(random, n):
    usual, late = random.exponential(0.4, n).clip(max=2), random.uniform(3600, 3 * 86_400, n)
    return _micros(np.where(random.random(n) < LATE, late, usual))


def _micros(seconds):
    return np.round(seconds * 1_000_000).astype("timedelta64[us]")


def _concatenated(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fraudulent():
    """The truth: whether each row of `payments` is a fraud, shape (n,)."""
    return _world()[1]["fraud"]


def payments():
    """Rows of the source ``payments``, each once."""
    return {name: values for name, values in _world()[1].items() if name != "fraud"}


def deliveries():
    """The same rows as they arrive: by the time they are received, some of them a second time a little later."""
    rows = payments()
    random = np.random.default_rng(7)
    again = np.flatnonzero(random.random(rows["ts"].size) < TWICE)
    twice = {name: values[again] for name, values in rows.items()}
    twice["received"] = twice["received"] + _micros(random.uniform(1, 600, again.size))
    both = _concatenated([rows, twice])
    order = np.argsort(both["received"], kind="stable")
    return {name: values[order] for name, values in both.items()}


def customers():
    """Rows of the source ``customers``: one at the start, and one for each of the few who move."""
    people, _ = _world()
    random = np.random.default_rng(8)
    movers = np.flatnonzero(random.random(CARDS) < 0.05)
    since = START + (random.integers(5, DAYS - 5, movers.size) * _DAY).astype("timedelta64[us]")
    card = np.concatenate([np.arange(CARDS), movers])
    shift = np.concatenate([np.zeros(CARDS), random.normal(0, 0.05, movers.size)])
    valid = np.concatenate([np.full(CARDS, START), since])
    return {
        "card_id": card,
        "home_lat": np.round(people["lat"][card] + shift, 4),
        "home_lon": people["lon"][card],
        "credit_limit": people["limit"][card],
        "valid_from": valid,
        "loaded_at": np.concatenate([np.full(CARDS, START), since + 3 * _DAY]),
    }


def complaints():
    """The truth: the complaint about each fraud that is ever complained about, also those after `END`."""
    _, rows = _world()
    random = np.random.default_rng(9)
    told = np.flatnonzero(rows["fraud"] & (random.random(rows["fraud"].size) < COMPLAINED))
    after = _micros(random.uniform(86_400, 30 * 86_400 - 3600, told.size).round())
    ts = rows["ts"][told] + after
    return {
        **{name: rows[name][told] for name in ("payment_id", "card_id", "merchant_id")},
        "ts": ts,
        "received": ts + _micros(random.uniform(0, 3600, told.size).round()),
    }


def chargebacks():
    """Rows of the source ``chargebacks``: the complaints that have come by `END`."""
    rows = complaints()
    come = rows["received"] < END
    return {name: values[come] for name, values in rows.items()}
