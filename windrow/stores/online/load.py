"""Bulk loads: a new generation of a group is filled beside the old one, and all readers switch in one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from windrow.stores.online.generations import begin, retire, switch
from windrow.stores.online.rows import Packed, packed_batches
from windrow.stores.online.store import Key, Row
from windrow.stores.online.transaction import Conflict, Transaction

if TYPE_CHECKING:
    from windrow.stores.online.store import OnlineStore

_ATTEMPTS = 50
_T = TypeVar("_T")


class Loaded(NamedTuple):
    """What a bulk load did: rows given to it, entities that readers see since it switched."""

    rows: int
    entities: int


class Load:
    """A bulk load under way, made by `OnlineStore.bulk`; left without `switch`, it leaves no trace.

    Rows that others write to the group meanwhile (`OnlineStore.write`, `Transaction.put`) go to both
    generations, and the newest wins in both. States (`Transaction.set`) go to the old one only: what the load
    lacks of them is given to `switch`.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from windrow.stores.online.store import open_online
    >>> store = open_online(f"lmdb://{mkdtemp()}/online", write=True)
    >>> with store.bulk("card_v1", ["limit"]) as load:
    ...     load.write([((7,), Row(10, 10, 1, (500.0,)))])
    ...     before = store.read([("card_v1", (7,))])
    ...     load.switch()
    1
    Loaded(rows=1, entities=1)
    >>> before, store.read([("card_v1", (7,))])[0].values
    ([None], (500.0,))
    """

    def __init__(self, store: OnlineStore, group: str, columns: Sequence[str]) -> None:
        self._store, self._group, self._columns = store, group, tuple(columns)
        self._rows, self._open = 0, True
        self.generation = attempt(store, lambda txn: begin(txn, group, self._columns, now=time.time_ns() // 1000))

    def write(self, rows: Iterable[tuple[Key, Row]]) -> int:
        """Store rows in the new generation, the newest of each key; return how many were given.

        Raises
        ------
        StoreError
            If a key or value cannot be stored, or the load was superseded: another one began, or an
            entity of the group was deleted.
        """
        return self.write_packed(packed_batches(self._group, self._columns, rows))

    def write_packed(self, batches: Iterable[Packed]) -> int:
        """Store packed rows, one transaction for each batch; return how many were given."""
        before = self._rows
        for batch in batches:
            self._store.fill(self._group, self.generation, batch)
            self._rows += len(batch.keys)
        return self._rows - before

    def switch(self, before: Callable[[Transaction], object] | None = None) -> Loaded:
        """Let all readers see the new generation, in one transaction; then erase the old one.

        Parameters
        ----------
        before
            Called in that transaction, with the group already switched: what it puts, sets and marks
            becomes visible together with the load. It may be called again if somebody else interfered.
        """

        def work(txn: Transaction) -> None:
            switch(txn, self._group, self.generation)
            if before is not None:
                before(txn)

        attempt(self._store, work)
        self._open = False
        self._store.erase_retired()
        return Loaded(self._rows, self._store.count(self._group))

    def close(self) -> None:
        """Drop what was loaded, unless it was switched."""
        if self._open:
            self._open = False
            attempt(self._store, lambda txn: retire(txn, self._group, self.generation))
            self._store.erase_retired()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def attempt(store: OnlineStore, work: Callable[[Transaction], _T]) -> _T:
    """Do `work` in a transaction, again if somebody else interfered."""
    for number in range(_ATTEMPTS):
        try:
            with store.transaction() as txn:
                made = work(txn)
        except Conflict:
            if number == _ATTEMPTS - 1:
                raise
        else:
            return made
    raise AssertionError("unreachable")
