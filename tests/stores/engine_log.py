"""How much a work asks of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from windrow.stores.engine import engine


def queries(work: Callable[[], Any]) -> int:
    """Count the statements that the engine runs meanwhile, by its own log."""
    con = engine().con
    con.execute("CALL enable_logging('QueryLog')")
    try:
        before = con.execute("SELECT count(*) FROM duckdb_logs WHERE type = 'QueryLog'").fetchone()[0]
        work()
        after = con.execute("SELECT count(*) FROM duckdb_logs WHERE type = 'QueryLog'").fetchone()[0]
    finally:
        con.execute("CALL disable_logging()")
        con.execute("CALL truncate_duckdb_logs()")
    return int(after - before) - 1  # the second question is in the log too
