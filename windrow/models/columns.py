"""Columns that a trainer asks for, read from its text, so that a wrong name fails when definitions load."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec

from windrow.errors import UnknownNameError


def columns(*names: str) -> list[str]:
    """Return `names` as a list, for a column transformer; windrow checks them against the view at load.

    Examples
    --------
    >>> columns("contract", "payment_method")
    ['contract', 'payment_method']
    """
    return list(names)


def asked_columns(path: Path) -> list[str]:
    """Return the literal names given to ``columns(...)`` in a module or notebook, without running it."""
    text = path.read_text(encoding="utf-8")
    cells = _code_cells(text) if path.suffix == ".ipynb" else [text]
    return [name for cell in cells for name in _literals(cell)]


def check_columns(path: Path, known: list[str], *, service: str) -> None:
    """Raise `UnknownNameError` with the closest name if the trainer asks for what the view does not have."""
    for name in asked_columns(path):
        if name not in known:
            raise UnknownNameError(
                "feature", name, known, where=f"the view of service {service!r} (asked for by {path.name})"
            )


class _Cell(msgspec.Struct):
    cell_type: str
    source: list[str] | str


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def _code_cells(text: str) -> list[str]:
    cells = msgspec.json.decode(text.encode(), type=_Notebook).cells
    code = ["".join(c.source) for c in cells if c.cell_type == "code"]
    return ["\n".join(line for line in cell.splitlines() if line[:1] not in "%!") for cell in code]


def _literals(code: str) -> list[str]:
    calls = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call)]
    asked = [c for c in calls if getattr(c.func, "id", getattr(c.func, "attr", "")) == "columns"]
    return [a.value for c in asked for a in c.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
