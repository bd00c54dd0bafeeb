"""Start and stop the online service as a process: what `windrow up`, the demo and the tests use."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from windrow.errors import StoreError
from windrow.serving.child import spawn
from windrow.serving.local import refuse_insecure
from windrow.serving.tls import check_files, trusting
from windrow.settings import Settings
from windrow.telemetry import switch_off

SERVICE = "bento.service:WindrowService"
START_SECONDS = 90.0
STOP_SECONDS = 10.0


class Running:
    """The online service as a running process; a context manager that stops it.

    Attributes
    ----------
    process
        BentoML's supervisor, leader of its own process group.
    url
        Such as ``http://127.0.0.1:3000``, or with ``https`` where a certificate is named.
    log
        The file with what it printed.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log

    def stop(self) -> None:
        """End the whole process group; ask first, then do not ask."""
        _signal(self.process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=STOP_SECONDS)
        _signal(self.process, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    settings: Settings,
    port: int | None = None,
    *,
    host: str = "127.0.0.1",
    wait_for: str | None = "/readyz",
    seconds: float = START_SECONDS,
) -> Running:
    """Start the service and wait until it answers.

    Parameters
    ----------
    settings
        Its `project` folder holds ``bento/``.
    port
        Default: a free one.
    wait_for
        The address that must answer 200: ``/readyz`` (every live release is warm), ``/livez`` (the
        process answers), or None not to wait.
    seconds
        How long to wait at most.

    Raises
    ------
    SettingsError
        If the service would answer other machines without keys, or its certificate cannot be used.
    StoreError
        If the port is taken, or the service does not answer in time; the message names its log file.
    """
    if settings.insecure:
        refuse_insecure(host)
    scheme = "https" if check_files(settings) else "http"
    port = port or free_port(host)
    refuse_taken(host, port)
    refuse_elsewhere(settings.project)
    # BentoML keeps a store of its own: with us, and not in the user's home, unless the user says where.
    environ = {"BENTOML_HOME": str(settings.home / "bentoml"), **os.environ, **settings.environ()}
    switch_off(environ)
    path = settings.folder("service") / "service.log"
    with path.open("ab") as log:
        command = ["-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port)]
        process = spawn(command, environ=environ, folder=settings.project, output=log.fileno(), own_group=True)
    running = Running(process, f"{scheme}://{host}:{port}", path)
    if wait_for is not None:
        try:
            _wait(running, connection(running.url, cert=settings.tls_cert), wait_for, seconds)
        except BaseException:
            running.stop()
            raise
    return running


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def refuse_elsewhere(project: Path) -> None:
    """Raise `StoreError` where a folder has no online service to start."""
    if not (project / "bento" / "service.py").is_file():
        raise StoreError(
            f"there is no bento/service.py in {project}",
            next_step="run this from the project's folder, or set WINDROW_PROJECT; `windrow new NAME` makes a project that has one",
        )


def refuse_taken(host: str, port: int) -> None:
    """Raise `StoreError` where something else has a port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StoreError(
                f"port {port} of {host} cannot be used: {error.strerror}",
                next_step="choose another port, or leave it out to get a free one",
            ) from error


def connection(url: str, *, cert: str = "", timeout: float = 2.0) -> http.client.HTTPConnection:
    """Return a connection to a service of ours, not opened yet; with ``https``, one that trusts `cert` alone.

    Examples
    --------
    >>> connection("http://127.0.0.1:3000").port
    3000
    """
    address = urlsplit(url)
    host = address.hostname or ""
    if address.scheme == "https":
        return http.client.HTTPSConnection(host, address.port, timeout=timeout, context=trusting(cert))
    return http.client.HTTPConnection(host, address.port, timeout=timeout)


def _wait(running: Running, asking: http.client.HTTPConnection, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    said = "nothing"
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise StoreError(
                f"the online service ended with exit code {running.process.returncode}",
                exists=_tail(running.log),
                next_step=f"read {running.log}",
            )
        status, said = _ask(asking, path)
        if status == 200:
            return
        time.sleep(0.05)
    raise StoreError(
        f"the online service was not ready within {seconds:g} s",
        exists=f"{path} says {said[:300]}",
        next_step=f"read {running.log}",
    )


def _ask(asking: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    try:
        asking.request("GET", path)
        answer = asking.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        asking.close()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "It said: " + " | ".join(lines[-3:])[-500:]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
