"""Half-hourly demand and temperature with a known truth: two years, one area, one regime change.

Truth: demand = level(t) + daily and weekly shape in local time + 40 MW per degree from 18 °C + noise of
80 MW. From `REGIME` on the level is 400 MW lower (a large plant closes).
"""

from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

START, END = np.datetime64("2013-01-01T00:00:00", "us"), np.datetime64("2014-12-31T00:00:00", "us")
REGIME = np.datetime64("2014-02-01T00:00:00", "us")
NOISE_MW = 80.0
_HALF_HOUR = np.timedelta64(30, "m")


@cache
def _world():
    random = np.random.default_rng(20130101)
    ts = np.arange(START, END, _HALF_HOUR)
    hour = _local_hour(ts)
    day = (ts - ts[0]) / np.timedelta64(1, "D")
    weekday = (day + 1).astype(int) % 7  # 2013-01-01 was a Tuesday
    season = np.cos(2 * np.pi * (day - 15) / 365.25)
    slow = np.convolve(random.normal(0, 1, ts.size + 143), np.ones(144) / 12, "valid")
    temperature = 15 + 6 * season + 4 * np.cos(2 * np.pi * (hour - 15) / 24) + 2 * slow
    level = np.where(ts < REGIME, 4800, 4400)
    shape = 500 * np.sin(2 * np.pi * (hour - 9) / 24) + 250 * np.sin(4 * np.pi * (hour - 6) / 24)
    weekend = np.where(weekday >= 5, -450, 0)
    mw = level + shape + weekend + 40 * np.abs(temperature - 18) + random.normal(0, NOISE_MW, ts.size)
    return ts, mw, temperature


def _local_hour(ts):
    zone = ZoneInfo("Australia/Melbourne")
    days = np.unique(ts.astype("datetime64[D]"))
    offset = {d: zone.utcoffset(_noon(d)).total_seconds() / 3600 for d in days}
    utc = (ts - ts.astype("datetime64[D]")) / np.timedelta64(1, "h")
    return (utc + np.array([offset[d] for d in ts.astype("datetime64[D]")])) % 24


def _noon(day):
    return (day.astype("datetime64[h]") + 12).astype(object)


def demand():
    """Rows of the source ``demand``."""
    ts, mw, _ = _world()
    return {"area": np.full(ts.size, "VIC"), "ts": ts, "mw": np.round(mw, 3)}


def weather():
    """Rows of the source ``weather``."""
    ts, _, temperature = _world()
    return {"area": np.full(ts.size, "VIC"), "ts": ts, "temperature": np.round(temperature, 2)}
