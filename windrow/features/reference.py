"""Names of heavy parts, resolved only when they are needed: ``"train:model"`` relative to who declared it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from windrow.errors import DeclarationError, UnknownNameError


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
        module, found, attribute = target.partition(":")
        if not (found and module and attribute):
            raise DeclarationError(f"{target!r} does not name a function", next_step='write "module:function"')
        relative = f"{package}.{module}" if package else module
        return cls(relative if package and _exists(relative) else module, attribute)

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"

    def load(self) -> Any:
        """Import the module and return the attribute."""
        if self.given is not None:
            return self.given
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name != self.module:
                raise
            raise self._missing_module() from None
        if not hasattr(module, self.attribute):
            public = [name for name in vars(module) if not name.startswith("_")]
            raise UnknownNameError("function", self.attribute, public, where=f"module {self.module!r}")
        return getattr(module, self.attribute)

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


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def declaring_package(depth: int = 2) -> str | None:
    """Return the package of the code that called the caller (`depth` frames up), or None outside packages."""
    return sys._getframe(depth).f_globals.get("__package__") or None
