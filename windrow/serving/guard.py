"""Who may ask what: every request is let in, or refused, before its body is read.

| address | needs |
|---|---|
| ``/healthz``, ``/livez``, ``/readyz``, ``/ui/login`` | nothing; with ``metrics`` ``/readyz`` says which releases, and why not |
| ``/v1/{service}/predict``, ``/v1/{service}/batch`` | ``predict`` |
| ``/v1/{service}/outcomes`` | ``outcomes`` |
| ``/v1/ingest/{name}`` | ``ingest`` |
| ``/v1/requests/...`` | ``explain`` |
| ``/metrics``, ``/``, ``/ui/...`` | ``metrics``: how things are, read by machines and by people; in ``/ui/{service}`` also
  ``predict`` for its form, and ``explain`` for single predictions |
| ``/v1/{service}``, ``/v1/openapi.json``, ``/docs.json`` | any key: who may call needs the description |
| anything else | ``admin``; others are told that there is nothing |

A key comes in ``Authorization: Bearer ...``, the one header that every proxy and log knows to hide, or stands behind the
cookie of a session. Requests with a cookie that change something carry the session's CSRF token in ``x-csrf-token``; the
forms of the pages carry it as the field ``csrf``.
Rates are counted per key and worker: two replicas let through twice as much.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

from windrow.errors import RefusedError, RequestError
from windrow.serving.keyring import Grant, Keyring
from windrow.serving.local import check_local
from windrow.serving.sessions import Session, Sessions
from windrow.stores.metadata import AccessKey

LOGIN, LOGOUT = "/ui/login", "/ui/logout"
GRANT, SESSION = "windrow.grant", "windrow.session"  # where an ASGI scope has them once the request is let in

ANY, _NOTHING = "any", "nothing"
READY = "/readyz"
_OPEN = frozenset(("/healthz", "/livez", READY))
_FIXED = {"/metrics": "metrics", "/": "metrics", "/ui": "metrics", "/v1/openapi.json": ANY, "/docs.json": ANY}
_ACTIONS = {"predict": "predict", "batch": "predict", "outcomes": "outcomes"}
_READING = ("GET", "HEAD")
_FORMS = "/ui/"  # what is posted here is a form with the token as a field, checked where it is read
_CHALLENGE = b'Bearer realm="windrow"'
_SECOND = 1_000_000_000

Scope = MutableMapping[str, Any]


class Guard:
    """Lets requests in.

    Parameters
    ----------
    keyring
        The keys that are valid.
    insecure
        Whether everybody on this machine may do everything, without a key.
    """

    def __init__(self, keyring: Keyring, *, insecure: bool = False) -> None:
        self.keyring, self.sessions = keyring, Sessions(keyring)
        everybody = AccessKey("insecure", "everybody here", "", ("admin",), None, None, at=0)
        self._everybody = Grant(everybody) if insecure else None

    @property
    def insecure(self) -> bool:
        """Whether no keys are asked for."""
        return self._everybody is not None

    def admit(self, scope: Scope) -> None:
        """Let a request in: its scope has the `GRANT` then, and the `SESSION` where a browser asks.

        Raises
        ------
        RefusedError
            401 without a valid key, 403 for a key without the scope, 404 for an address that is nothing to this key,
            429 beyond the key's rate, 503 while nobody knows which keys are valid.
        RequestError
            403 from elsewhere where no keys are asked for, and for a session's request without its CSRF token.
        """
        path = scope["path"]
        if path in _OPEN:
            if path == READY:
                self._recognise(scope)
            return
        if self._everybody is not None:
            check_local(scope)
            scope[GRANT] = self._everybody
            return
        if path == LOGIN:
            return
        scope[GRANT] = grant = self._grant(scope)
        needed = needs(path)
        if needed is not ANY:
            require(grant, needed)
        wait = grant.spend(time.monotonic_ns())
        if wait:
            raise _too_often(wait)

    def _recognise(self, scope: Scope) -> None:
        """Let in who may know how things are, and refuse nobody."""
        try:
            if self._everybody is not None:
                check_local(scope)
            grant = self._everybody or self._grant(scope)
            require(grant, "metrics")
        except RequestError:
            return
        scope[GRANT] = grant

    def _grant(self, scope: Scope) -> Grant:
        key, cookie = None, False
        for name, value in scope["headers"]:
            if name == b"authorization":
                if key is not None:
                    raise _no_key("There are several headers Authorization", "send one")
                key = value
            elif name == b"cookie":
                cookie = True
        if not self.keyring.fresh:
            raise _unknown_keys()
        if key is None:
            return self._signed_in(scope, cookie=cookie).grant
        grant = self.keyring.find(key[7:]) if key[:7].lower() == b"bearer " else None
        if grant is None:
            raise _bad_key()
        return grant

    def _signed_in(self, scope: Scope, *, cookie: bool) -> Session:
        session = self.sessions.find(scope) if cookie else None
        if session is None:
            raise _no_key("There is no access key", "send the header Authorization: Bearer wr_...")
        if scope["method"] not in _READING and not scope["path"].startswith(_FORMS):
            session.check_csrf(_header(scope, b"x-csrf-token"))
        scope[SESSION] = session
        return session


@lru_cache(maxsize=256)  # half a microsecond of every request: most ask for one of a few addresses
def needs(path: str) -> str:
    """Return the scope that an address needs, ``any`` for any key, or ``nothing`` for an address that is none.

    Examples
    --------
    >>> [needs(path) for path in ("/v1/fraud/predict", "/v1/ingest/predict", "/v1/fraud", "/ui/lineage", "/nowhere")]
    ['predict', 'ingest', 'any', 'metrics', 'nothing']
    """
    fixed = _FIXED.get(path)
    if fixed is not None:
        return fixed
    parts = path.split("/", 4)
    if parts[1:2] == ["v1"] and len(parts) > 2:
        if parts[2] == "ingest" and len(parts) == 4:
            return "ingest"
        if parts[2] == "requests" and len(parts) > 3:
            return "explain"
        if len(parts) == 4:
            return _ACTIONS.get(parts[3], _NOTHING)
        return ANY if len(parts) == 3 else _NOTHING
    return "metrics" if path.startswith("/ui/") else _NOTHING


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _no_key(what: str, next_step: str, challenge: bytes = _CHALLENGE) -> RefusedError:
    step = f"{next_step}; keys are made with `windrow keys create`"
    return RefusedError(401, "no-key", what, next_step=step, headers=((b"www-authenticate", challenge),))


def _bad_key() -> RefusedError:
    return _no_key(
        "The access key is not valid here: unknown, revoked or expired",
        "send the header Authorization: Bearer wr_... with a key of this installation",
        _CHALLENGE + b', error="invalid_token"',
    )


def require(grant: Grant, needed: str) -> None:
    """Raise `RefusedError` (403, or 404 for an address that is nothing) unless a key has the scope `needed`."""
    if needed in grant.scopes:
        return
    if needed == _NOTHING:
        if "admin" in grant.scopes:
            return
        raise RefusedError(
            404, "no-page", "There is nothing at this address", next_step="see /v1/openapi.json for what there is"
        )
    raise RefusedError(
        403,
        "wrong-scope",
        f"This address needs a key with the scope {needed!r}",
        next_step=f"make one: windrow keys create NAME --scope {needed}",
        headers=((b"www-authenticate", _CHALLENGE + f', error="insufficient_scope", scope="{needed}"'.encode()),),
    )


def _too_often(wait: int) -> RefusedError:
    seconds = -(-wait // _SECOND)
    return RefusedError(
        429,
        "too-often",
        "The access key has used up its rate",
        next_step="send it again after the seconds in the header Retry-After",
        headers=((b"retry-after", b"%d" % seconds),),
    )


def _unknown_keys() -> RefusedError:
    return RefusedError(
        503,
        "keys-unknown",
        "The metadata store could not be read for minutes: nobody knows which keys are valid",
        next_step="try again; the service's log says why",
        headers=((b"retry-after", b"5"),),
    )
