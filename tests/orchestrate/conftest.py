"""A tiny project of two services, materialised once for all tests that only look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from windrow.orchestrate import definitions
from windrow.orchestrate.facts import asset_key
from windrow.settings import Settings

WORLD = Path(__file__).parent / "world"
PACKAGE = "tiny"


def settings_of(home: Path, project: Path = WORLD) -> Settings:
    return Settings.read(
        {"WINDROW_HOME": str(home), "WINDROW_PROJECT": str(project), "WINDROW_DATA": str(home / "none")}
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Settings:
    """Settings of the tiny project with an empty home."""
    return settings_of(tmp_path / "home")


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dg.AssetSpec]:
    """The tiny project's assets on an empty machine, by key."""
    specs = definitions(PACKAGE, settings_of(tmp_path_factory.mktemp("empty") / "home")).resolve_all_asset_specs()
    found = {spec.key: spec for spec in specs}
    return lambda key: found[asset_key(key)]
