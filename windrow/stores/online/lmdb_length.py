"""Whether an LMDB file is as long as what it says of itself: a page behind its end kills the process that reads it."""

from __future__ import annotations

import errno
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

_TWO_PAGES = 8192  # which say where all others are
# To look at a value is to read all its pages.
_READ_ALL = """
import sys, lmdb
with lmdb.open(sys.argv[1], subdir=False, readonly=True, lock=False, create=False) as env, env.begin() as txn:
    for _ in txn.cursor(): pass
"""


def check_length(file: Path, env: Any) -> None:
    """Raise `OSError` if a page in use is behind the end of the file that `env` has open, as after a copy that broke off.

    Notes
    -----
    LMDB reads through a map of the file, and the kernel answers a read behind its end with SIGBUS. A file that is
    shorter than its last page may be sound, though: what one transaction took and gave back is never written. Only
    reading all of it tells, so a process of its own does that, once for each length; it may die of it.
    """
    whole = file.stat().st_size >= _TWO_PAGES  # else even to ask for the number of pages would be to read one
    if whole:
        last, size = env.info()["last_pgno"], env.stat()["psize"]
        found = file.stat()  # not before: a writer makes the file longer first
        whole = found.st_size >= (last + 1) * size or _readable(str(file), found.st_ino, found.st_size, last)
    if not whole:
        raise OSError(errno.EIO, f"{file.name} was cut short")


@lru_cache(maxsize=16)
def _readable(file: str, inode: int, size: int, last: int) -> bool:
    command = [sys.executable, "-I", "-c", _READ_ALL, file]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
