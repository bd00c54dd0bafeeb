"""One process for each declared stream, for as long as the house is up: begun with the first release, begun again when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from windrow.errors import WindrowError
from windrow.serving.child import spawn
from windrow.settings import Settings
from windrow.stores.metadata import Metadata
from windrow.telemetry import switch_off

Tell = Callable[[str], None]

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds before a follower that ended is begun again
_STEADY = 60.0  # one that ran for so long had no trouble at its start
_LOOK = 2.0  # seconds between two questions whether there is a release by now


class Follower:
    """``windrow run SERVICE --follow`` of one service, as a child process.

    Attributes
    ----------
    log
        The file with what it prints: a JSON document for each look that answered something.
    """

    def __init__(self, service: str, settings: Settings) -> None:
        self.service, self._settings = service, settings
        self.log = settings.home / "service" / f"follow-{service}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._due = self._begun = 0.0
        self._pause, self._trouble = _FIRST_PAUSE, ""

    def look_after(self, metadata: Metadata, tell: Tell) -> None:
        """Begin it where it is time to and there is a release; say so when it has ended."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._due:
                self._due = now + _LOOK
                if self._released(metadata, tell):
                    self._begin()
        elif self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            self._pause = _FIRST_PAUSE if now - self._begun > _STEADY else min(2 * self._pause, _LONGEST_PAUSE)
            self._due = now + self._pause
            tell(f"the stream of {self.service!r} ended with exit code {code}: {_last_line(self.log)}")
            tell(f"it begins again in {self._pause:g} s; read {self.log}")

    def ask_to_end(self) -> None:
        """Ask the process to end, if it runs."""
        self._signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Return when the process has ended, which it must by `deadline` (`time.monotonic`)."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.1, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _released(self, metadata: Metadata, tell: Tell) -> bool:
        """Return whether there is a release; a store that does not answer for a moment ends nothing."""
        try:
            found, trouble = metadata.live(self.service) is not None, ""
        except WindrowError as error:
            found, trouble = False, error.message
        if trouble and trouble != self._trouble:
            tell(f"the stream of {self.service!r} has to wait: {trouble}")
        self._trouble = trouble
        return found

    def _begin(self) -> None:
        environ = {**os.environ, **self._settings.environ()}
        switch_off(environ)
        command = ["-m", "windrow.cli", "run", self.service, "--follow", "--json"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = spawn(
                command, environ=environ, folder=self._settings.project, output=log.fileno(), own_group=True
            )
        self._begun = time.monotonic()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class Followers:
    """The followers of all services that declare a stream.

    Parameters
    ----------
    names
        Of the services.
    """

    def __init__(self, names: Iterable[str], settings: Settings) -> None:
        self._all = [Follower(name, settings) for name in names]
        self._metadata = Metadata(settings.metadata)

    @property
    def logs(self) -> dict[str, Path]:
        """Service -> the file with what its follower prints."""
        return {follower.service: follower.log for follower in self._all}

    def look_after(self, tell: Tell) -> None:
        """Begin what is due and report what ended; call it again and again, from the thread that lasts longest."""
        for follower in self._all:
            follower.look_after(self._metadata, tell)

    def ask_to_end(self) -> None:
        """Ask all to end, and wait for none."""
        for follower in self._all:
            follower.ask_to_end()

    def end(self, deadline: float) -> None:
        """Return when all have ended, which they must by `deadline` (`time.monotonic`)."""
        for follower in self._all:
            follower.end(deadline)
        self._metadata.close()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")
