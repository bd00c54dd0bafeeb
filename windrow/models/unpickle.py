"""Reading joblib and pickle files, which run code of whoever wrote them: only in a process of its own.

Nothing else imports this module's `main`; the parent sees a skops file, and checks it as it checks any other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from windrow.errors import ModelError

SECONDS = 120.0
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR")


def converted(path: Path) -> bytes:
    """Return the model of a joblib or pickle file as a skops file.

    The process that reads it has none of our environment variables, and hands over bytes only.

    Raises
    ------
    ModelError
        If it cannot be read there, or its model cannot be written by skops.
    """
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    command = [sys.executable, "-I", "-m", "windrow.models.unpickle", str(path.resolve())]
    try:
        done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path.name} was not read within {SECONDS:g} s", next_step="save it with skops") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise ModelError(
            f"{path.name} cannot be read: {told[-1][:300] if told else 'its process ended'}",
            next_step="install the packages it was made with, or save the model with skops there",
        )
    return done.stdout


def main(path: str) -> None:
    """Write the model of a file to standard output as skops; whatever the file itself prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    import zipfile

    import joblib  # noqa: TID251 - the one place, in a process of its own, asked for by a loud flag
    from skops.io import dumps

    model = joblib.load(path)  # reads plain pickle files too
    with os.fdopen(answer, "wb") as out:
        out.write(dumps(model, compression=zipfile.ZIP_DEFLATED))


if __name__ == "__main__":
    main(sys.argv[1])
