"""Access keys: how one is made, what it may do, and what is kept of it.

A key is ``wr_<id>_<secret>``. The id names it in lists, logs and the audit; the secret is 256 random bits and is shown once.
What is kept is the SHA-256 of the whole key. A slow hash with a salt protects passwords, which people choose and others
guess; of 2^256 equally likely secrets nobody guesses one, however fast a guess is, and no two are alike.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence

from windrow.errors import SettingsError, closest, listed
from windrow.stores.metadata import AccessKey, Metadata

SCOPES = ("predict", "ingest", "outcomes", "explain", "metrics", "admin")
PREFIX, LENGTH = len("wr_") + 10, len("wr_") + 10 + len("_") + 64  # of ``wr_<id>``, and of all
MIN_RATE, MAX_RATE = 1e-5, 1e6  # about one a day, and more than a worker answers
_MAX_NAME = 64


def make_key(
    metadata: Metadata,
    name: str,
    *,
    scopes: Sequence[str],
    rate: float | None = None,
    expires_at: int | None = None,
) -> tuple[AccessKey, str]:
    """Make an access key; return what is kept of it, and the key itself, which is in no other place.

    Parameters
    ----------
    name
        For people: who or what will use it.
    scopes
        Of `SCOPES`; ``admin`` is all of them.
    rate
        Requests per second and worker that it may make, with a burst of one second's worth; default: no limit.
    expires_at
        UTC microseconds of the wall clock after which it is refused; default: never.

    Raises
    ------
    SettingsError
        If a scope is unknown or there is none, or the name, rate or time cannot be used.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> metadata = Metadata(f"sqlite:///{mkdtemp()}/metadata.db")
    >>> kept, key = make_key(metadata, "till 7", scopes=["predict"], rate=50)
    >>> key.startswith(f"wr_{kept.id}_"), len(key), key in repr(kept)
    (True, 78, False)
    """
    _check(name, scopes, rate, expires_at)
    id = secrets.token_hex(5)
    key = f"wr_{id}_{secrets.token_hex(32)}"
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    kept = AccessKey(id, name, digest(key.encode()).hex(), ordered, rate, expires_at, at=time.time_ns() // 1000)
    metadata.add_key(kept)
    return kept, key


def digest(key: bytes) -> bytes:
    """Return what is kept of a key.

    Examples
    --------
    >>> digest(b"wr_")[:2].hex()
    'fa9a'
    """
    return hashlib.sha256(key).digest()


def _check(name: str, scopes: Sequence[str], rate: float | None, expires_at: int | None) -> None:
    if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        raise SettingsError(
            f"an access key has no usable name ({len(name)} characters)",
            next_step=f"name who will use it, in at most {_MAX_NAME} printable characters",
        )
    for scope in scopes:
        if scope not in SCOPES:
            raise SettingsError(
                f"there is no scope {scope!r}",
                exists=f"There are {listed(SCOPES)}",
                next_step=closest(scope, SCOPES) or "use one of them",
            )
    if not scopes:
        raise SettingsError("the key would have no scope", next_step=f"give it one or more of {listed(SCOPES)}")
    if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
        raise SettingsError(
            f"the rate is {rate:g}",
            next_step=f"write requests per second from {MIN_RATE:g} to {MAX_RATE:g}, such as 50 or 0.5",
        )
    if expires_at is not None and expires_at <= time.time_ns() // 1000:
        raise SettingsError("the key would have expired already", next_step="choose a time in the future")
