"""What the contract suites say rows with."""

from __future__ import annotations

from collections.abc import Callable

from windrow.stores.online.store import OnlineStore, Row

Open = Callable[[], OnlineStore]


def row(*values: object, at: int = 100, known: int | None = None, seq: int = 1) -> Row:
    return Row(at, at if known is None else known, seq, values)
