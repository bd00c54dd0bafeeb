"""The online store as requests see it: one that does not answer is left alone, and asked again beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from windrow.errors import AwayError, NotFoundError, StoreError
from windrow.serving.breaker import THRESHOLD, Breaker
from windrow.stores.online.rows import Block
from windrow.stores.online.store import Key, OnlineStore, Row

READ_SECONDS = 0.2  # that a read may wait for a server: all requests of the worker wait with it
_W = TypeVar("_W")
_R = TypeVar("_R")
_PROBED = "probe"  # a name that no group has: asking for it is a look-up like any other


class LateStore:
    """An `OnlineStore` for reading that is opened by the first read that succeeds: it may be away until then.

    Parameters
    ----------
    opened
        Opens the store, or raises `AwayError`.

    Examples
    --------
    >>> def opened() -> OnlineStore:
    ...     raise AwayError("nobody answers", next_step="wait")
    >>> LateStore(opened).read([("card_v1", (7,))])
    Traceback (most recent call last):
    windrow.errors.AwayError: nobody answers. Next: wait
    """

    def __init__(self, opened: Callable[[], OnlineStore]) -> None:
        self._opened, self._lock = opened, threading.Lock()
        self._store: OnlineStore | None = None

    def read(self, wanted: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """Return the row, or None, for each (group, key); raise `AwayError` if the store is away."""
        return self._there().read(wanted)

    def read_blocks(self, wanted: Sequence[tuple[str, Sequence[Key]]]) -> list[Block | list[Row | None]]:
        """Return what `read` does for the keys of each group; see `OnlineStore.read_blocks`."""
        return self._there().read_blocks(wanted)

    def columns(self, group: str) -> tuple[str, ...] | None:
        """Return the column names of a group's values, or None if nothing was ever written."""
        return self._there().columns(group)

    def check(self) -> None:
        """Notice what a reader cannot; see `OnlineStore.check`."""
        if self._store is not None:
            self._store.check()

    def close(self) -> None:
        """Give back the store, if it was ever there."""
        if self._store is not None:
            self._store.close()

    def _there(self) -> OnlineStore:
        if self._store is None:
            with self._lock:  # a request and a probe may be first at the same time
                try:
                    self._store = self._store or self._opened()
                except NotFoundError as error:  # a server that came back empty: nothing yet, for a release that waits
                    raise AwayError(error.what, next_step=error.next_step) from error
        return self._store


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

    def __init__(self, store: OnlineStore | LateStore, breaker: Breaker) -> None:
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
