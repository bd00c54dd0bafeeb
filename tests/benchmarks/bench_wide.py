"""Many wide groups joined onto a spine and written to Parquet: the answer is larger than the memory it may take.

``BENCH_SIZE=full`` takes 10 groups x 1M rows x 100 float32 onto a 1M spine (4 GB stored, 4 GB answer, a few
minutes, 13 GB of disk in the temporary folder while it runs); the default is a tenth of the rows.
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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.harness import Row
from windrow.features.contract import Lookup
from windrow.features.parquet import point_in_time_to_parquet
from windrow.stores.engine import engine
from windrow.stores.lake import Lake

Figures = dict[str, Any]
YEAR = 31_536_000_000_000
_MEMORY = "the bar is for BENCH_SIZE=full"


class Size(NamedTuple):
    """What is joined: groups, columns and rows of each, keys, rows of the spine."""

    groups: int
    columns: int
    rows: int
    keys: int
    spine: int


SIZES = {"small": Size(10, 100, 100_000, 10_000, 100_000), "full": Size(10, 100, 1_000_000, 100_000, 1_000_000)}


def rows() -> list[Row]:
    """Measure time and the peak memory of the process that joins."""
    name = os.environ.get("BENCH_SIZE", "small")
    figures = measured(SIZES[name])
    size, full = SIZES[name], name == "full"
    what = (
        f"{size.groups} groups x {size.rows / 1e6:g}M x {size.columns} float32 onto {size.spine / 1e6:g}M, to Parquet"
    )
    answer = size.spine * size.groups * size.columns * 4 / 2**20
    bar: dict[str, Any] = {"bar": "<= 4,096 MB", "holds": figures["peak_mb"] <= 4096} if full else {}
    note = f"{figures['checked']} values checked one by one" + ("" if full else f"; {_MEMORY}")
    against = f"the answer itself: {answer:,.0f} MB"
    return [
        Row(name=f"memory, {what}", value=figures["peak_mb"], unit="MB", against=against, ratio=figures["peak_mb"] / answer, note=note, **bar),
        Row(name=f"time, {what}", value=figures["seconds"], unit="s", note=f"{figures['cpu']:.0f} s of CPU"),
    ]  # fmt: skip


def measured(size: Size) -> Figures:
    """Make the tables, join them in a process of its own, check the file, leave nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        _apart(folder, "make", *map(str, size))
        figures = _apart(folder, "join", *map(str, size))
        return {**figures, "checked": check(Path(folder), size)}


def make(folder: Path, size: Size) -> None:
    """Write the spine and one Delta table per group, in the order of key and time."""
    for group in range(size.groups):
        rng = np.random.default_rng(group)
        key, at = np.sort(rng.integers(0, size.keys, size.rows)), rng.integers(0, YEAR, size.rows)
        at = at[np.lexsort((at, key))]
        table = {"k": key, "event_time": _moments(at), "known_at": _moments(at)}
        table |= {f"g{group}_f{i}": rng.random(size.rows, np.float32) for i in range(size.columns)}
        Lake(f"{folder}/lake").table(f"features/group_{group}_v1").append(pa.table(table))
    rng = np.random.default_rng(99)
    spine = {"k": rng.integers(0, size.keys, size.spine), "event_time": _moments(rng.integers(0, YEAR, size.spine))}
    pq.write_table(pa.table(spine), folder / "spine.parquet")


def _moments(micros: Any) -> pa.Array:
    return pa.array(micros).cast(pa.timestamp("us", "UTC"))


class _WithoutPandas:
    """What answers an import of pandas: no."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError("no pandas on this path")


def join(folder: Path, size: Size) -> Figures:
    """What is measured. Without pandas: whoever asks for it is told that there is none."""
    sys.meta_path.insert(0, _WithoutPandas())
    lake, lookups = Lake(f"{folder}/lake"), []
    for group in range(size.groups):
        columns = [f"g{group}_f{i}" for i in range(size.columns)]
        lookups.append(
            Lookup(f"group_{group}_v1", "", {"k": "k"}, {c: c for c in columns}, dict.fromkeys(columns, "float32"))
        )
    tables = {lookup.group: lake.table(f"features/{lookup.group}") for lookup in lookups}
    begin, worked = time.perf_counter(), time.process_time()
    point_in_time_to_parquet(
        engine(), pq.read_table(folder / "spine.parquet"), lookups, tables, folder / "answer.parquet"
    )
    seconds, cpu = time.perf_counter() - begin, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu": cpu, "peak_mb": peak}


def check(folder: Path, size: Size) -> int:
    """Compare one column of each group with a binary search; return how many values were compared."""
    spine = pq.read_table(folder / "spine.parquet")
    key, at = spine["k"].to_numpy(), spine["event_time"].cast("int64").to_numpy()
    for group in range(size.groups):
        name = f"g{group}_f{group % size.columns}"
        stored = Lake(f"{folder}/lake").table(f"features/group_{group}_v1").scan(engine())
        rows = engine().to_pyarrow(stored.select("k", "event_time", name))
        place = rows["k"].to_numpy() * YEAR + rows["event_time"].cast("int64").to_numpy()
        order = np.argsort(place)
        found = np.searchsorted(place[order], key * YEAR + at, side="right") - 1
        mine = (found >= 0) & (rows["k"].to_numpy()[order][found] == key)
        wanted = np.where(mine, rows[name].to_numpy()[order][found], np.float32("nan"))
        said = pq.read_table(folder / "answer.parquet", columns=[name])[name].to_numpy()
        assert _digest(said) == _digest(wanted), f"{name} is not what a binary search finds"
    return size.groups * size.spine


def _digest(values: Any) -> str:
    return hashlib.sha256(np.nan_to_num(values, nan=-1.0).astype(np.float32).tobytes()).hexdigest()


def _apart(folder: str, part: str, *arguments: str) -> Figures:
    command = [sys.executable, "-m", "tests.benchmarks.bench_wide", folder, part, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=3600)
    answer: Figures = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    _folder, _size = Path(sys.argv[1]), Size(*map(int, sys.argv[3:]))
    if sys.argv[2] == "join":
        print(json.dumps(join(_folder, _size)))
    else:
        make(_folder, _size)
        print("{}")
