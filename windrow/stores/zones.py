"""Local times to UTC, with the hours that a change of the clocks repeats or skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from windrow.errors import TimeError
from windrow.features.arrow import registered
from windrow.stores.engine import engine

if TYPE_CHECKING:
    import pyarrow as pa

# A local time is UTC plus the offset in force a day before or a day after. Where both offsets give
# the time back the hour happened twice; where neither does, it never happened.
_CANDIDATES = """
    WITH guess AS (SELECT number, local, timezone($zone, local) AS rough FROM {name}),
    offsets AS (
        SELECT number, local,
            timezone($zone, rough - INTERVAL 1 DAY) - timezone('UTC', rough - INTERVAL 1 DAY) AS before,
            timezone($zone, rough + INTERVAL 1 DAY) - timezone('UTC', rough + INTERVAL 1 DAY) AS after
        FROM guess),
    candidates AS (
        SELECT number, local, timezone('UTC', local - before) AS first, timezone('UTC', local - after) AS second
        FROM offsets),
    valid AS (
        SELECT number, local,
            CASE WHEN timezone($zone, first) = local THEN first END AS first,
            CASE WHEN timezone($zone, second) = local THEN second END AS second
        FROM candidates)
    SELECT least(first, second) AS earliest, greatest(first, second) AS latest,
        coalesce(first <> second, false) AS twice,
        local IS NOT NULL AND first IS NULL AND second IS NULL AS skipped
    FROM valid ORDER BY number"""


def to_utc(
    local: pa.ChunkedArray,
    zone: str,
    *,
    ambiguous: str,
    where: str,
    numbers: Sequence[int] | pa.ChunkedArray,
) -> pa.ChunkedArray:
    """Return UTC times of local ones.

    Parameters
    ----------
    local
        timestamp[us] without zone, length n; nulls stay nulls.
    zone
        IANA name.
    ambiguous
        What to do with a time that happened twice: ``refuse``, ``earliest`` or ``latest``.
    where, numbers
        For errors: the file and column, and the row number of each value.

    Returns
    -------
    pyarrow.ChunkedArray
        timestamp[us, UTC], length n.

    Raises
    ------
    TimeError
        For a time that happened twice (with ``refuse``) or never; names the row.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from datetime import datetime
    >>> local = pa.chunked_array([[datetime(2023, 4, 2, 2, 30)]], pa.timestamp("us"))
    >>> to_utc(local, "Australia/Melbourne", ambiguous="latest", where="a.csv", numbers=[1]).to_pylist()[0].isoformat()
    '2023-04-01T16:30:00+00:00'
    """
    found = _candidates(local, zone)
    changed = f"when the clocks changed in {zone}"
    _refuse(
        found.column("skipped"),
        local,
        numbers,
        f"{where}, row {{}}: {{}} was skipped {changed}",
        "correct it, or declare the zone that the data are in",
    )
    if ambiguous == "refuse":
        _refuse(
            found.column("twice"),
            local,
            numbers,
            f"{where}, row {{}}: {{}} happened twice {changed}",
            'declare ambiguous="earliest" or "latest", or give times with an offset',
        )
    return found.column("latest" if ambiguous == "latest" else "earliest")


def _candidates(local: pa.ChunkedArray, zone: str) -> pa.Table:
    import pyarrow as pa

    con = engine()
    with registered(con, pa.table({"local": local, "number": range(len(local))})) as rows:
        return con.con.execute(_CANDIDATES.format(name=rows.get_name()), {"zone": zone}).to_arrow_table()


def _refuse(
    bad: Any, local: pa.ChunkedArray, numbers: Sequence[int] | pa.ChunkedArray, what: str, next_step: str
) -> None:
    import pyarrow.compute as pc

    count = pc.sum(bad).as_py() or 0
    if count:
        at = pc.index(bad, True).as_py()
        told = what.format(numbers[at], local[at].as_py())
        raise TimeError(told, exists=f"{count} rows are like it", next_step=next_step)
