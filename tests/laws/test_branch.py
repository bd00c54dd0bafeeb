"""The law of branches: a changed definition is tried on everything stored, and the store does not notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.orchestrate.conftest import copied_world
from tests.orchestrate.test_versions import BESIDE, OLD
from tests.stores.test_branching import hashes


@pytest.mark.slow
def test_a_changed_definition_runs_in_a_branch_and_the_difference_is_told_row_by_row(tmp_path: Path) -> None:
    project, home = copied_world(tmp_path / "project", "assets"), tmp_path / "home"

    def windrow(*words: str, branch: str = "") -> str:
        places = {"WINDROW_HOME": str(home), "WINDROW_PROJECT": str(project), "WINDROW_DATA": str(tmp_path / "no-data")}
        environ = {**os.environ, **places, "WINDROW_BRANCH": branch}
        command = [sys.executable, "-m", "windrow.cli", *words]
        done = subprocess.run(command, env=environ, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    windrow("run", "visits")
    before = hashes(home)
    windrow("branch", "trial")
    unchanged = json.loads(windrow("branch", "trial", "--diff", "visits", "--json"))
    assert (unchanged["rows"], unchanged["changed"], unchanged["most"]) == (120, 0, 0.0)

    features = project / "assets" / "visits" / "features.py"
    features.write_text(features.read_text().replace(OLD, BESIDE))
    (project / "notebooks" / "look_at_habits.ipynb").unlink()
    windrow("run", "visits", branch="trial")
    found = json.loads(windrow("branch", "trial", "--diff", "visits", "--json"))
    assert (found["rows"], found["unanswered"], found["before"][:8], found["after"][:8]) == (
        120,
        0,
        "visits-1",
        "visits-2",
    )
    # The feature `often` changed for everybody with 6 to 9 visits, and the model with it: no answer is quite the same.
    assert found["changed"] == 120
    sizes = [abs(row["difference"]) for row in found["largest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == found["most"] > 0.01
    assert all(set(row) >= {"customer_id", "event_time", "before", "after"} for row in found["largest"])
    assert hashes(home) == before

    windrow("branch", "trial", "--remove")
    assert (list((home / "branches").iterdir()), hashes(home) == before) == ([], True)
