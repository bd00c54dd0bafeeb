"""Tables: opening one after many commits, appending to one with many files, and what compaction costs.

``BENCH_SIZE=full`` compacts 10M rows; the default is 4M.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from tests.benchmarks.harness import Row, elapsed, quantile
from windrow.stores.compaction import compact
from windrow.stores.delta import files_of
from windrow.stores.engine import engine
from windrow.stores.lake import Lake, LakeTable
from windrow.stores.maintenance import maintain

COMMITS, FILES, APPENDS = 10_000, 1_000, 60
BATCH = 1_000
SIZES = {"small": 4_000_000, "full": 10_000_000}
KEYS = ["card_id"]


def rows() -> list[Row]:
    """Measure on tables of a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_opening(Path(folder) / "opening"), *_appending(Path(folder) / "appending"), *_compaction(folder)]


def _table(folder: Path) -> LakeTable:
    return Lake(str(folder)).table("features/card_v1")


def _batch(number: int, size: int = BATCH) -> pa.Table:
    cards = [(number + i * 7919) % 100_000 for i in range(size)]
    times = pa.array([1_700_000_000_000_000 + number * size + i for i in range(size)], pa.timestamp("us", "UTC"))
    values = {f"f{i}": pa.array([float(c + i) for c in cards]) for i in range(3)}
    return pa.table({"card_id": pa.array(cards, pa.int64()), **values, "event_time": times, "known_at": times})


def _open(table: LakeTable) -> None:
    delta = table.open()
    assert files_of(delta)
    assert delta.schema()


def _opening(folder: Path) -> list[Row]:
    """The log of many small commits, written by hand: each adds one file, a link to the first."""
    table = _table(folder)
    table.append(_batch(0, 10))
    log, first = Path(table.path) / "_delta_log", next(Path(table.path).glob("*.parquet"))
    made = next(json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines() if '"add"' in line)
    for version in range(1, COMMITS):
        name = f"part-{version:05d}.parquet"
        os.link(first, first.with_name(name))
        made["add"] |= {"path": name}
        (log / f"{version:020d}.json").write_text(json.dumps(made) + "\n")
    unread = elapsed(lambda: _open(table))
    checkpoint = elapsed(lambda: maintain(table, keys=KEYS, small=2 * COMMITS))
    files = quantile([elapsed(lambda: _open(table)) for _ in range(9)], 0.5) * 1000
    whole = elapsed(lambda: maintain(table, keys=KEYS))
    after = quantile([elapsed(lambda: _open(table)) for _ in range(9)], 0.5) * 1000
    assert table.stats().rows == 10 * COMMITS
    told = f"no checkpoint: {unread * 1000:,.0f} ms"
    bar = {"against": told, "bar": "<= 200 ms"}
    return [
        Row(name=f"open after {COMMITS:,} commits, {COMMITS:,} files", value=files, unit="ms", ratio=files / unread / 1000,
            holds=files <= 200, note=f"checkpoint by the maintenance, {checkpoint:.1f} s", **bar),
        Row(name=f"open after {COMMITS:,} commits, compacted", value=after, unit="ms", ratio=after / unread / 1000,
            holds=after <= 200, note=f"whole maintenance: {whole:.1f} s", **bar),
    ]  # fmt: skip


def _appending(folder: Path) -> list[Row]:
    table, found = _table(folder), dict[int, float]()
    for files in (1, FILES):
        for number in range(len(list(Path(table.path).glob("*.parquet"))), files):
            table.append(_batch(number))
        took = []
        for number in range(APPENDS):
            batch = _batch(files + number)
            took.append(elapsed(lambda batch=batch: table.append(batch)) * 1000)  # type: ignore[misc]
        found[files] = quantile(took, 0.5)
    few, many = found[1], found[FILES]
    return [
        Row(name=f"append {BATCH:,} rows to 1 file, p50", value=few, unit="ms"),
        Row(name=f"append {BATCH:,} rows to {FILES:,} files, p50", value=many, unit="ms", bar="<= 30 ms",
            against=f"to 1 file: {few:.1f} ms", ratio=many / few, holds=many <= 30),
    ]  # fmt: skip


def _compaction(folder: str) -> list[Row]:
    size = os.environ.get("BENCH_SIZE", "small")
    _apart(folder, "make", size)
    peer, ours = (_apart(folder, part, size) for part in ("peer", "ours"))  # ours changes the files
    count, ratio = SIZES[size], ours["seconds"] / peer["seconds"]
    told = f"DuckDB COPY ... ORDER BY, all at once: {peer['seconds']:.1f} s, {peer['peak_mb']:,.0f} MB"
    return [
        Row(name=f"sorted compaction, {count / 1e6:g}M rows", value=count / ours["seconds"], unit="rows/s", against=told,
            ratio=ratio, note="ratio of seconds"),
        Row(name=f"sorted compaction, {count / 1e6:g}M rows, memory", value=ours["peak_mb"], unit="MB", against=told,
            ratio=ours["peak_mb"] / peer["peak_mb"], note="range by range; files and rows as before"),
    ]  # fmt: skip


def _apart(folder: str, part: str, size: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_tables", f"{folder}/compaction", part, size]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _main(folder: str, part: str, size: str) -> None:
    table, count = _table(Path(folder)), SIZES[size]
    begin = time.perf_counter()
    if part == "make":
        _make(table, count)
    elif part == "ours":
        assert compact(table, keys=KEYS, everything=True).rows == count
    else:
        files = [f"{table.path}/{file.path}" for file in files_of(table.open())]
        query = (
            f"COPY (SELECT * FROM read_parquet({files}) ORDER BY card_id, event_time, _seq) TO '{folder}/one.parquet'"
        )
        engine().con.execute(query)
    print(json.dumps({"seconds": time.perf_counter() - begin, "peak_mb": _peak_mb()}))


def _peak_mb() -> float:
    """Return the most memory this program held; what the kernel tells of a child counts its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _make(table: LakeTable, count: int) -> None:
    for number in range(20):
        made = f"""SELECT (hash(i * 7 + {number}) % 100000)::BIGINT AS card_id, random() AS f0, random() AS f1, random() AS f2,
            make_timestamptz((1700000000000000 + hash(i) % 31536000000000)::BIGINT) AS event_time, event_time AS known_at
            FROM range({count // 20}) r(i)"""
        table.append(engine().con.execute(made).to_arrow_table())


if __name__ == "__main__":
    _main(*sys.argv[1:])
