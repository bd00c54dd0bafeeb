"""From the wheel, as somebody who installs windrow has it; the packages of this environment stand in for an index."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.house.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def _environment(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with windrow from the wheel, and all it needs from this environment."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--ignore-installed",
        str(wheel),
    ]
    subprocess.run(command, check=True, env=_clean())
    return python


def _clean(**more: str) -> Mapping[str, str]:
    """The environment of somebody who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WINDROW_", "PYTHON", "MAKE"))}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **more}


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=_clean(PYTHON=sys.executable), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_a_new_project_demonstrates_and_tests_itself(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "tools", wheel)
    _run(str(python), "-m", "windrow.cli", "new", "harvest", cwd=tmp_path)
    harvest = tmp_path / "harvest"
    _environment(harvest / ".venv", wheel)
    told = _run("make", "demo", cwd=harvest)
    assert "bakery-1" in told
    assert "Does not hold" not in told
    assert "passed" in _run("make", "test", cwd=harvest)


def test_the_wheel_brings_the_library_and_the_templates_and_nothing_else(wheel: Path) -> None:
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    assert "windrow/templates/project/gitignore" in names
    assert "windrow/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"windrow", "windrow-0.1.0.dist-info"}
    assert [name for name in names if "__pycache__" in name] == []
