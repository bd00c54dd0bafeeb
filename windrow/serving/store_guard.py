"""The online store as requests see it: one that does not answer is left alone, and asked again beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from windrow.errors import AwayError, StoreError
from windrow.serving.breaker import THRESHOLD, Breaker
from windrow.stores.online.rows import Block
from windrow.stores.online.store import Key, OnlineStore, Row

READ_SECONDS = 0.2  # that a read may wait for a server: all requests of the worker wait with it
_W = TypeVar("_W")
_R = TypeVar("_R")
_PROBED = "probe"  # a name that no group has: asking for it is a look-up like any other


class GuardedStore:
    """An `OnlineStore` for reading, behind a circuit breaker.

    While the breaker is open a read raises at once. When its rest is over, a thread asks the store: no request
    waits for one that hangs.

    Parameters
    ----------
    store
        Who is asked.
    breaker
        Counts its failures.
    """

    def __init__(self, store: OnlineStore, breaker: Breaker) -> None:
        self._store, self.breaker = store, breaker

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key); raise `AwayError` if the store is away."""
        return self._asked(self._store.read, wanted)

    def read_blocks(self, wanted: Sequence[tuple[str, Sequence[Key]]]) -> list[Block | list[Row | None]]:
        """Return what `read` does for the keys of each group; see `OnlineStore.read_blocks`."""
        return self._asked(self._store.read_blocks, wanted)

    def _asked(self, ask: Callable[[_W], _R], wanted: _W) -> _R:
        breaker = self.breaker
        if breaker.failures and breaker.state != "closed":
            self._probe()
            raise AwayError("the online store did not answer lately", next_step="wait until it is back")
        try:
            found = ask(wanted)
        except AwayError as error:
            # A time-out has cost every caller its wait, so one is enough.
            breaker.failed(times=THRESHOLD if error.slow else 1)
            raise
        if breaker.failures:
            breaker.succeeded()
        return found

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        return self._store.columns(group)

    def _probe(self) -> None:
        if self.breaker.allows():
            threading.Thread(target=self._probed, name="windrow-store-probe", daemon=True).start()

    def _probed(self) -> None:
        try:
            self._store.columns(_PROBED)
        except StoreError:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
