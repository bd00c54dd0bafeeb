"""A tiny project of two services, and ways to make others like it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest

from windrow.orchestrate import definitions
from windrow.orchestrate.facts import asset_key
from windrow.settings import Settings

WORLD = Path(__file__).parent / "world"
PACKAGE = "tiny"


def settings_of(home: Path, project: Path = WORLD, *, data: Path | None = None) -> Settings:
    data = data or home / "no-data"
    return Settings.read({"WINDROW_HOME": str(home), "WINDROW_PROJECT": str(project), "WINDROW_DATA": str(data)})


def copied_world(folder: Path, package: str, edits: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """Copy the world under another package name; `edits` maps a file to (old text, new text)."""
    for path in WORLD.rglob("*"):
        if path.suffix in (".py", ".ipynb"):
            copy = folder / str(path.relative_to(WORLD)).replace(f"{PACKAGE}/", f"{package}/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text().replace(f"from {PACKAGE}.", f"from {package}."))
    for name, (old, new) in (edits or {}).items():
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
    return folder


@pytest.fixture(autouse=True)
def _own_path() -> Iterator[None]:
    """Forget projects that a test made importable."""
    before = list(sys.path)
    yield
    sys.path[:] = before


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
