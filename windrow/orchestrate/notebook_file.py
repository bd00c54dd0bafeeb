"""What a notebook file says about itself, read from its text and never by running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from windrow.errors import DeclarationError

_PLAIN = (bool, int, float, str, list, dict)


class _Cell(msgspec.Struct):
    cell_type: str
    source: list[str] | str
    metadata: dict[str, Any] = {}

    @property
    def text(self) -> str:
        return self.source if isinstance(self.source, str) else "".join(self.source)


class _Raw(msgspec.Struct):
    cells: list[_Cell]


class NotebookFile(msgspec.Struct, frozen=True):
    """One notebook: what it is called, what it reads, what can be set.

    Attributes
    ----------
    title, description
        First heading, and the text below it.
    parameters
        Name -> default, from the cell tagged ``parameters``; values are JSON-like.
    inputs
        What it loads: the literal names given to ``load("...")``, each once, in order.
    code
        All code cells, for a fingerprint that ignores outputs.
    """

    path: Path
    title: str
    description: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    code: tuple[str, ...]

    @property
    def stem(self) -> str:
        """File name without ending."""
        return self.path.stem

    @classmethod
    def read(cls, path: Path) -> NotebookFile:
        r"""Read a notebook; raise `DeclarationError` for a file that is none, or a cell that is not Python.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.ipynb")
        >>> _ = path.write_text('{"cells": [{"cell_type": "code", "source": "x = load(\'sources/a\')"}]}')
        >>> NotebookFile.read(path).inputs
        ('sources/a',)
        """
        try:
            cells = msgspec.json.decode(path.read_bytes(), type=_Raw).cells
        except msgspec.DecodeError as error:
            raise DeclarationError(
                f"notebook {path.name!r} is not a notebook: {error}",
                next_step="open it in JupyterLab and save it again",
            ) from None
        title, description = _heading([c.text for c in cells if c.cell_type == "markdown"])
        code = tuple(plain_code(c.text) for c in cells if c.cell_type == "code")
        tagged = [
            plain_code(c.text) for c in cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])
        ]
        parameters = {n: v for text in tagged for n, v in _assignments(_parse(text, path))}
        inputs = [name for text in code for name in _loads(_parse(text, path))]
        return cls(path, title or path.stem, description, parameters, tuple(dict.fromkeys(inputs)), code)


def read_folder(folder: Path) -> list[NotebookFile]:
    """Return the notebooks of a project, by name; none where there is no folder."""
    return [NotebookFile.read(path) for path in sorted(folder.glob("*.ipynb"))]


def plain_code(text: str) -> str:
    r"""Return a cell without the lines that only IPython understands (``%magic``, ``!shell``).

    Examples
    --------
    >>> plain_code("%matplotlib inline\nx = 1")
    '\nx = 1'
    """
    if text.startswith("%%"):
        return ""
    return "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in text.splitlines())


def _heading(markdown: Sequence[str]) -> tuple[str, str]:
    for text in markdown:
        lines = text.strip().splitlines()
        if lines and lines[0].startswith("#"):
            return lines[0].lstrip("# "), " ".join(line.strip() for line in lines[1:] if line.strip())
    return "", ""


def _parse(code: str, path: Path) -> ast.Module:
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise DeclarationError(
            f"notebook {path.name!r}: a cell is not Python: {error.msg} (line {error.lineno} of the cell)",
            next_step="correct the cell, or start it with %% to hide it from windrow",
        ) from None


def _assignments(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            value = _literal(getattr(node, "value", None))
            if isinstance(target, ast.Name) and isinstance(value, _PLAIN):
                yield target.id, value


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None  # computed in the notebook: not something a run can set


def _loads(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        first = node.args[0]
        if called == "load" and isinstance(first, ast.Constant) and isinstance(first.value, str) and "/" in first.value:
            yield first.value
