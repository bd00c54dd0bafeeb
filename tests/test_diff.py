from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from windrow.cli import run
from windrow.diff import Change, compare, diff
from windrow.errors import DeclarationError, NotFoundError

SERVICE = """
from windrow import Entity, FeatureView, Label, Online, PredictionService, Source, TimeSplit, feature_group

shop = Entity("shop", shop_id="int64")
sales = Source("sales", event_time="day", columns={"shop_id": "int64", "loaves": "float64"})

@feature_group(shop)
def recent(sales):
    return sales.select("shop_id", "loaves")

bakery = PredictionService(
    "bakery", FeatureView("bakery", spine=sales, features=[recent]), Label.value(sales, "loaves", ahead="24h"),
    model="train:model", split=TimeSplit(test="10d"), online=Online(p99_ms=10),
)
"""


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with two commits: p99_ms=10, then p99_ms=20; on disk one more feature."""
    folder = tmp_path / "project"
    (folder / "assets" / "bakery").mkdir(parents=True)
    module = folder / "assets" / "bakery" / "service.py"
    _git(folder, "init", "-q")
    for text in (SERVICE, SERVICE.replace("p99_ms=10", "p99_ms=20")):
        module.write_text(text)
        _git(folder, "add", ".")
        _git(folder, "commit", "-q", "-m", "state")
    module.write_text(module.read_text().replace('"loaves")\n\nbakery', '"loaves", twice=sales.loaves * 2)\n\nbakery'))
    return folder


@pytest.mark.needs("git")
def test_two_commits_are_compared_by_what_they_declare(project: Path) -> None:
    assert diff("HEAD~1", "HEAD", project=project) == [Change("bakery", "online.p99_ms", "10", "20")]


@pytest.mark.needs("git")
def test_a_commit_is_compared_with_the_project_on_disk_by_default(project: Path) -> None:
    changes = {change.part: change for change in diff("HEAD", project=project)}
    assert changes["groups.recent_v1.features.twice"] == Change(
        "bakery", "groups.recent_v1.features.twice", None, "float64"
    )
    assert "online.p99_ms" not in changes


def test_two_folders_are_compared_without_git(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "assets" / "bakery"
    other.mkdir(parents=True)
    (other / "service.py").write_text(SERVICE)
    parts = [change.part for change in diff(str(tmp_path / "other"), str(project), project=project)]
    assert "online.p99_ms" in parts


@pytest.mark.needs("git")
def test_an_unknown_commit_is_told_by_name(project: Path) -> None:
    with pytest.raises(NotFoundError, match="'v9' is neither a folder nor a commit"):
        diff("v9", project=project)


def test_declarations_that_cannot_be_read_are_told_in_their_own_words(tmp_path: Path) -> None:
    (tmp_path / "assets" / "bakery").mkdir(parents=True)
    (tmp_path / "assets" / "bakery" / "service.py").write_text("y = 1 / 0\n")
    with pytest.raises(DeclarationError, match="ZeroDivisionError"):
        diff(str(tmp_path), ".", project=tmp_path)


def test_a_service_that_appears_is_told_part_by_part() -> None:
    assert compare({}, {"fraud": {"baseline": "amount"}}) == [Change("fraud", "baseline", None, "amount")]


@pytest.mark.needs("git")
def test_the_command_prints_what_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_PROJECT", str(project))
    assert run(["diff", "HEAD~1", "HEAD", "--json"]) == 0
    assert [row["part"] for row in json.loads(capsys.readouterr().out)] == ["online.p99_ms"]


def test_a_link_to_a_place_outside_the_project_is_no_part_of_a_commit(project: Path) -> None:
    (project / "data").symlink_to("/mnt/data")
    _git(project, "add", "data")
    _git(project, "commit", "--quiet", "-m", "a link")
    assert diff("HEAD~1", "HEAD", project=project) == []


def test_a_project_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no folder .*/nowhere. Next: set WINDROW_PROJECT"):
        diff("HEAD~1", project=tmp_path / "nowhere")


def test_a_commit_that_looks_like_an_option_is_told_as_a_commit(project: Path) -> None:
    with pytest.raises(NotFoundError, match="'-x' is neither a folder nor a commit .*not a valid object name: -x"):
        diff("-x", project=project)
