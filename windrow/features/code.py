"""The meaning of a Python function as text: what it and the functions and values it uses in its module say."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from windrow.errors import DeclarationError

_PLAIN = (bool, int, float, str, bytes, type(None))


def meaning(function: Callable[..., Any], *, where: str) -> str:
    """Return text that changes with what a function does, and not with comments, layout or docstrings.

    Functions of the same module that it calls, and plain values that it reads there, are part of it; what it
    imports from elsewhere is not.

    Raises
    ------
    DeclarationError
        If its source cannot be read (it was written at a prompt).

    Examples
    --------
    >>> from windrow.clock import duration, spoken
    >>> meaning(spoken, where="f") == meaning(spoken, where="g") != meaning(duration, where="f")
    True
    """
    found: dict[str, str] = {}
    _collect(function, found, where)
    return "\n".join(f"{name} = {text}" for name, text in sorted(found.items()))


def _collect(function: Any, found: dict[str, str], where: str) -> None:
    if function.__qualname__ in found:
        return
    found[function.__qualname__] = _text(function, where)
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        if isinstance(value, FunctionType) and value.__module__ == function.__module__:
            _collect(value, found, where)
        elif name in function.__globals__ and _plain(value):
            found[name] = repr(value)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN)


def _names(code: CodeType) -> set[str]:
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)


def _text(function: Any, where: str) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        raise DeclarationError(
            f"the text of {where} cannot be read", next_step="define its function in a file, with def"
        ) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
