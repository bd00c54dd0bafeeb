"""HTTPS by two files: checked before anything starts, handed to BentoML, and trusted by our own clients."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from windrow.errors import SettingsError
from windrow.settings import Settings


def check_files(settings: Settings) -> bool:
    """Return whether the service speaks HTTPS.

    Raises
    ------
    SettingsError
        If only one of the two files is named, one cannot be read, or they do not belong together.

    Examples
    --------
    >>> check_files(Settings.read({}))
    False
    """
    files = {"WINDROW_TLS_CERT": settings.tls_cert, "WINDROW_TLS_KEY": settings.tls_key}
    if not any(files.values()):
        return False
    for name, file in files.items():
        if not file:
            raise SettingsError(f"{name} is missing", next_step="name both files: WINDROW_TLS_CERT and WINDROW_TLS_KEY")
        _check_readable(name, file)
    _check_pair(settings)
    return True


def bento_ssl(settings: Settings) -> dict[str, Any]:
    """Return the part ``ssl`` of BentoML's settings for a service; raise `SettingsError` as `check_files` does."""
    if not check_files(settings):
        return {"enabled": False}
    return {"enabled": True, "certfile": settings.tls_cert, "keyfile": settings.tls_key}


def trusting(cert: str) -> ssl.SSLContext:
    """Return the client's side for our own service: that certificate and no other, whatever name it is made out to."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False  # it is asked by its address, 127.0.0.1, and made out to the name others know it by
    made.load_verify_locations(cert)
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # one that an authority signed is trusted without it
    return made


def _check_readable(name: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise SettingsError(
            f"{name} cannot be read: {file}: {error.strerror}", next_step="name a PEM file that this user may read"
        ) from error


def _check_pair(settings: Settings) -> None:
    try:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without the password function OpenSSL would ask at the terminal.
        made.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            "WINDROW_TLS_CERT and WINDROW_TLS_KEY cannot be used together: "
            f"{getattr(error, 'reason', None) or 'they are no certificate and key'}",
            exists=f"They name {settings.tls_cert} and {settings.tls_key}",
            next_step="give a certificate and its own private key, both PEM, the key without a password",
        ) from error
