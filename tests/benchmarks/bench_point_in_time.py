"""The point-in-time join against DuckDB's own ASOF join, on the same rows, each in a process of its own.

``BENCH_SIZE=full`` takes 1M spine rows x 3 tables x 10M rows x 10 features (minutes); the default is a fifth.
windrow reads Delta tables written in the order of key and time; DuckDB and Feast read Parquet in no order.
Feast runs in an environment of its own, if there is one: feast-requirements.txt says how.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.harness import Row
from windrow.features.contract import Lookup
from windrow.features.join import point_in_time
from windrow.settings import Settings
from windrow.stores.engine import engine
from windrow.stores.lake import Lake
from windrow.testing import MemoryTable, times

Figures = dict[str, Any]
TABLES, FEATURES = 3, 10
PARTS = ("raw", "windrow", "late")
_MEMORY = "the bar (<= 0.35 x) is for BENCH_SIZE=full: imports weigh at this size"
_INSTALL = (
    "python3.11 -m venv .windrow/feast && .windrow/feast/bin/pip install -r tests/benchmarks/feast-requirements.txt"
)
TIMES = "1700000000000000 + (hash({seed}) % 31536000000000)"  # microseconds of one year


class Size(NamedTuple):
    """How much is joined: rows of the spine, rows and keys of each table."""

    spine: int
    rows: int
    keys: int


SIZES = {"small": Size(200_000, 2_000_000, 20_000), "full": Size(1_000_000, 10_000_000, 100_000)}


def rows() -> list[Row]:
    """Compare seconds and peak memory; the answers must be the same."""
    name = os.environ.get("BENCH_SIZE", "small")
    with tempfile.TemporaryDirectory() as folder:
        _apart(folder, "make", name)
        # In turns, the best of each: somebody else's work on the machine hits one side or the other.
        turns = [[_apart(folder, part) for part in PARTS] for _ in range(1 if name == "full" else 3)]
        feast = _feast(folder)
    theirs, ours, late = (min(tried, key=lambda t: float(t["seconds"])) for tried in zip(*turns, strict=True))
    assert ours["answer"] == theirs["answer"], "windrow and DuckDB gave different answers"
    size, full = SIZES[name], name == "full"
    what = f"{size.spine / 1e6:g}M x {TABLES} x {size.rows / 1e6:g}M x {FEATURES}"
    return [
        _row(
            f"point-in-time {what}",
            "seconds",
            ours,
            theirs,
            bar=0.8,
            note=f"answers equal; {_cpu(ours)} against {_cpu(theirs)}",
        ),
        _row(
            f"point-in-time memory {what}",
            "peak_mb",
            ours,
            theirs,
            bar=0.35 if full else None,
            note="" if full else _MEMORY,
        ),
        _row(
            f"point-in-time, 1 % late, {what}", "seconds", late, theirs, bar=1.2, note="late rows are new to the peer"
        ),
        _against_feast(f"point-in-time against Feast, {what}", ours, feast),
    ]


def _against_feast(name: str, ours: Figures, feast: Figures | None) -> Row:
    if feast is None:
        return Row(name=name, value=ours["seconds"], unit="s", against=f"not measured: {_INSTALL}")
    assert ours["answer"] == feast["answer"], "windrow and Feast gave different answers"
    ratio = ours["seconds"] / feast["seconds"]
    peer = f"Feast's DuckDB offline store: {feast['seconds']:,.1f} s, {feast['peak_mb']:,.0f} MB"
    note = f"answers equal; {_cpu(ours)} against {_cpu(feast)}; {1 / ratio:.1f} x faster"
    verdict = {"bar": "<= 0.067 x (15 x faster)", "holds": ratio <= 1 / 15}
    return Row(name=name, value=ours["seconds"], unit="s", against=peer, ratio=ratio, note=note, **verdict)


def _row(name: str, figure: str, ours: Figures, theirs: Figures, *, bar: float | None, note: str) -> Row:
    ratio, unit = ours[figure] / theirs[figure], {"seconds": "s", "peak_mb": "MB"}[figure]
    peer = f"DuckDB ASOF + ORDER BY, unsorted Parquet: {theirs[figure]:,.1f} {unit}"
    verdict = {"bar": f"<= {bar} x", "holds": ratio <= bar} if bar else {}
    return Row(name=name, value=ours[figure], unit=unit, against=peer, ratio=ratio, note=note, **verdict)


def _cpu(figures: Figures) -> str:
    return f"{figures['cpu']:.1f} s of CPU"


def _apart(folder: str, part: str, *arguments: str) -> Figures:
    command = [sys.executable, "-m", "tests.benchmarks.bench_point_in_time", folder, part, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    answer: Figures = json.loads(done.stdout.splitlines()[-1])
    return answer


def _feast(folder: str) -> Figures | None:
    """The same rows by Feast, or None where it is not installed."""
    python = Path(os.environ.get("FEAST_PYTHON") or Settings.read().home / "feast" / "bin" / "python")
    if not python.exists():
        return None
    command = [str(python), "-W", "ignore", "-m", "tests.benchmarks.feast_peer", folder, str(TABLES), str(FEATURES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=3600)
    answer: Figures = json.loads(done.stdout.splitlines()[-1])
    return answer


def make(folder: Path, size_name: str) -> None:
    """Write spine, unsorted Parquet and sorted Delta tables with the same rows."""
    size, con = SIZES[size_name], _duckdb()
    con.execute(
        f"COPY (SELECT i AS row, (hash(i * 17) % {size.keys})::BIGINT AS k, make_timestamptz(({TIMES.format(seed='i * 19')})::BIGINT) "
        f"AS event_time FROM range({size.spine}) r(i)) TO '{folder}/spine.parquet'"
    )
    for table in range(TABLES):
        values = ", ".join(f"random() AS t{table}_f{i}" for i in range(FEATURES))
        con.execute(
            f"CREATE OR REPLACE TABLE made AS SELECT (hash(i * 7 + {table}) % {size.keys})::BIGINT AS k, "
            f"make_timestamptz(({TIMES.format(seed=f'i * 13 + {table}')})::BIGINT) AS event_time, {values} FROM range({size.rows}) r(i)"
        )
        con.execute(f"COPY made TO '{folder}/table_{table}.parquet'")
        for name, delay in (("lake", "0"), ("late", "3 * (hash(event_time) % 100 = 0)::BIGINT")):
            ordered = con.execute(
                f"SELECT *, event_time + to_days(({delay})::INTEGER) AS known_at FROM made ORDER BY k, event_time"
            )
            Lake(f"{folder}/{name}").table(f"features/table_{table}_v1").append(ordered.to_arrow_table())


def raw(folder: Path) -> pa.Table:
    """What one would write by hand."""
    joins = " ".join(
        f"ASOF LEFT JOIN read_parquet('{folder}/table_{t}.parquet') t{t} ON s.k = t{t}.k AND s.event_time >= t{t}.event_time"
        for t in range(TABLES)
    )
    columns = ", ".join(_features())
    query = f"SELECT s.*, {columns} FROM read_parquet('{folder}/spine.parquet') s {joins} ORDER BY s.row"
    return _duckdb().execute(query).to_arrow_table()


def windrow(folder: Path, lake_name: str = "lake") -> pa.Table:
    """The same through windrow."""
    lake, names = Lake(f"{folder}/{lake_name}"), [f"table_{t}_v1" for t in range(TABLES)]
    lookups = []
    for table, name in enumerate(names):
        columns = [f"t{table}_f{i}" for i in range(FEATURES)]
        lookups.append(Lookup(name, "", {"k": "k"}, {c: c for c in columns}, dict.fromkeys(columns, "float64")))
    spine = pq.read_table(folder / "spine.parquet")
    return point_in_time(engine(), spine, lookups, {name: lake.table(f"features/{name}") for name in names})


def late(folder: Path) -> pa.Table:
    """Where one row in a hundred is known three days after its event."""
    return windrow(folder, "late")


def _features() -> list[str]:
    return [f"t{table}_f{i}" for table in range(TABLES) for i in range(FEATURES)]


def _duckdb() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    return con


def _measured(join: Callable[[Path], pa.Table], folder: Path) -> dict[str, object]:
    _warm()
    begin, worked = time.perf_counter(), time.process_time()
    made = join(folder)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu": cpu, "peak_mb": peak, "answer": _digest(made)}


def _warm() -> None:
    """Import in both processes what only one of them needs, and plan once: neither belongs to a join's time."""
    rows = pa.table({"k": [1], "x": [1.0], "event_time": times(0)})
    lookup = Lookup("warm_v1", "", {"k": "k"}, {"x": "x"}, {"x": "float64"})
    point_in_time(engine(), rows.select(["k", "event_time"]), [lookup], {"warm_v1": MemoryTable("warm_v1", rows)})


def _digest(made: pa.Table) -> str:
    digest = hashlib.sha256()
    for name in ["row", *_features()]:
        digest.update(made.column(name).fill_null(-1).combine_chunks().to_numpy().tobytes())
    return digest.hexdigest()


def _main(folder: Path, part: str, *arguments: str) -> None:
    if part == "make":
        make(folder, *arguments)
        print("{}")
    else:
        print(json.dumps(_measured({"raw": raw, "windrow": windrow, "late": late}[part], folder)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
