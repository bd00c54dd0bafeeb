"""What the payment itself says, beside what is known of its card and merchant."""

import numpy as np

EARTH_KM = 6371.0088  # mean radius


def km(lat, lon, from_lat, from_lon):
    """Great-circle distance, kilometres (haversine formula); missing where one of the places is."""
    a, b = np.radians(lat), np.radians(from_lat)
    half_lat, half_lon = (a - b) / 2, np.radians(lon - from_lon) / 2
    squared = np.sin(half_lat) ** 2 + np.cos(a) * np.cos(b) * np.sin(half_lon) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(squared, 0, 1)))


def minutes(at, before):
    """Time since `before`, minutes; missing where there is none."""
    return np.where(np.isnat(before), np.nan, (at - before) / np.timedelta64(1, "m"))


def kmh(lat, lon, at, last_lat, last_lon, last_ts):
    """The speed at which the card must have travelled since its last payment; a minute is the least."""
    return km(lat, lon, last_lat, last_lon) / np.maximum(minutes(at, last_ts) / 60, 1 / 60)


def share(part, whole):
    """`part` of `whole`; missing where the whole is missing or nothing."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def month_share(amount, spend_30d, credit_limit):
    """Of the month's limit: what is spent once this payment is made."""
    return share(amount + spend_30d, credit_limit)
