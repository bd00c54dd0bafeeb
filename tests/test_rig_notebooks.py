"""Notebooks that show the parts of the prediction rig, each with a service of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "notebooks"
PARTS = ("backbone", "cache", "dispatcher", "explainer", "metadata", "transformer", "warmer")


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def test_there_is_a_notebook_for_each_part_of_the_rig() -> None:
    assert sorted(path.stem for path in FOLDER.glob("rig_*.ipynb")) == [f"rig_{part}" for part in PARTS]


def test_notebooks_are_kept_without_what_they_have_shown() -> None:
    kept = [path.name for path in FOLDER.glob("*.ipynb") if any(cell.get("outputs") for cell in cells(path))]
    assert kept == []


@pytest.mark.slow
@pytest.mark.xdist_group("bento")
@pytest.mark.parametrize("part", PARTS)
def test_a_notebook_shows_its_part_with_a_picture_and_leaves_nothing_behind(part: str, tmp_path: Path) -> None:
    kept, scratch = tmp_path / "executed.ipynb", tmp_path / "scratch"
    scratch.mkdir()
    # Where it makes its home; and nothing of this project, as for somebody who has only the notebook.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WINDROW_")}
    environ |= {"TMPDIR": str(scratch), "OMP_WAIT_POLICY": "PASSIVE"}
    notebook = FOLDER / f"rig_{part}.ipynb"
    command = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", str(notebook), str(kept)]
    done = subprocess.run(command, cwd=FOLDER, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = [output.get("data", {}) for cell in cells(kept) for output in cell.get("outputs", [])]
    assert any("image/png" in data for data in shown)
    assert list(scratch.glob("windrow-served-*")) == []
