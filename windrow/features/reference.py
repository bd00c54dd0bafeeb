"""Names of heavy parts, resolved only when they are needed: ``"train:model"`` relative to who declared it."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from windrow.errors import DeclarationError, UnknownNameError, WindrowError, closest, listed

_LIBRARY = str(Path(__file__).parents[1]) + os.sep
_UNEXPECTED = re.compile(r"(\w+?)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")


@dataclass(frozen=True)
class Reference:
    """A module attribute by name, or a function given directly.

    Examples
    --------
    >>> Reference.to("json:dumps").load()([1])
    '[1]'
    """

    module: str
    attribute: str
    given: Callable[..., Any] | None = None

    @classmethod
    def to(cls, target: str | Callable[..., Any], package: str | None = None) -> Reference:
        """Make a reference; a string is ``"module:attribute"`` inside `package` first, then absolute."""
        if callable(target):
            return cls(target.__module__, target.__qualname__, target)
        module, found, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
        if str(target).endswith(".ipynb"):
            name = Path(str(target)).name
            raise DeclarationError(f"{target!r} is a notebook, not a function", next_step=f"write Notebook({name!r})")
        if not (found and module and attribute):
            raise DeclarationError(f"{target!r} does not name a function", next_step='write "module:function"')
        relative = f"{package}.{module}" if package else module
        return cls(relative if package and _exists(relative) else module, attribute)

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"

    def load(self) -> Any:
        """Import the module and return the attribute.

        Raises
        ------
        DeclarationError
            When there is no such module or attribute, or the module fails on import (with file and line).
        """
        if self.given is not None:
            return self.given
        try:
            module = importlib.import_module(self.module)
        except WindrowError:
            raise
        except (Exception, SystemExit) as error:
            # A project's own code may raise anything; it is told where.
            if isinstance(error, ModuleNotFoundError) and error.name == self.module:
                raise self._missing_module() from None
            raise stopped(f"module {self.module!r} cannot be imported", error) from error
        if not hasattr(module, self.attribute):
            public = [name for name in vars(module) if not name.startswith("_")]
            raise UnknownNameError("function", self.attribute, public, where=f"module {self.module!r}")
        return getattr(module, self.attribute)

    def call(self, role: str, **arguments: Any) -> Any:
        """Return what the function gives.

        Parameters
        ----------
        role
            What the function is, for errors: ``"the simulator of source 'sales'"``.
        **arguments
            Handed to the function.

        Raises
        ------
        DeclarationError
            When the function raises (with file and line), or cannot be loaded.
        """
        function = self.load()
        try:
            return function(**arguments)
        except WindrowError:
            raise
        except (Exception, SystemExit) as error:
            # As on import. One that ends the process would end it without a word.
            raise stopped(f"{role} ({self}) fails", error) from error

    def source_path(self) -> Path:
        """Return the file that the reference points into, without running it."""
        if self.given is not None:
            return Path(self.given.__code__.co_filename)
        spec = find_spec(self.module)
        if spec is None or spec.origin is None:
            raise self._missing_module()
        return Path(spec.origin)

    def _missing_module(self) -> DeclarationError:
        return DeclarationError(
            f"There is no module {self.module!r}", next_step=f"create it, with {self.attribute!r} in it"
        )


def stopped(what: str, error: Exception | SystemExit) -> DeclarationError:
    """Return the error that says where a project's own code stopped.

    Examples
    --------
    >>> stopped("module 'train' cannot be imported", NameError("no name"))
    DeclarationError("module 'train' cannot be imported: NameError: no name. Next: correct it there.")
    """
    told = " ".join(str(error).split())[:300]
    if isinstance(error, SystemExit):
        return DeclarationError(
            f"{what}: it ends the process (sys.exit({told}))",
            exists=_place(error),
            next_step="raise an error that says what is wrong, or keep what is for the command line out of it",
        )
    takes, meant = _misspelt(str(error))
    return DeclarationError(
        f"{what}: {type(error).__name__}: {told}",
        exists=". ".join(filter(None, [takes, _place(error)])),
        next_step=meant or "correct it there",
    )


def _misspelt(told: str) -> tuple[str, str]:
    """Return what the called function or class of this library takes, and which of that was meant."""
    found = _UNEXPECTED.match(told)
    called = getattr(importlib.import_module("windrow"), found[1], None) if found else None
    if found is None or not callable(called):
        return "", ""
    known = list(inspect.signature(called).parameters)
    return f"It takes {listed(known, shown=len(known))}", closest(found[2], known)


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"It stops at {error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    foreign = (_LIBRARY, os.path.dirname(os.__file__))
    own = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(foreign)]
    return f"It stops at {own[-1].filename}, line {own[-1].lineno}" if own else ""


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def declaring_package(depth: int = 2) -> str | None:
    """Return the package of the code that called the caller (`depth` frames up), or None outside packages."""
    return sys._getframe(depth).f_globals.get("__package__") or None
