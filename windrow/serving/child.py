"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when the thread that started it ends (Linux; elsewhere nothing).

    `parent` is the id of the process that did: where it has ended already, this one ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def spawn(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path | None = None,
    output: int | None = None,
    own_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Start Python with `arguments`; it is killed when the calling thread ends.

    Parameters
    ----------
    environ
        Its whole environment.
    folder
        Its working directory.
    output
        Descriptor for what it prints; default: ours.
    own_group
        Whether it leads a process group of its own, so that it can be ended with its children.
    """
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=dict(environ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=own_group,
        preexec_fn=partial(end_with_parent, os.getpid()),
    )
