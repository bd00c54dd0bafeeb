"""Processes that write to a table, read from it and rewrite it at the same time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pyarrow as pa

from windrow.errors import StoreError
from windrow.stores.compaction import compact
from windrow.stores.engine import engine
from windrow.stores.lake import Lake

# A forked child would inherit threads of the engine that do not run there.
SPAWN = multiprocessing.get_context("spawn")
KEY = "features/card_v1"
TIME = pa.timestamp("us", "UTC")


def batch(cards: list[int], *, at: int = 1_700_000_000_000_000) -> pa.Table:
    times = pa.array([at + card for card in cards], TIME)
    return pa.table({"card_id": pa.array(cards, pa.int64()), "event_time": times, "known_at": times})


def append_batches(root: str, writer: int, batches: int) -> None:
    table = Lake(root).table(KEY)
    for number in range(batches):
        table.append(batch([writer * 10_000 + number]))


def compact_until(root: str, done: Event, *, key: str = KEY) -> None:
    table = Lake(root).table(key)
    while not done.is_set():
        with suppress(StoreError):  # nothing is there yet, or another rewrite was quicker every time
            compact(table, keys=["card_id"], everything=True)


def delete_each(root: str, cards: list[int]) -> None:
    table = Lake(root).table(KEY)
    for card in cards:
        gone = pa.table({"card_id": pa.array([card], pa.int64())})
        while not (table.exists and table.delete(gone).rows):
            time.sleep(0.01)


def together(*work: tuple[Callable[..., None], Any]) -> None:
    """Run each (function, arguments) in a process of its own; every one must end well."""
    processes = [SPAWN.Process(target=function, args=arguments) for function, arguments in work]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def cards_of(root: Path | str, **options: Any) -> list[int]:
    found: list[int] = Lake(str(root)).table(KEY).scan(engine(), **options).card_id.to_pyarrow().to_pylist()
    return sorted(found)
