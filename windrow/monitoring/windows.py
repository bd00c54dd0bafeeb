"""Which logged rows are "now", and what they are compared with.

The window is of the service's clock and of the times that were asked about, not of the wall clock: a
service on historical data has its "last 30 days" too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from windrow.clock import duration, from_micros
from windrow.errors import SchemaError
from windrow.features.arrow import to_numpy
from windrow.features.contract import Frame, canonical_column
from windrow.models.service import Drift
from windrow.schema import EVENT_TIME, Field

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 100_000  # of each side: distances do not change beyond it, time and the page's size do


class Window(msgspec.Struct, frozen=True):
    """The time after `start`, up to and including `end`, in UTC microseconds.

    Examples
    --------
    >>> Window(0, 86_400_000_000).spoken
    'after 1970-01-01T00:00:00+00:00, up to 1970-01-02T00:00:00+00:00'
    """

    start: int
    end: int

    @property
    def spoken(self) -> str:
        """The window in words."""
        return f"after {from_micros(self.start).isoformat()}, up to {from_micros(self.end).isoformat()}"


def window_at(now: int, monitor: Drift) -> Window:
    """Return the window of a monitor when it is `now` (UTC microseconds).

    Examples
    --------
    >>> window_at(86_400_000_000, Drift(window="1d"))
    Window(start=0, end=86400000000)
    """
    return Window(now - duration(monitor.window), now)


def rows_within(rows: pa.Table, window: Window) -> pa.Table:
    """Return the rows whose ``event_time`` (timestamp) is in the window, in their order.

    Raises
    ------
    SchemaError
        If there is no such column.

    Examples
    --------
    >>> import pyarrow as pa
    >>> times = pa.array([0, 1, 2, 3], pa.timestamp("us", "UTC"))
    >>> rows_within(pa.table({"event_time": times, "x": [0, 1, 2, 3]}), Window(0, 2))["x"].to_pylist()
    [1, 2]
    """
    times = micros(rows)
    return rows.filter((times > window.start) & (times <= window.end))


def micros(rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return ``event_time`` in UTC microseconds, int64 of shape (n,)."""
    if EVENT_TIME not in rows.column_names:
        raise SchemaError(
            f"logged rows have no column {EVENT_TIME!r}", next_step="read them with PredictionLog.vectors(...)"
        )
    return to_numpy(rows[EVENT_TIME], "timestamp").astype("datetime64[us]").astype(np.int64)


def frame_of(rows: pa.Table, fields: Sequence[Field]) -> Frame:
    """Return logged model inputs (numbers or words, whatever their declared dtype) as the model saw them.

    Raises
    ------
    SchemaError
        If a feature has no column.

    Examples
    --------
    >>> import pyarrow as pa
    >>> frame_of(pa.table({"plan": ["a", None]}), [Field("plan", "string")])
    {'plan': array(['a', '(missing)'], dtype=object)}
    """
    absent = [f.name for f in fields if f.name not in rows.column_names]
    if absent:
        raise SchemaError(
            f"logged rows have no column {absent[0]!r}", next_step="read them with the contract of the live release"
        )
    kinds = {f.name: "string" if f.dtype == "string" else "float64" for f in fields}
    return {name: canonical_column(kind, to_numpy(rows[name], kind)) for name, kind in kinds.items()}


def chosen(rows: int, *, most: int = MOST_ROWS, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the positions of at most `most` of `rows` rows, drawn once for a seed, in order.

    Examples
    --------
    >>> chosen(3).tolist(), len(chosen(10, most=4))
    ([0, 1, 2], 4)
    """
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=most, replace=False))


def thinned(frame: Frame, *, most: int = MOST_ROWS) -> Frame:
    """Return at most `most` rows of a frame, the same rows of every column.

    Examples
    --------
    >>> len(thinned({"x": np.arange(10)}, most=4)["x"])
    4
    """
    kept = chosen(len(next(iter(frame.values()))), most=most)
    return {name: values[kept] for name, values in frame.items()}
