"""Kinds of arguments: what a declaration is given must be what it asks for, said before Python stumbles over it."""

from __future__ import annotations

from typing import Any

from windrow.errors import DeclarationError


def check_kind(value: Any, kinds: type | tuple[type, ...], *, where: str, example: str) -> None:
    """Raise `DeclarationError` if `value` is none of `kinds`.

    Parameters
    ----------
    value
        What was given.
    kinds
        What it may be.
    where
        What it was given as: ``"split= of service 'churn'"``.
    example
        What to write.

    Examples
    --------
    >>> check_kind("80/20", int, where="split= of service 'churn'", example="RandomSplit(test=0.25)")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: split= of service 'churn' is the text '80/20'. Next: write RandomSplit(test=0.25).
    """
    if not isinstance(value, kinds):
        raise DeclarationError(f"{where} is {said(value)}", next_step=f"write {example}")


def check_kinds(values: Any, kinds: type | tuple[type, ...], *, where: str, example: str) -> None:
    """Raise `DeclarationError` if `values` is no list, or one of them is none of `kinds`; see `check_kind`."""
    check_kind(values, (list, tuple), where=where, example=f"a list: [{example}]")
    for value in values:
        check_kind(value, kinds, where=f"one of {where}", example=example)


def check_version(version: Any, *, where: str) -> None:
    """Raise `DeclarationError` if `version` is not a whole number from 1 on.

    Examples
    --------
    >>> check_version("1", where="feature group 'spend'")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: version= of feature group 'spend' is the text '1'. Next: write version=1.
    """
    if type(version) is not int:
        raise DeclarationError(f"version= of {where} is {said(version)}", next_step="write version=1")
    if version < 1:
        raise DeclarationError(f"{where} has version {version}", next_step="start at version=1")


def said(value: Any) -> str:
    """Return what a value is, in words that a message can carry.

    Examples
    --------
    >>> said(None), said("a"), said(check_kind), said(int), said(3.5)
    ('None', "the text 'a'", "the function 'check_kind'", "the class 'int'", 'a float')
    """
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, type):
        return f"the class {value.__name__!r}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__!r}"
    return f"a{'n' if type(value).__name__[0] in 'aeiouAEIOU' else ''} {type(value).__name__}"
