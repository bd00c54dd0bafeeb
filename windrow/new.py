"""A new project from the templates that travel with windrow."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from windrow import __version__
from windrow.errors import SettingsError

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_RENAMED = {"gitignore": ".gitignore"}  # a real .gitignore among the templates would hide them from git


def create(name: str, *, parent: Path) -> list[Path]:
    """Write a project called `name` into the folder ``parent/name`` and return its files.

    Raises
    ------
    SettingsError
        When the name cannot be one of a folder and a package index, or the folder is not empty.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot name a project", next_step="use a-z, 0-9, - and _, starting with a letter"
        )
    target = parent / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError(f"{target} exists and is not empty", next_step="choose another name or an empty folder")
    values = {"name": name, "windrow": _requirement(), "version": __version__, "next": _next_minor(__version__)}
    written = _copy(files("windrow") / "templates" / "project", target, values)
    return sorted(written)


def _copy(source: Traversable, target: Path, values: dict[str, str]) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for item in source.iterdir():
        path = target / _RENAMED.get(item.name, item.name)
        if item.is_dir():
            # Compiled files may stand beside the templates once somebody has imported them.
            written += _copy(item, path, values) if item.name != "__pycache__" else []
        else:
            path.write_text(_filled(item.read_text(encoding="utf-8"), values), encoding="utf-8")
            written.append(path)
    return written


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def _requirement() -> str:
    """Return what the project depends on: this windrow's versions, or the very folder that it was installed from."""
    folder = msgspec.json.decode(distribution("windrow").read_text("direct_url.json") or "{}")
    # A checkout may be ahead of every version on an index, or not be on one at all.
    if "dir_info" in folder:
        return f"windrow[all] @ {folder['url']}"
    return f"windrow[all]>={__version__},<{_next_minor(__version__)}"


def _next_minor(version: str) -> str:
    major, minor, *_ = version.split(".")
    return f"{major}.{int(minor) + 1}"
