"""What counts as this machine: loopback addresses, and requests that nobody relayed."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from windrow.errors import RequestError, SettingsError

_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
_DESCRIPTORS = 1024

Scope = MutableMapping[str, Any]


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost", "0.0.0.0", "192.0.2.7")]
    [True, True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def refuse_insecure(host: str) -> None:
    """Raise `SettingsError` where a service without keys would listen to other machines.

    Examples
    --------
    >>> refuse_insecure("0.0.0.0")
    Traceback (most recent call last):
    windrow.errors.SettingsError: without access keys the service listens on this machine only, not on '0.0.0.0'. ...
    """
    if not is_loopback(host):
        raise SettingsError(
            f"without access keys the service listens on this machine only, not on {host!r}",
            next_step="leave out --insecure (WINDROW_INSECURE) and make keys with `windrow keys create`, or use 127.0.0.1",
        )


def refuse_insecure_sockets() -> None:
    """Raise `SettingsError` where this process holds a socket that listens to other machines."""
    for number in range(_DESCRIPTORS):
        try:
            found = stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:
            continue
        if found:
            with socket.socket(fileno=os.dup(number)) as held:
                if held.family != socket.AF_UNIX and held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    refuse_insecure(held.getsockname()[0])


def check_local(scope: Scope) -> None:
    """Raise 403 unless a program or page of this machine made the request, on this machine.

    Examples
    --------
    >>> check_local({"client": ("127.0.0.1", 50000), "headers": [(b"host", b"localhost:3000")]})
    >>> check_local({"client": ("192.0.2.7", 50000), "headers": []})
    Traceback (most recent call last):
    windrow.errors.RequestError: Without access keys this service answers this machine only. ...
    """
    client = scope.get("client")
    if not client or not _is_local(f"//{_bracketed(str(client[0]))}"):
        raise _not_from_here()
    for name, value in scope.get("headers", ()):
        # A browser names the page that asks: a page from elsewhere must not write here through the user's browser.
        # And the name that it was given: one that leads here only for the moment is somebody else's (DNS rebinding).
        if name == b"host" or name == b"origin":
            text = value.decode("latin-1")
            if not _is_local(text if name == b"origin" else f"//{text}"):
                raise _not_from_here()
        elif name in _FORWARDED:
            raise _not_from_here()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@lru_cache(maxsize=64)
def _known(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _is_local(origin: str) -> bool:
    return len(origin) < 128 and _known(origin)


def _not_from_here() -> RequestError:
    return RequestError(
        403,
        "not-from-here",
        "Without access keys this service answers this machine only",
        where="peer",
        next_step="send it from this machine to 127.0.0.1, without a proxy; for others start it without --insecure and make keys with `windrow keys create`",
    )
