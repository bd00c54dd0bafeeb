"""Sinks: where batch predictions go. Writing a day again replaces it; a crash leaves what was there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from windrow.clock import from_micros
from windrow.errors import DataError, SchemaError, SettingsError, StoreError, UnknownNameError, listed
from windrow.schema import EVENT_TIME
from windrow.stores.postgres_sink import VARIABLE, write_postgres

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from windrow.settings import Settings
    from windrow.stores.lake import Lake

Day = tuple[int, int]

_TIMES = "timestamp[us, tz=UTC]"


class SinkWrite(NamedTuple):
    """What was written: rows, and the table key, file or table that holds them."""

    sink: str
    rows: int
    where: str


def absent(kind: str, settings: Settings) -> str:
    """Return why there is no such sink under these settings; "" where there is one.

    Examples
    --------
    >>> from windrow.settings import Settings
    >>> absent("postgres", Settings.read({})), absent("delta", Settings.read({}))
    ('WINDROW_SINK_POSTGRES is not set', '')
    """
    return f"{VARIABLE} is not set" if kind == "postgres" and not settings.sink_postgres else ""


def require(kind: str, settings: Settings) -> None:
    """Raise `SettingsError` where there is no such sink under these settings, before anything is written."""
    why = absent(kind, settings)
    if why:
        raise SettingsError(
            f"sink {kind!r} has no address: {why}",
            next_step=f'export {VARIABLE}=postgresql://user:password@host/database, or declare it optional_sinks=["{kind}"]',
        )


def write_sink(
    kind: str, service: str, rows: pa.Table, *, lake: Lake, settings: Settings, day: Day | None
) -> SinkWrite:
    """Replace a day of a service's predictions, or all of them, in one sink.

    Parameters
    ----------
    kind
        ``delta``: table ``predictions/<service>`` of the lake; ``duckdb``: table ``predictions`` of
        the file ``<home>/sinks/<service>.duckdb``; ``postgres``: table ``predictions_<service>`` of the
        database that ``WINDROW_SINK_POSTGRES`` names.
    rows
        Predictions with ``event_time`` (timestamp[us, UTC]); the same columns each time.
    day
        First and past-the-last UTC microsecond that `rows` are all of, or None for everything.

    Raises
    ------
    UnknownNameError
        If there is no such sink.
    SettingsError
        If the settings do not say where it is.
    SchemaError
        If the columns are not those of the earlier days.
    DataError
        If a row lies outside `day`.
    StoreError
        If the sink cannot be written; it holds what it held before.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from tempfile import mkdtemp
    >>> from windrow.settings import Settings
    >>> from windrow.stores.lake import Lake
    >>> settings = Settings.read({"WINDROW_HOME": mkdtemp()})
    >>> rows = pa.table({"event_time": pa.array([5], pa.timestamp("us", "UTC")), "output": [0.5]})
    >>> write_sink("duckdb", "churn", rows, lake=Lake(settings.lake), settings=settings, day=None).rows
    1
    """
    if kind not in _SINKS:
        raise UnknownNameError("sink", kind, list(_SINKS), where=f"service {service!r}")
    require(kind, settings)
    _check_times(service, rows, day)
    return SinkWrite(kind, rows.num_rows, _SINKS[kind](service, rows, lake=lake, settings=settings, day=day))


def _check_times(service: str, rows: pa.Table, day: Day | None) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = str(rows.schema.field(EVENT_TIME).type) if EVENT_TIME in rows.column_names else "missing"
    if found != _TIMES:
        raise SchemaError(
            f"predictions of {service!r}: column {EVENT_TIME!r} is {found}",
            exists=f"The columns are {listed(rows.column_names)}",
            next_step=f"give {EVENT_TIME} as {_TIMES}",
        )
    if day is None or not rows.num_rows:
        return
    times = rows.column(EVENT_TIME).cast(pa.int64())
    outside = rows.num_rows - (pc.sum(pc.and_(pc.greater_equal(times, day[0]), pc.less(times, day[1]))).as_py() or 0)
    if outside:
        raise DataError(
            f"{outside} of {rows.num_rows} predictions of {service!r} are not of the day {from_micros(day[0]).isoformat()}",
            next_step="give only rows of that day, or day=None to replace everything",
        )


def _write_delta(service: str, rows: pa.Table, *, lake: Lake, settings: Settings, day: Day | None) -> str:
    table = lake.table(f"predictions/{service}")
    table.replace(rows, "" if day is None else f"{EVENT_TIME} >= '{_iso(day[0])}' and {EVENT_TIME} < '{_iso(day[1])}'")
    return table.key


def _iso(micros: int) -> str:
    return from_micros(micros).isoformat().replace("+00:00", "Z")


def _write_duckdb(service: str, rows: pa.Table, *, lake: Lake, settings: Settings, day: Day | None) -> str:
    import duckdb

    path = settings.home / "sinks" / f"{service}.duckdb"
    following = path.with_suffix(".next")
    try:
        with alone(path):
            _copy(path, following, wanted=day is not None)
            _change(following, service, rows, day)
            _flush(following)
            # Readers keep a DuckDB file locked: they go on with the old one, the next ones open this.
            following.replace(path)
    except (duckdb.Error, OSError) as error:
        raise _unwritable(path, error) from error
    return str(path)


def _copy(path: Path, following: Path, *, wanted: bool) -> None:
    for leftover in (following, Path(f"{following}.wal")):
        leftover.unlink(missing_ok=True)
    if wanted and path.exists():
        shutil.copyfile(path, following)


def _change(file: Path, service: str, rows: pa.Table, day: Day | None) -> None:
    import duckdb

    # Nothing is fetched from anywhere, and times read back are UTC on any machine.
    options: dict[str, Any] = {"autoinstall_known_extensions": False, "threads": 1}
    with duckdb.connect(str(file), config=options) as connection:
        connection.register("given", rows)
        known = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        if "predictions" not in known:
            connection.execute("CREATE TABLE predictions AS SELECT * FROM given")
            return
        _check_columns(service, connection)
        connection.execute("BEGIN")
        connection.execute("DELETE FROM predictions WHERE epoch_us(event_time) >= ? AND epoch_us(event_time) < ?", day)
        connection.execute("INSERT INTO predictions BY NAME SELECT * FROM given")
        connection.execute("COMMIT")


def _check_columns(service: str, connection: duckdb.DuckDBPyConnection) -> None:
    def columns(table: str) -> dict[str, str]:
        return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {table}").fetchall()}

    stored, given = columns("predictions"), columns("given")
    if stored != given:
        changed = [name for name in {**stored, **given} if stored.get(name) != given.get(name)]
        raise SchemaError(
            f"predictions of {service!r} have other columns than the earlier days: {listed(changed)}",
            exists=f"The file has {listed(stored)}",
            next_step="score all days again (day=None), which replaces the file",
        )


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for other writers of the same file: days of a backfill may run side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_postgres(service: str, rows: pa.Table, *, lake: Lake, settings: Settings, day: Day | None) -> str:
    return write_postgres(settings.sink_postgres, service, rows, day)


def _unwritable(path: Path, error: Exception) -> StoreError:
    reason = str(getattr(error, "strerror", None) or error).splitlines()[0][:200]
    return StoreError(
        f"the sink {path} cannot be written: {reason}",
        exists="It holds what it held before",
        next_step="free disk space, check the folder's rights, or delete the file and score again",
    )


_SINKS: dict[str, Callable[..., str]] = {
    "delta": _write_delta,
    "duckdb": _write_duckdb,
    "postgres": _write_postgres,
}
