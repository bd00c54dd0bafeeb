"""Who is signed in at ``/ui``: random ids in memory, as long as somebody uses them and the key that was shown is valid."""

from __future__ import annotations

import secrets
import time
from collections.abc import MutableMapping
from hmac import compare_digest
from typing import Any

from windrow.errors import RequestError
from windrow.serving.keyring import Grant, Keyring
from windrow.serving.keys import digest

IDLE_SECONDS, SECONDS = 3600, 12 * 3600  # a session ends so long after its last use, and so long after it began
_MOST = 1000  # people at one worker; then the oldest has to sign in again

Scope = MutableMapping[str, Any]


class Session:
    """One signed-in browser.

    Attributes
    ----------
    grant
        Of the key that was shown.
    csrf
        The token that every request with this session which changes something must carry.
    """

    __slots__ = ("_begun", "_used", "csrf", "grant")

    def __init__(self, grant: Grant) -> None:
        self.grant, self.csrf = grant, secrets.token_urlsafe(32)
        self._begun = self._used = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether it was begun, or used last, too long ago."""
        now = time.monotonic()
        return now - self._used >= IDLE_SECONDS or now - self._begun >= SECONDS

    def use(self) -> None:
        """Keep it from ending for want of use."""
        self._used = time.monotonic()

    def check_csrf(self, token: str) -> None:
        """Raise 403 unless `token` is this session's: no other site knows it."""
        if not compare_digest(token.encode("utf-8", "replace"), self.csrf.encode()):
            raise RequestError(
                403,
                "no-csrf-token",
                "The request changes something and lacks the session's CSRF token",
                where="headers",
                next_step="load the page again and send its token: form field csrf, or header x-csrf-token",
            )


class Sessions:
    """The sessions of one worker; they end with it.

    Parameters
    ----------
    keyring
        Says whether the key behind a session is still valid.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._sessions: dict[bytes, Session] = {}

    def open(self, grant: Grant) -> tuple[Session, str]:
        """Begin a session; return it with the cookie's value."""
        self._sessions = {id: session for id, session in self._sessions.items() if not session.over}
        while len(self._sessions) >= _MOST:
            del self._sessions[next(iter(self._sessions))]
        cookie, session = secrets.token_urlsafe(32), Session(grant)
        self._sessions[digest(cookie.encode())] = session
        return session, cookie

    def find(self, scope: Scope) -> Session | None:
        """Return the session of a request's cookie, or None."""
        session = self._sessions.get(digest(_cookie(scope)))
        if session is None or session.over or not self._keyring.valid(session.grant.id):
            return None
        session.use()
        return session

    def close(self, scope: Scope) -> None:
        """End the session of a request's cookie."""
        self._sessions.pop(digest(_cookie(scope)), None)


def cookie_name(scope: Scope) -> str:
    """Return the cookie's name; under TLS one that browsers keep to this host, and never send without TLS.

    Examples
    --------
    >>> cookie_name({"scheme": "https"}), cookie_name({})
    ('__Host-windrow', 'windrow')
    """
    return "__Host-windrow" if scope.get("scheme") == "https" else "windrow"


def cookie_header(scope: Scope, value: str) -> tuple[bytes, bytes]:
    """Return the header that sets the session's cookie until the browser is closed; "" makes it forget at once.

    Examples
    --------
    >>> cookie_header({"scheme": "https"}, "abc")[1]
    b'__Host-windrow=abc; Path=/; HttpOnly; SameSite=Strict; Secure'
    """
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    age = "" if value else "; Max-Age=0"
    text = f"{cookie_name(scope)}={value}; Path=/; HttpOnly; SameSite=Strict{age}{secure}"
    return b"set-cookie", text.encode()


def _cookie(scope: Scope) -> bytes:
    wanted = cookie_name(scope).encode() + b"="
    for name, value in scope.get("headers", ()):
        if name == b"cookie":
            for part in value.split(b";"):
                if part.strip().startswith(wanted):
                    return bytes(part.strip()[len(wanted) :])
    return b""
