"""Dagster, the online service and the followers of streams, as processes that begin and end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self
from urllib.parse import urlsplit

from windrow.discover import record_streams, services
from windrow.errors import StoreError, WindrowError
from windrow.followers import Followers, Tell
from windrow.orchestrate.facts import report_address
from windrow.orchestrate.resources import dagster_home
from windrow.serving.child import spawn
from windrow.serving.local_key import local_key, local_key_file
from windrow.serving.redirect import Redirect
from windrow.serving.run import Running, free_port, refuse_elsewhere, refuse_taken, start
from windrow.settings import Settings
from windrow.telemetry import switch_off

HOST = "127.0.0.1"
PORT, DAGSTER_PORT = 3000, 3001
_START_SECONDS = 90.0
_STOP_SECONDS = 10.0


class House:
    """Everything that ``windrow up`` starts; as a context manager it is stopped on the way out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._service: Running | None = None
        self._dagster: dict[str, subprocess.Popen[bytes]] = {}
        self._dagster_url = ""
        self._redirect: Redirect | None = None
        self._followers: Followers | None = None

    @property
    def logs(self) -> Path:
        """The folder with what the processes print."""
        return self.settings.home / "service"

    @property
    def addresses(self) -> dict[str, str]:
        """What runs where."""
        service = self._service.url if self._service else ""
        return {
            "online service": service,
            "its OpenAPI": f"{service}/v1/openapi.json",
            "lineage by column": f"{service}/ui/lineage",
            "Dagster": f"{self._dagster_url}/asset-groups",
        }

    @property
    def key_file(self) -> Path | None:
        """Where this machine's access key is; None where the online service asks for none."""
        return None if self.settings.insecure else local_key_file(self.settings)

    @property
    def streams(self) -> dict[str, Path]:
        """The services whose streams are answered while this runs, and where each follower's log is."""
        return self._followers.logs if self._followers else {}

    def start(self, tell: Tell, *, port: int | None = None, dagster_port: int | None = None) -> None:
        """Start all and return when all answer; `tell` says what is waited for, and where it will be.

        Raises
        ------
        StoreError
            If a port is taken, or a process ends or does not answer in time; the message names its log.
        """
        refuse_elsewhere(self.settings.project)
        for given in filter(None, [port, dagster_port]):
            refuse_taken(HOST, given)
        self._declare_streams()
        # Without a release there is nothing to be ready for; the process answers all the same, and says so.
        linked = report_address(self.settings)
        if not self.settings.insecure:
            local_key(self.settings)
        number = port or _free(urlsplit(linked).port or PORT)
        tell(f"waiting for the online service on http://{HOST}:{number} (log: {self.logs / 'service.log'})")
        self._service = start(self.settings, number, wait_for="/livez")
        self._keep_links(linked, self._service.url)
        number = dagster_port or _free(DAGSTER_PORT)
        self._dagster_url = f"http://{HOST}:{number}"
        workspace = ["-w", str(self.settings.project / "workspace.yaml")]
        tell(f"waiting for Dagster on {self._dagster_url} (log: {self.logs / 'dagster-webserver.log'})")
        self._spawn("dagster-webserver", ["-m", "dagster_webserver", "-h", HOST, "-p", str(number), *workspace])
        self._await_dagster()
        # Not before: on a new machine both would make the instance's databases at the same moment.
        self._spawn("dagster-daemon", ["-m", "dagster._daemon", "run", *workspace])

    def _declare_streams(self) -> None:
        """Say which names take events, before the service starts: it brings up their applier."""
        try:
            found = services(project=self.settings.project)
            record_streams(found.values(), self.settings)
            self._followers = Followers([name for name in found if found[name].stream], self.settings)
        except WindrowError as error:
            # Dagster shows what is wrong with the project; what is live answers all the same.
            with (self.settings.folder("service") / "service.log").open("a", encoding="utf-8") as log:
                log.write(f"no events are taken in: {error.message}\n")

    def _keep_links(self, linked: str, url: str) -> None:
        """Reports are linked from Dagster by one address: where that is not this one, it leads here."""
        if linked == url:
            return
        with suppress(StoreError):  # somebody else has that port now: links from here on name ours
            self._redirect = Redirect(HOST, urlsplit(linked).port or PORT, url)
            return
        (self.logs / "url").write_text(url, encoding="utf-8")

    def wait(self, tell: Tell) -> None:
        """Return when Ctrl-C is pressed or the process is asked to end; raise when one of the processes ends.

        A stream's follower that ends is not the end: `tell` says so, and it is begun again.
        """
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while True:
                self._check_alive()
                if self._followers is not None:
                    self._followers.look_after(tell)
                time.sleep(0.5)
        except KeyboardInterrupt:
            return
        finally:
            signal.signal(signal.SIGTERM, previous)

    def stop(self) -> None:
        """End all processes; ask first, then do not ask."""
        if self._redirect is not None:
            self._redirect.stop()
        if self._followers is not None:
            self._followers.ask_to_end()
        for process in self._dagster.values():
            _signal(process, signal.SIGTERM)
        if self._service is not None:
            self._service.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        if self._followers is not None:
            self._followers.end(deadline)
        for process in self._dagster.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, name: str, arguments: list[str]) -> None:
        environ = {**os.environ, **self.settings.environ(), "DAGSTER_HOME": str(dagster_home(self.settings))}
        switch_off(environ)
        with (self.logs / f"{name}.log").open("ab") as log:
            self._dagster[name] = spawn(
                arguments, environ=environ, folder=self.settings.project, output=log.fileno(), own_group=True
            )

    def _await_dagster(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"{self._dagster_url}/server_info"):
            self._check_alive()
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Dagster did not answer within {_START_SECONDS:g} s",
                    next_step=f"read {self.logs}/dagster-webserver.log",
                )
            time.sleep(0.2)

    def _check_alive(self) -> None:
        processes = {**self._dagster, **({"service": self._service.process} if self._service else {})}
        for name, process in processes.items():
            if process.poll() is not None:
                raise StoreError(
                    f"{name} ended with exit code {process.returncode}", next_step=f"read {self.logs}/{name}.log"
                )


def _free(wanted: int) -> int:
    """Return the usual port where it is free, else any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            return free_port(HOST)
        return wanted


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
