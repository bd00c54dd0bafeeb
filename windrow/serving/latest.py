"""The newest predictions of a worker, in memory, for the page that shows them.

They are kept for ten minutes, as the explainer keeps rows for its tickets: forgetting an entity need not look here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windrow.stores.log import LogRecord

if TYPE_CHECKING:
    from windrow.serving.plane import Log

MOST = 200  # of each service
SECONDS = 600


class Latest:
    """A log around another one that also keeps what was predicted lately.

    Parameters
    ----------
    log
        Written first: what it refuses is not kept.

    Examples
    --------
    >>> class Nowhere:
    ...     def append(self, records): pass
    >>> latest = Latest(Nowhere())
    >>> now = time.time_ns() // 1000
    >>> latest.append([LogRecord(kind="prediction", request_id="r1", service="churn", row=n, received_at=now) for n in (0, 1)])
    >>> [record.row for record in latest.of("churn")], latest.of("fraud")
    ([1, 0], [])
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kept: dict[str, deque[LogRecord]] = {}

    def append(self, records: Sequence[LogRecord]) -> None:
        """Write records; raise what the log raises."""
        self._log.append(records)
        first = records[0]
        if first.kind == "prediction":
            kept = self._kept.get(first.service)
            if kept is None:
                kept = self._kept[first.service] = deque(maxlen=MOST)
            kept.extend(records)

    def of(self, service: str) -> list[LogRecord]:
        """Return the newest predictions of a service, newest first."""
        kept = self._kept.get(service)
        since = time.time_ns() // 1000 - SECONDS * 1_000_000
        while kept and kept[0].received_at < since:
            kept.popleft()
        return [] if kept is None else list(kept)[::-1]
