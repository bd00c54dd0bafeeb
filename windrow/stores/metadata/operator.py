"""Who administers at a command line, as the audit names them."""

from __future__ import annotations

import getpass


def operator() -> str:
    """Return ``os:USER``, the user of the operating system that this process runs as.

    Examples
    --------
    >>> operator().startswith("os:")
    True
    """
    try:
        return f"os:{getpass.getuser()}"
    except (KeyError, OSError):  # a number without a name, as in many containers
        return "os:unknown"
