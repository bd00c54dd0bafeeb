"""Benchmarks: modules ``bench_<name>.py`` beside this file, each with a function ``rows() -> list[Row]``.

    from tests.benchmarks.harness import Row, clock, quantile

    def rows() -> list[Row]:
        ours, theirs = ..., ...
        return [Row("plane p50", ours, "us", against="thin prototype", ratio=ours / theirs, bar="<= 60 us", holds=ours <= 60)]

Ratios are taken within one run on one machine. A row that misses its bar says so; it does not fail the run.
"""

from __future__ import annotations

import importlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from windrow.settings import Settings
from windrow.telemetry import switch_off

_FOLDER = Path(__file__).parent
_PIPE_WIDTH = 150  # columns of the table in a log
_PACKAGES = ("windrow", "numpy", "duckdb", "ibis-framework", "deltalake", "pyarrow", "lmdb", "onnxruntime", "scikit-learn", "bentoml", "dagster")  # fmt: skip


class Row(msgspec.Struct, kw_only=True):
    """One measured figure and the bar it is held to.

    Attributes
    ----------
    value, unit
        The figure; `unit` such as ``s``, ``us``, ``1/s``, ``x``.
    against, ratio
        What it was compared with in the same run, and ours divided by theirs (None without a peer).
    bar, holds
        The bar in words, such as ``<= 60 us``, and whether the figure keeps it (None without a bar).
    note
        What a reader must know to trust the figure.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    bar: str = ""
    holds: bool | None = None
    note: str = ""


class Line(Row, kw_only=True):
    """A row as it is kept: with when, where and on which versions it was measured."""

    bench: str
    measured_at: str
    machine: str
    versions: dict[str, str]
    seconds: float


def best_of(function: Callable[[], object], *, times: int = 3) -> float:
    """Return the least seconds of `times` calls."""
    return min(elapsed(function) for _ in range(times))


def elapsed(function: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def each(function: Callable[[], object], *, calls: int, warm: int = 200) -> list[float]:
    """Return the microseconds of each of `calls` calls, after `warm` unmeasured ones."""
    for _ in range(warm):
        function()
    spent, now = [0] * calls, time.perf_counter_ns
    for i in range(calls):
        begin = now()
        function()
        spent[i] = now() - begin
    return [nanoseconds / 1000 for nanoseconds in spent]


def quantile(values: Sequence[float], q: float) -> float:
    """Return the value below which the share `q` of `values` lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def main(arguments: Sequence[str]) -> int:
    """Run all benchmarks, or those whose name contains an argument; print and keep their rows."""
    switch_off()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    names = [name for name in _found() if not arguments or any(a in name for a in arguments)]
    if not names:
        console.print(f"No benchmark is called {' '.join(arguments)!r}. There are: {', '.join(_found())}.")
        return 2
    lines = [line for name in names for line in _measure(name, console)]
    console.print(_table(lines))
    _keep(lines, Settings.read().folder("") / "bench.jsonl", console)
    missed = [line.name for line in lines if line.holds is False]
    console.print(f"[red]Missed: {', '.join(missed)}[/red]" if missed else "[green]Every bar holds.[/green]")
    return 0


def _found() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in _FOLDER.glob("bench_*.py"))


def _measure(name: str, console: Console) -> Iterable[Line]:
    module: ModuleType = importlib.import_module(f"tests.benchmarks.bench_{name}")
    begin = time.perf_counter()
    with console.status(f"measuring {name}"):
        rows: list[Row] = module.rows()
    seconds = time.perf_counter() - begin
    facts: dict[str, Any] = {
        "bench": name,
        "measured_at": _now(),
        "machine": _machine(),
        "versions": _versions(),
        "seconds": seconds,
    }
    return [Line(**msgspec.structs.asdict(row), **facts) for row in rows]


def _table(lines: Sequence[Line]) -> Table:
    table = Table(title="windrow benchmarks")
    for head in ("what", "value", "against", "ratio", "bar", ""):
        table.add_column(head, justify="right" if head in ("value", "ratio") else "left")
    for line in lines:
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
        verdict = {None: "", True: "[green]holds[/green]", False: "[red]MISSED[/red]"}[line.holds]
        table.add_row(line.name, f"{_short(line.value)} {line.unit}", line.against, ratio, line.bar, verdict)
    return table


def _keep(lines: Sequence[Line], path: Path, console: Console) -> None:
    with path.open("ab") as file:
        for line in lines:
            file.write(msgspec.json.encode(line) + b"\n")
    console.print(f"{len(lines)} rows appended to {path}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _machine() -> str:
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return {**found, "commit": _commit()}


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=_FOLDER, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
