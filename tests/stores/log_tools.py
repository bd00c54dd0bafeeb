"""Small records for tests of the log, and a child process that writes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from windrow.stores.log import LogRecord, LogWriter

SPAWN = multiprocessing.get_context("spawn")


def prediction(number: int, *, service: str = "churn", **changes: Any) -> LogRecord:
    facts: dict[str, Any] = {
        "kind": "prediction",
        "received_at": 1_000_000 + number,
        "output": number / 2,
        "vector": {"x": float(number)},
    }
    return LogRecord(request_id=f"r{number}", service=service, **{**facts, **changes})


def outcome(request_id: str, value: float, *, known_at: int, **changes: Any) -> LogRecord:
    facts = {"service": "churn", **changes}
    return LogRecord(kind="outcome", request_id=request_id, outcome=value, known_at=known_at, **facts)


def _write_for_ever(folder: Path, pipe: Connection, options: dict[str, Any]) -> None:
    with LogWriter(folder, "victim", **options) as log:
        number = 0
        while True:
            log.append([prediction(number, row=row) for row in range(2)])
            pipe.send(number)
            number += 1


def write_quietly(folder: Path, worker: str) -> None:
    with LogWriter(folder, worker, segment_bytes=2_000) as log:
        number = 0
        while True:
            log.append([prediction(number)])
            number += 1
            time.sleep(0.003)


def killed_writer(folder: Path, *, after: int, **options: Any) -> int:
    """Return the last number that a writer said it had logged, after kill -9 of it."""
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=_write_for_ever, args=(folder, theirs, options))
    child.start()
    theirs.close()
    assert child.pid is not None
    last = -1
    while last < after:
        last = ours.recv()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return _drained(ours.recv, last)


def _drained(receive: Callable[[], int], last: int) -> int:
    try:
        while True:
            last = receive()
    except EOFError:
        return last
