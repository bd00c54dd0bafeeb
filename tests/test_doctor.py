from __future__ import annotations

import json
from pathlib import Path

import pytest

from windrow.cli import run
from windrow.doctor import Finding, examine
from windrow.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("WINDROW_PROJECT", str(ROOT))
    return Settings.read()


def _by_part(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.part: finding for finding in findings}


def test_every_part_holds_on_a_new_machine(house: Settings) -> None:
    assert [f for f in examine(house) if not f.holds] == []


def test_what_the_doctor_writes_never_counts(house: Settings) -> None:
    from windrow.stores.lake import Lake
    from windrow.stores.log import PredictionLog
    from windrow.stores.metadata import Metadata

    examine(house)
    assert Lake(house.lake).keys() == []
    assert PredictionLog(house.folder("log"), Lake(house.lake)).table("_doctor").num_rows == 0
    assert Metadata(house.metadata).spans() == {}


def test_examining_twice_works(house: Settings) -> None:
    examine(house)
    assert [f for f in examine(house) if not f.holds] == []


def test_a_home_that_cannot_be_written_is_told_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path / "file" / "home"))
    found = _by_part(examine(Settings.read()))["settings"]
    assert not found.holds
    assert "WINDROW_HOME" in found.next_step


def test_one_broken_part_does_not_hide_the_others(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_METADATA", "postgresql://nowhere/x")
    found = _by_part(examine(Settings.read()))
    assert not found["metadata"].holds
    assert found["lake"].holds
    assert found["prediction log"].holds


def test_a_project_without_services_fails_at_its_declarations(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path / "home"), "WINDROW_PROJECT": str(tmp_path)})
    found = _by_part(examine(settings, package="no_assets"))
    assert "There is no package" in found["declarations"].result
    assert found["engine"].holds


def test_the_command_exits_with_1_when_a_part_fails(
    house: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_ONLINE", "carrier-pigeon://coop")
    assert run(["doctor", "--json"]) == 1
    rows = {row["part"]: row["holds"] for row in json.loads(capsys.readouterr().out)}
    assert not rows["online store"]
    assert rows["engine"]
