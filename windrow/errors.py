"""Every error that windrow raises on purpose.

    WindrowError                 says what is wrong, what exists, and what to do next
    +-- DeclarationError         a declaration cannot be right, on any machine
    |   +-- UnknownNameError     a name that nothing declares (offers the closest ones)
    |   +-- VersionError         a definition changed under the same version
    +-- SettingsError            an environment variable or option that cannot be used
    +-- DataError                data that must not be stored or trained on
    |   +-- SchemaError          columns or types differ from the declaration
    |   +-- TimeError            a time that is naive, ambiguous, or unparseable
    |   +-- ValidationError      rows that fail a group's checks
    +-- StoreError               a table, online store, log or sink cannot be used
    |   +-- NotFoundError        nothing is stored under that name yet
    |   +-- PastError            a time before what the online store still tells apart
    |   +-- AwayError            a store that does not answer now, and may later
    +-- ModelError               an estimator does not fit its view, or a bundle is unsound
    |   +-- ParityError          a compiled model does not answer as the original does
    +-- RequestError             a request that cannot be answered (carries an HTTP status)
    |   +-- RefusedError         a request of somebody who may not make it (carries headers of the answer)
    +-- NotebookError            a notebook failed (carries the failing cell)

Errors are built from facts, so that messages stay bounded whatever the data's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_SHOWN = 8


def listed(names: Iterable[str], *, shown: int = _SHOWN) -> str:
    """Return `names` as a short sentence part, at most `shown` of them.

    Examples
    --------
    >>> listed(["b", "a"])
    "'a', 'b'"
    >>> listed([])
    'none'
    >>> listed("abcd", shown=2)
    "'a', 'b' and 2 more"
    """
    ordered = sorted(names)
    head = ", ".join(repr(name) for name in ordered[:shown])
    rest = len(ordered) - shown
    return (f"{head} and {rest} more" if rest > 0 else head) or "none"


def closest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the name most like `name`, or "" if none is.

    Examples
    --------
    >>> closest("amout", ["amount", "lat"])
    "did you mean 'amount'?"
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


class WindrowError(Exception):
    """What is wrong, what exists, what to do next.

    Parameters
    ----------
    what
        One sentence naming the thing that is wrong.
    exists
        What there is instead, if that helps.
    next_step
        What to write or run now.

    Examples
    --------
    >>> print(WindrowError("No home", next_step="set WINDROW_HOME"))
    No home. Next: set WINDROW_HOME.
    """

    def __init__(self, what: str, *, exists: str = "", next_step: str = "") -> None:
        self.what = what.rstrip(".")
        self.exists = exists.rstrip(".")
        self.next_step = next_step.rstrip(".")
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole text, as sentences."""
        parts = [self.what, self.exists, self.next_step and f"Next: {self.next_step}"]
        text = ". ".join(part for part in parts if part)
        return text if text.endswith("?") else f"{text}."

    def _render_traceback_(self) -> list[str]:
        """Show one line in a notebook instead of a page of frames."""
        return [f"{type(self).__name__}: {self.message}"]


class DeclarationError(WindrowError):
    """A declaration cannot be right, on any machine."""


class UnknownNameError(DeclarationError):
    """A name that nothing declares.

    Examples
    --------
    >>> print(UnknownNameError("column", "amout", ["amount", "lat"], where="source 'payments'"))
    source 'payments' has no column 'amout'. It has 'amount', 'lat'. Next: did you mean 'amount'?
    """

    def __init__(self, kind: str, name: str, known: Sequence[str], *, where: str) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(
            f"{where} has no {kind} {name!r}",
            exists=f"It has {listed(known)}",
            next_step=closest(name, known) or f"use one of them or declare {kind} {name!r}",
        )


class VersionError(DeclarationError):
    """A definition changed under the same version."""


class SettingsError(WindrowError):
    """An environment variable or option that cannot be used."""


class DataError(WindrowError):
    """Data that must not be stored or trained on."""


class SchemaError(DataError):
    """Columns or types differ from the declaration."""


class TimeError(DataError):
    """A time that is naive, ambiguous, or unparseable."""


class ValidationError(DataError):
    """Rows that fail a group's checks; `reasons` counts them by check."""

    def __init__(self, what: str, *, reasons: dict[str, int], next_step: str) -> None:
        self.reasons = reasons
        told = "; ".join(f"{reason}: {count} rows" for reason, count in list(reasons.items())[:_SHOWN])
        super().__init__(what, exists=f"Failed checks: {told}", next_step=next_step)


class StoreError(WindrowError):
    """A table, online store, log or sink cannot be used."""


class NotFoundError(StoreError):
    """Nothing is stored under that name yet."""


class PastError(StoreError):
    """A time before what the online store still tells apart."""


class AwayError(StoreError):
    """A store that does not answer now, and may later: its server is down, its file is gone.

    `slow` says that the caller has waited for it.
    """

    def __init__(self, what: str, *, next_step: str = "", slow: bool = False) -> None:
        self.slow = slow
        super().__init__(what, next_step=next_step)


class ModelError(WindrowError):
    """An estimator does not fit its view, or a bundle is unsound."""


class ParityError(ModelError):
    """A compiled model does not answer as the original does."""


class RequestError(WindrowError):
    """A request that cannot be answered.

    `status` is the HTTP status, `kind` a stable machine-readable word, `where` a JSON path.
    Values of the request are never part of the message.
    """

    def __init__(self, status: int, kind: str, what: str, *, where: str = "", next_step: str = "") -> None:
        self.status, self.kind, self.where = status, kind, where
        super().__init__(what, next_step=next_step)


class RefusedError(RequestError):
    """A request of somebody who may not make it; `headers` say to programs what the message says to people."""

    def __init__(
        self, status: int, kind: str, what: str, *, next_step: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.headers = headers
        super().__init__(status, kind, what, where="headers", next_step=next_step)


class NotebookError(WindrowError):
    """A notebook failed; `cell` is the index of the failing cell, if one ran."""

    def __init__(self, what: str, *, cell: int | None = None, next_step: str = "") -> None:
        self.cell = cell
        super().__init__(what, next_step=next_step)
