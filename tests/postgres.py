"""A PostgreSQL server of a test's own: real, on the loopback, gone when the test is."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.needs import need

_SECONDS = 60


@contextmanager
def postgres(port: int) -> Iterator[str]:
    """Start a server and give its address; the user's password is ``s3cret``."""
    programs = need("initdb"), need("postgres")
    # Not in pytest's folders: the server's user may not enter them.
    folder = Path(tempfile.mkdtemp(prefix="windrow-pg-"))
    try:
        process = _start(*programs, folder, port)
        try:
            yield _ready(f"postgresql://windrow:s3cret@127.0.0.1:{port}/postgres", process)
        finally:
            _stop(folder, process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(initdb: Path, server: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    as_user = _owned(folder)
    secret = folder / "password"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    make = [str(initdb), "-D", f"{folder}/data", "-U", "windrow", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(
        [*make, "-A", "scram-sha-256", f"--pwfile={secret}"],
        check=True,
        capture_output=True,
        timeout=_SECONDS,
        **as_user,
    )
    run = [str(server), "-D", f"{folder}/data", "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    # No parallel helpers and little memory: other tests run beside it.
    run += ["-c", "max_parallel_workers=0", "-c", "shared_buffers=16MB"]
    return subprocess.Popen(
        run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **as_user
    )


def _owned(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: give the folder to another user, and say how to start as that one."""
    if os.getuid() != 0:
        return {}
    names = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}


def _ready(url: str, process: subprocess.Popen[bytes]) -> str:
    import psycopg

    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return url
    raise AssertionError(f"the server did not start: exit code {process.poll()}")


def _stop(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """End the server by the process id that it wrote down: its parent may be the program that changed the user."""
    file = folder / "data" / "postmaster.pid"
    if file.exists():
        os.kill(int(file.read_text().splitlines()[0]), 3)  # SIGQUIT: at once
    else:
        process.terminate()
    process.wait(_SECONDS)


def free_port() -> int:
    """Return a port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run(url: str, *statements: Any) -> None:
    """Run statements, each committed."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as con:
        for statement in statements:
            con.execute(statement)
