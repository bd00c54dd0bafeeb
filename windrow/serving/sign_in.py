"""Signing in at ``/ui/login``: an access key for a session, so that a browser need not hold the key."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from windrow.errors import RequestError
from windrow.serving.answers import HTML, Reply
from windrow.serving.guard import LOGIN, LOGOUT, SESSION, Guard
from windrow.serving.keyring import Grant
from windrow.serving.sessions import Session, cookie_header
from windrow.serving.ui.look import SAFE, document

FORM = b"application/x-www-form-urlencoded"
NEEDED = "metrics"  # what the pages at /ui need, so a key without it opens none
_LONGEST = 4096
_PLACE = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,500}")
Scope = MutableMapping[str, Any]


class SignIn:
    """The form, what it is sent with, and the way out.

    Parameters
    ----------
    guard
        Whose sessions are begun and ended.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def page(self, scope: Scope) -> Reply:
        """Return the form; where no keys are asked for, the way to the pages."""
        if self._guard.insecure:
            return _moved("/")
        return _form(_place(_fields(scope.get("query_string", b"")).get("next")))

    async def enter(self, scope: Scope, body: bytes) -> Reply:
        """Begin a session for the key in a form; the form again where the key opens nothing.

        Raises
        ------
        RequestError
            403 for a form of another site, 413 for one that is too long.
        """
        _check_origin(scope)
        fields = _checked(body)
        grant = self._guard.keyring.find(fields.get("key", "").strip().encode("utf-8", "replace"))
        place = _place(fields.get("next"))
        if grant is None:
            return _form(place, "This key is not valid here: unknown, revoked or expired.", status=401)
        if NEEDED not in grant.scopes:
            return _form(place, f"This key lacks the scope {NEEDED!r}, which these pages need.", status=403)
        await self._audit(grant, "signed in")
        _, cookie = self._guard.sessions.open(grant)
        return _moved(place, cookie_header(scope, cookie))

    async def leave(self, scope: Scope, body: bytes) -> Reply:
        """End the session; raise 403 where the form lacks its CSRF token."""
        session: Session | None = scope.get(SESSION)
        if session is not None:
            session.check_csrf(_checked(body).get("csrf", ""))
            self._guard.sessions.close(scope)
            await self._audit(session.grant, "signed out")
        return _moved(LOGIN, cookie_header(scope, ""))

    def wanted(self, scope: Scope) -> Reply | None:
        """Return the way to the form for a browser that asked for a page without a session, else None."""
        path: str = scope["path"]
        if not for_people(scope) or scope["method"] != "GET" or not (path == "/" or path.startswith("/ui")):
            return None
        query = scope.get("query_string", b"").decode("latin-1")
        return _moved(f"{LOGIN}?next={quote(_place(path + (query and '?' + query)), safe='')}")

    async def _audit(self, grant: Grant, action: str) -> None:
        # In a thread: the metadata store may make a writer wait, and predictions go on.
        await asyncio.to_thread(self._guard.keyring.audit, grant, action, "ui")


def for_people(scope: Scope) -> bool:
    """Return whether a browser asks for a page."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def sign_out(session: Session | None) -> str:
    """Return the HTML of a form that ends a session; nothing where there is none."""
    if session is None:
        return ""
    name = html.escape(session.grant.name)
    return f'<form method="post" action="{LOGOUT}"><input type="hidden" name="csrf" value="{session.csrf}"><span>{name}</span><button>Sign out</button></form>'


def _form(place: str, told: str = "", *, status: int = 200) -> Reply:
    alert = f'<p role="alert">{html.escape(told)}</p>' if told else ""
    body = f"""<section class="narrow" aria-labelledby="sign-in"><h1 id="sign-in">Sign in</h1>{alert}<form method="post" action="{LOGIN}">
<label for="key">Access key</label><input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required autofocus aria-describedby="hint">
<input type="hidden" name="next" value="{html.escape(place)}"><button class="main">Sign in</button></form>
<p class="hint" id="hint">A key with the scope <code>{NEEDED}</code>; with <code>predict</code> and <code>explain</code> it also opens the form and single predictions:
<code>windrow keys create NAME --scope {NEEDED} --scope predict --scope explain</code></p></section>"""
    return document("Sign in", body, status=status)


def _moved(place: str, *more: tuple[bytes, bytes]) -> Reply:
    return Reply(303, b"", HTML, more=((b"location", place.encode()), *more, *SAFE))


def _place(given: str | None) -> str:
    """Return an address of this service: never one that leads elsewhere."""
    return given if given and _PLACE.fullmatch(given) else "/"


def _checked(body: bytes) -> dict[str, str]:
    if len(body) > _LONGEST:
        raise RequestError(413, "body-too-large", "The form is too long", where="body", next_step="send the key alone")
    return _fields(body)


def _fields(text: bytes) -> dict[str, str]:
    try:
        found = parse_qs(text.decode("ascii", "replace"), max_num_fields=10, encoding="utf-8", errors="replace")
    except ValueError:  # more fields than that
        return {}
    return {name: values[0] for name, values in found.items()}


def _check_origin(scope: Scope) -> None:
    # Another site could sign a browser in with a key of its own, and then read what is typed there.
    headers = dict(scope["headers"])
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    if origin is not None and _host(origin.decode("latin-1")) != host.decode("latin-1"):
        raise RequestError(
            403,
            "foreign-form",
            "The form was sent by another site",
            where="headers",
            next_step=f"open {LOGIN} of this service",
        )


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
