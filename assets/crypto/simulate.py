"""Twenty-nine hours of trades of two coins with a known truth: some trades come late, some come twice.

Truth: the log price of a coin moves by its drift and noise each second. The drift is a slow wave of its own (it
halves in some six minutes), so the last minutes say something about the next ones. One trade in two hundred
is received a minute or more after it was made, all others within three seconds.
"""

from functools import cache

import numpy as np

PRODUCTS = {"BTC-USD": 64_000.0, "ETH-USD": 3_100.0}
START, HOURS = np.datetime64("2025-03-01T18:00:00", "us"), 29
EVERY = 6.0  # seconds between two trades of a coin, on average
MEMORY, DRIFT, NOISE = np.exp(-1 / 500), 0.8e-5, 1.2e-4  # by the second, of the log price
LATE, TWICE = 0.005, 0.005


@cache
def _paths():
    """The log price and its drift of each coin, second by second, shape (seconds,)."""
    random = np.random.default_rng(20250301)
    made, seconds = {}, HOURS * 3600
    for product, price in PRODUCTS.items():
        drift = _wave(random, seconds)
        steps = drift + NOISE * random.normal(size=seconds)
        made[product] = np.log(price) + np.cumsum(steps), drift
    return made


def _wave(random, seconds):
    kicks, drift = DRIFT * np.sqrt(1 - MEMORY**2) * random.normal(size=seconds), np.zeros(seconds)
    for second in range(1, seconds):
        drift[second] = MEMORY * drift[second - 1] + kicks[second]
    return drift


def drift(product):
    """The truth: the drift of the log price in each second, shape (seconds,)."""
    return _paths()[product][1]


@cache
def _ticks():
    random = np.random.default_rng(1)
    parts = [_trades(random, product, path) for product, (path, _) in _paths().items()]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _ordered(rows, "ts")


def _trades(random, product, path):
    n = random.poisson(path.size / EVERY)
    at = np.sort(random.uniform(0, path.size, n))
    wait = np.where(random.random(n) < LATE, random.uniform(60, 180, n), random.exponential(0.3, n).clip(max=3))
    return {
        "trade": np.array([f"{product}/{number}" for number in range(1, n + 1)]),
        "product": np.full(n, product),
        "price": np.round(np.exp(path[at.astype(int)]), 2),
        "size": np.round(random.lognormal(-3, 1, n), 6) + 1e-6,
        "ts": START + _micros(at),
        "received": START + _micros(at) + _micros(wait),
    }


def _micros(seconds):
    return np.round(seconds * 1_000_000).astype("timedelta64[us]")


def _ordered(rows, by):
    order = np.argsort(rows[by], kind="stable")
    return {name: values[order] for name, values in rows.items()}


def ticks():
    """Rows of the source ``ticks``, each once."""
    return dict(_ticks())


def deliveries():
    """The same rows as they arrive: by the time they are received, some of them a second time a little later."""
    rows, random = _ticks(), np.random.default_rng(2)
    again = np.flatnonzero(random.random(rows["ts"].size) < TWICE)
    twice = {name: values[again] for name, values in rows.items()}
    twice["received"] = twice["received"] + _micros(random.uniform(0.1, 90, again.size))
    return _ordered({name: np.concatenate([rows[name], twice[name]]) for name in rows}, "received")
