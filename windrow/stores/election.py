"""Who does a work that only one process of a host may do: whoever holds the lock of a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windrow.errors import StoreError


@contextmanager
def elected_by(lock: Path, what: str) -> Iterator[bool]:
    """Hold the lock of a file; gives False, without waiting, where another process has it.

    The operating system gives the lock back when the process ends.

    Parameters
    ----------
    lock
        The file; it and its folder are made where they are not there.
    what
        What the folder holds, for the error.

    Raises
    ------
    StoreError
        If the file cannot be made.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> lock = Path(mkdtemp()) / "committer.lock"
    >>> with elected_by(lock, "the log") as first, elected_by(lock, "the log") as second:
    ...     first, second
    (True, False)
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{what} in {lock.parent} cannot be used: {error.strerror}", next_step="check the folder's rights"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
