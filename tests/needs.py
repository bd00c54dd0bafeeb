"""Programs and data files that some tests need: skipped where absent, except in CI, where they must be there."""

from __future__ import annotations

import os
import shutil
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import pytest

# Read once, at import: the tests themselves run with a cleaned environment.
_DATA = Path(os.environ.get("WINDROW_DATA", "data")).absolute()
_CI = os.environ.get("CI", "") == "true"


def find(program: str) -> Path | None:
    """Return the path of a program, also where Debian keeps PostgreSQL's, or None."""
    beside = sorted(glob(f"/usr/lib/postgresql/*/bin/{program}"))
    found = shutil.which(program) or (beside[-1] if beside else None)
    return Path(found) if found else None


def need(program: str) -> Path:
    """Return the path of a program; skip the test without it, or fail it when CI=true."""
    path = find(program)
    if path is None:
        message = f"{program} is not installed"
        pytest.fail(f"{message}, and CI=true: .ci/run installs it") if _CI else pytest.skip(message)
    return path


def data_folder() -> Path:
    """Return the folder of data files that the tests were started with."""
    return _DATA


def need_module(name: str) -> None:
    """Skip the module that asks without a package of the extras, or fail it when CI=true."""
    if find_spec(name) is None:
        message = f"{name} is not installed: it is an extra of its own"
        pytest.fail(f"{message}, and CI=true") if _CI else pytest.skip(message, allow_module_level=True)
