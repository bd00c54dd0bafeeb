"""Definitions do not load without the versions that releases may be called back to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.making import bare_release
from tests.orchestrate.conftest import copied_world, settings_of
from windrow.doctor import examine
from windrow.errors import VersionError
from windrow.models.release import encode_release
from windrow.orchestrate import definitions
from windrow.orchestrate.project import Project
from windrow.settings import Settings
from windrow.stores.metadata import Metadata

FEATURES = "{}/visits/features.py"
BESIDE = '''@feature_group(customer, checks="checks:Habits", owner="someone@example.org", version=2)
def habits(customers):
    """Plan and visits of the last month."""
    return customers.select("customer_id", "plan", "visits", often=customers.visits > 9)


@feature_group(customer, name="habits")
def habits_before(customers):
'''
OLD = """@feature_group(customer, checks="checks:Habits", owner="someone@example.org")
def habits(customers):
"""


def world(folder: Path, package: str, edit: dict[str, tuple[str, str]]) -> Settings:
    """The tiny project with another version of a group; the notebook that looks at the first one is left out."""
    project = copied_world(folder / "project", package, edit)
    (project / "notebooks" / "look_at_habits.ipynb").unlink()
    return settings_of(folder / "home", project)


def released(settings: Settings) -> None:
    made = bare_release(id="visits-1", service="visits", groups={"habits_v1": "f"})
    metadata = Metadata(settings.metadata)
    metadata.add_release("visits", made.id, encode_release(made))
    metadata.close()


def test_a_version_that_a_release_needs_cannot_be_replaced_without_keeping_it(tmp_path: Path) -> None:
    edit = {FEATURES.format("replaced"): (OLD, OLD.replace('.org")', '.org", version=2)'))}
    settings = world(tmp_path, "replaced", edit)
    definitions("replaced", settings)
    released(settings)
    with pytest.raises(VersionError, match="version 1 of feature group 'habits' is not declared any more.*'visits-1'"):
        definitions("replaced", settings)
    finding = next(f for f in examine(settings, package="replaced") if f.part == "versions")
    assert (finding.holds, "needs it for 'visits-1'" in finding.result) == (False, True)


def test_a_version_that_a_release_needs_is_fed_beside_the_new_one(tmp_path: Path) -> None:
    edit = {FEATURES.format("beside"): (OLD, BESIDE)}
    settings = world(tmp_path, "beside", edit)
    assert "features/habits_v1" not in Project("beside", settings).keys
    released(settings)
    project = Project("beside", settings)
    assert {"features/habits_v1", "features/habits_v2"} <= set(project.keys)
    needed = [item.key for item in project.needed(project.services["visits"])]
    assert {"features/habits_v1", "features/habits_v2"} <= set(needed)
    definitions("beside", settings)
