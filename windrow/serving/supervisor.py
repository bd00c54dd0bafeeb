"""The process that starts workers: what it refuses before the first, and how they learn that it is gone."""

from __future__ import annotations

import os

import click

from windrow.serving.child import end_with_parent
from windrow.serving.local import refuse_insecure
from windrow.settings import Settings

_ID = "_WINDROW_SUPERVISOR"  # in the environment of its workers


def begin(settings: Settings) -> None:
    """Say who the supervisor is, before it starts a worker.

    A worker that is refused at its start would be started again for ever; so the supervisor refuses.

    Raises
    ------
    SettingsError
        If the service would answer other machines without keys.
    """
    command = click.get_current_context(silent=True)
    host = command.params.get("host") if command is not None else None
    if settings.insecure and host:  # where it is not told, the socket says it to the worker
        refuse_insecure(host)
    os.environ[_ID] = str(os.getpid())


def end_with_supervisor() -> None:
    """Let this worker end with its supervisor, also where that was killed before the worker could ask for it."""
    told = os.environ.get(_ID)
    end_with_parent(int(told) if told else None)
