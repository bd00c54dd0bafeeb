from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.house.conftest import ROOT
from windrow.cli import _COMMANDS

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    targets = set(
        re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join([*_blocks("sh"), *re.findall(r"`(make [a-z-]+)`", README)]))
    )
    assert targets >= {"demo", "up", "test", "lab", "bench"}
    assert {t for t in targets if not re.search(rf"^{t}:", MAKEFILE, re.MULTILINE)} == set()


def test_every_windrow_command_of_the_readme_exists() -> None:
    used = set(re.findall(r"^windrow ([a-z]+)", "\n".join(_blocks("sh")), re.MULTILINE))
    assert used - set(_COMMANDS) == set()
    assert used >= {"services", "run", "doctor", "new", "diff"}


def test_every_file_that_the_readme_links_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_folder_of_the_map_exists() -> None:
    named = re.findall(r"^\| `([\w/]+)`", README, re.MULTILINE)
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def _windrow(project: Path, *arguments: str) -> Any:
    """Run a command in a process of its own: this one has imported the repository's assets under the same name."""
    environ = {**os.environ, "WINDROW_PROJECT": str(project), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "windrow.cli", *arguments, "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=project)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_smallest_service_is_a_complete_service(tmp_path: Path) -> None:
    code = _blocks("python")[0]
    folder = tmp_path / "project" / "assets" / "bakery"
    folder.mkdir(parents=True)
    (folder / "service.py").write_text(code)
    done = _windrow(tmp_path / "project", "run", "bakery")
    facts = {step["asset"]: step["facts"] for step in done["steps"]}
    assert facts["bakery/predictions"]["dagster/partition_row_count"] == 40
    assert all(done["checks"].values())
    (release,) = _windrow(tmp_path / "project", "releases", "bakery")
    assert (release["live"], release["gates"], release["backend"]) == (True, "passed", "onnx")


def test_the_feature_store_of_the_readme_can_be_declared(tmp_path: Path) -> None:
    (tmp_path / "declared.py").write_text(_blocks("python")[1])
    show = "from declared import view; print(*view.contract.feature_names)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["amount", "credit_limit", "spend_1d", "abroad_7d", "mean_30d", "fraud_rate"]
