"""Registrations that were killed: what one leaves bears a sign, and the next one sweeps it away.

A sign is removed when the release's row is written or its folder is gone again. A folder without a sign is never
touched, whatever the metadata store says of it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK, _SIGN = ".registering", ".unfinished"


@contextmanager
def signed(folder: Path, id: str, *, registered: Callable[[str], bool]) -> Iterator[None]:
    """Hold the sign that a release is being stored; first sweep what dead processes left.

    Parameters
    ----------
    folder
        Of all releases; made where it is not there.
    registered
        Says whether a release has its row.

    Raises
    ------
    OSError
        If nothing can be written there.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> with signed(folder, "churn-1", registered=lambda id: False):
    ...     (folder / ".churn-1.unfinished").exists()
    True
    >>> (folder / ".churn-1.unfinished").exists()
    False
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder, registered)
    # Everyone who stores holds the lock together; who sweeps holds it alone. The system gives back those of the dead.
    with _locked(folder, fcntl.LOCK_SH):
        sign = folder / f".{id}{_SIGN}"
        sign.touch()
        try:
            yield
        finally:
            sign.unlink(missing_ok=True)


def _sweep(folder: Path, registered: Callable[[str], bool]) -> None:
    """Remove what bears a sign and has no row, unless somebody is at work just now: then the next one does it."""
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for sign in folder.glob(f".*{_SIGN}"):
                _remove(folder, sign.name.removeprefix(".").removesuffix(_SIGN), registered)
                sign.unlink(missing_ok=True)
    except BlockingIOError:
        return


def _remove(folder: Path, id: str, registered: Callable[[str], bool]) -> None:
    for half in folder.glob(f".{id}.*"):
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)
    if not registered(id):
        shutil.rmtree(folder / id, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
