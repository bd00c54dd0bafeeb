"""The calendar of the hour that is predicted, in the area's own time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

LOCAL = ZoneInfo("Australia/Melbourne")
AHEAD = timedelta(hours=24)


def _local(at):
    # Daylight saving moves twice a year: a fixed offset would put those months one hour off.
    return [datetime.fromtimestamp(t, UTC).astimezone(LOCAL) + AHEAD for t in at.astype("datetime64[s]").astype(int)]


def hour(at):
    """Local hour of the predicted time, 0 to 23."""
    return np.array([moment.hour + moment.minute / 60 for moment in _local(at)])


def weekday(at):
    """Local day of the week of the predicted time, Monday is 0."""
    return np.array([moment.weekday() for moment in _local(at)])


def day_of_year(at):
    """Local day of the year of the predicted time, 1 to 366."""
    return np.array([moment.timetuple().tm_yday for moment in _local(at)])
