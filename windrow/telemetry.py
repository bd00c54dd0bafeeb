"""No telemetry: every program that windrow starts is told so, in one place."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SWITCHES = {
    "ANONYMIZED_TELEMETRY": "False",
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "1",  # Evidently, and others that follow the convention
    "ITERATIVE_DO_NOT_TRACK": "1",  # the library that Evidently reports through
}


def switch_off(environ: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Set the variables that keep Dagster, BentoML and Evidently from phoning home; return the mapping.

    Parameters
    ----------
    environ
        The environment of a child process to be started; default: this process's own.

    Examples
    --------
    >>> switch_off({})["BENTOML_DO_NOT_TRACK"]
    'True'
    """
    target = os.environ if environ is None else environ
    target.update(SWITCHES)
    return target
