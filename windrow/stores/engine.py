"""The engine that runs Ibis expressions: one in-memory DuckDB per process, one cursor per thread."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windrow.errors import StoreError

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

_PROCESS_LOCK = threading.Lock()
_cursors = threading.local()
_root: tuple[int, Any] | None = None


def engine() -> Backend:
    """Return this thread's DuckDB connection, as an Ibis backend.

    Threads of a process share one in-memory database (its memory limit and its threads) through a
    cursor each. Session time zone UTC, no extension downloads, no progress bar; what does not fit in memory
    spills to the system's temporary folder.

    Raises
    ------
    StoreError
        In a process that was forked from one that had used its engine: DuckDB's threads and locks do not
        survive that, and now and then it would wait for ever.

    Examples
    --------
    >>> engine() is engine()
    True
    >>> engine().raw_sql("SELECT current_setting('TimeZone')").fetchone()
    ('UTC',)
    """
    held = getattr(_cursors, "held", None)
    if held is None or held[0] != os.getpid():
        held = (os.getpid(), _new_cursor())
        _cursors.held = held
    backend: Backend = held[1]
    return backend


def _new_cursor() -> Backend:
    from ibis.backends.duckdb import Backend

    cursor = Backend.from_connection(_database().cursor())  # sets the session's time zone to UTC
    cursor.raw_sql("SET enable_progress_bar = false")
    return cursor


def _database() -> Any:
    global _root
    with _PROCESS_LOCK:
        if _root is None:
            _root = (os.getpid(), _connect())
        if _root[0] != os.getpid():
            raise StoreError(
                "this process was forked from one that had used its engine, which does not survive a fork",
                next_step="start processes with multiprocessing.get_context('spawn')",
            )
        return _root[1]


def _connect() -> Any:
    import duckdb

    spill = Path(tempfile.gettempdir()) / f"windrow-duckdb-{os.getuid()}"
    config: dict[str, Any] = {"temp_directory": str(spill)}
    config |= {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    return duckdb.connect(":memory:", config=config)


def _forget_after_fork() -> None:
    # The lock may be held by a thread that does not exist in the child.
    global _PROCESS_LOCK
    _PROCESS_LOCK = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
