"""The house's own files, as its tests look at them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("assets", "bento", "docs", "notebooks", "tests", "windrow")
_TEXT = {"", ".cfg", ".css", ".html", ".ipynb", ".js", ".json", ".lock", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}


def python_files(*rooms: str) -> list[Path]:
    """Every Python file of some rooms (default: all)."""
    return sorted(p for room in rooms or ROOMS for p in (ROOT / room).rglob("*.py") if "__pycache__" not in p.parts)


def text_files() -> list[Path]:
    """Every file of the house that a person can read."""
    top = [p for p in ROOT.iterdir() if p.is_file() and p.name != ".git"]  # in a worktree of git it is a file
    inside = [p for room in (*ROOMS, ".ci") for p in (ROOT / room).rglob("*") if p.is_file()]
    hidden = ("__pycache__", ".ipynb_checkpoints", ".windrow")
    return [p for p in top + inside if p.suffix in _TEXT and not any(h in p.parts for h in hidden)]
