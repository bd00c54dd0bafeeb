"""The keys that are valid now, as one worker knows them: found in a microsecond, and followed in a thread of its own."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from hmac import compare_digest

from windrow.errors import WindrowError
from windrow.serving.keys import LENGTH, PREFIX, SCOPES, digest
from windrow.stores.metadata import AccessKey, Metadata

POLL_SECONDS = 0.2
STALE_SECONDS = 300.0  # so long keys are believed while the metadata store cannot be read
_SECOND = 1_000_000_000

_log = logging.getLogger("windrow.serving")


class Grant:
    """What one valid key may do, and how much of its rate is left in this worker.

    Attributes
    ----------
    id, name
        Of the key.
    scopes
        Spelt out: a key with ``admin`` has all.
    """

    __slots__ = ("_burst", "_due", "_interval", "expires", "hash", "id", "name", "scopes")

    def __init__(self, key: AccessKey) -> None:
        self.id, self.name, self.hash = key.id, key.name, bytes.fromhex(key.hash)
        self.scopes = frozenset(SCOPES if "admin" in key.scopes else key.scopes)
        self.expires = math.inf if key.expires_at is None else key.expires_at * 1000
        # A bucket of tokens, kept as the time at which it is full again: whole nanoseconds, so that it is exact.
        self._interval = 0 if key.rate is None else max(1, round(_SECOND / key.rate))
        self._burst = self._interval * (max(1, math.ceil(key.rate or 0)) - 1)
        self._due = 0

    def spend(self, now: int) -> int:
        """Take one request from the rate; return 0, or the nanoseconds to wait where nothing is left.

        Parameters
        ----------
        now
            Nanoseconds of a monotonic clock.

        Examples
        --------
        >>> key = AccessKey("0a1b2c3d4e", "till 7", "ab" * 32, ("predict",), rate=2.0, expires_at=None, at=0)
        >>> grant = Grant(key)
        >>> [grant.spend(now) for now in (0, 0, 0, 500_000_000)]
        [0, 0, 500000000, 0]
        """
        if not self._interval:
            return 0
        due = self._due if self._due > now else now
        wait = due - now - self._burst
        if wait > 0:
            return wait
        self._due = due + self._interval
        return 0


class Keyring:
    """Finds the grant of a key.

    Only keys that exist are held, and nothing is remembered of a key that is presented: garbage takes no memory, and a
    revoked key is refused from the next poll on.

    Parameters
    ----------
    metadata
        Where keys are kept; the keyring closes it.

    Notes
    -----
    It polls in a thread of its own, because the one that follows releases may be loading a model for seconds. While the
    store cannot be read, keys stay as they are for `STALE_SECONDS`: predictions do not need the store, and who cannot
    reach it cannot revoke either.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._grants: Mapping[bytes, Grant] = {}
        self._rows: list[AccessKey] = []
        self._counter: int | None = None
        self._read = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="windrow-keys", daemon=True)

    def start(self) -> None:
        """Read the keys and follow them until `close`."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop following and give the store back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._metadata.close()

    @property
    def fresh(self) -> bool:
        """Whether the keys were read lately enough to be believed."""
        return time.monotonic() - self._read < STALE_SECONDS

    def find(self, key: bytes) -> Grant | None:
        """Return the grant of a key, or None for one that is unknown, revoked or expired."""
        if len(key) != LENGTH:
            return None
        grant = self._grants.get(key[:PREFIX])
        if grant is None or not compare_digest(digest(key), grant.hash) or time.time_ns() >= grant.expires:
            return None
        return grant

    def valid(self, id: str) -> Grant | None:
        """Return the grant of the key with an id while that key is valid, else None."""
        grant = self._grants.get(f"wr_{id}".encode())
        return None if grant is None or time.time_ns() >= grant.expires else grant

    def audit(self, grant: Grant, action: str, subject: str) -> None:
        """Remember that the holder of a key administered something."""
        self._metadata.add_audit(f"key:{grant.id}", action, subject, {"name": grant.name})

    def refresh(self) -> None:
        """Read the keys if the store was written to; what is left of a rate stays with its key."""
        counter = self._metadata.change_counter()
        if counter != self._counter:
            rows = self._metadata.access_keys()
            if rows != self._rows:
                self._grants, self._rows = self._granted(rows), rows
            self._counter = counter
        self._read = time.monotonic()

    def _granted(self, rows: list[AccessKey]) -> dict[bytes, Grant]:
        """Return the grants of the keys that are not revoked; keys never change, so who is still valid is as before."""
        valid = {f"wr_{row.id}".encode(): row for row in rows if row.revoked_at is None}
        found = {prefix: self._grants.get(prefix) or _grant(row) for prefix, row in valid.items()}
        return {prefix: grant for prefix, grant in found.items() if grant is not None}

    def _poll(self) -> None:
        told = False
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.refresh()
                told = False
            except WindrowError as error:
                if not told:
                    _log.error("access keys cannot be read, and stay as they are for now: %s", error.message)
                told = True
            except Exception:  # noqa: BLE001 - whatever fails, the thread must live: a key may be revoked any time
                _log.exception("access keys cannot be read; trying again")


def _grant(row: AccessKey) -> Grant | None:
    """Return what a key may do; None, so that it is refused and all others are as they were, where its row is damaged."""
    try:
        return Grant(row)
    except (ValueError, OverflowError) as error:
        _log.error("access key %s is refused: what is kept of it is damaged (%s)", row.id, error)
        return None
