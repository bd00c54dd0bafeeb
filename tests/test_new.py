from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from windrow.cli import run
from windrow.errors import SettingsError
from windrow.new import create

ROOT = Path(__file__).resolve().parents[1]
SHAPE = [
    ".gitignore", "Makefile", "README.md", "assets/__init__.py", "assets/bakery/__init__.py", "assets/bakery/checks.py",
    "assets/bakery/features.py", "assets/bakery/on_demand.py", "assets/bakery/service.py", "assets/bakery/simulate.py",
    "assets/bakery/train.py", "assets/definitions.py", "bento/bentofile.yaml", "bento/service.py",
    "notebooks/explore_bakery.ipynb", "pyproject.toml", "tests/test_project.py", "workspace.yaml",
]  # fmt: skip


def test_a_new_project_has_the_shape_of_the_card(tmp_path: Path) -> None:
    written = create("harvest", parent=tmp_path)
    assert [str(path.relative_to(tmp_path / "harvest")) for path in written] == SHAPE


def test_no_placeholder_is_left_in_a_new_project(tmp_path: Path) -> None:
    assert [p.name for p in create("harvest", parent=tmp_path) if "{{" in p.read_text()] == []


def test_a_new_project_made_from_a_checkout_asks_for_that_very_windrow(tmp_path: Path) -> None:
    create("harvest", parent=tmp_path)
    # From a checkout, as here, it is the checkout itself; `tests/house/test_installed.py` has the other case.
    assert 'dependencies = ["windrow[all] @ file://' in (tmp_path / "harvest" / "pyproject.toml").read_text()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "harvest").mkdir()
    (tmp_path / "harvest" / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="exists and is not empty"):
        create("harvest", parent=tmp_path)


@pytest.mark.parametrize("name", ["Harvest", "../harvest", "har vest", "1harvest", ""])
def test_a_name_that_cannot_name_a_project_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot name a project"):
        create(name, parent=tmp_path)


def test_the_command_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "harvest"]) == 0
    assert "cd harvest && make demo" in capsys.readouterr().out


def test_the_shell_of_a_new_project_is_the_one_that_is_tested_here() -> None:
    ours, theirs = ROOT / "bento" / "service.py", ROOT / "windrow" / "templates" / "project" / "bento" / "service.py"
    assert theirs.read_text() == ours.read_text()


def test_a_new_project_is_clean_code(tmp_path: Path) -> None:
    create("harvest", parent=tmp_path)
    lint = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,UP,B,SIM",
        "--line-length",
        "120",
        ".",
    ]
    done = subprocess.run(lint, cwd=tmp_path / "harvest", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
