"""No telemetry: every program that windrow starts is told so, in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

SWITCHES = {
    "ANONYMIZED_TELEMETRY": "False",
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "1",  # Evidently, and others that follow the convention
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ITERATIVE_DO_NOT_TRACK": "1",  # the library that Evidently reports through
}


def switch_off(environ: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Set the variables that keep Dagster, BentoML, Evidently and MLflow from phoning home; return the mapping.

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


def main() -> None:
    """Run a program with telemetry switched off: ``python -m windrow.telemetry jupyter lab``."""
    if len(sys.argv) < 2:
        sys.exit("Name a program, such as: python -m windrow.telemetry jupyter lab")
    switch_off()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the program that the user named


if __name__ == "__main__":
    main()
