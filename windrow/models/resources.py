"""What training needs of the machine it runs on, said once, in the words of no launcher."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from windrow.errors import DeclarationError, UnknownNameError

KINDS = ("cpu", "gpu", "memory", "queue")
_MEMORY = re.compile(r"[1-9]\d*(Ki|Mi|Gi|Ti|K|M|G|T)")

Resources = Mapping[str, int | float | str]


def check_resources(resources: Resources, *, where: str) -> Resources:
    """Return what training needs, if every part of it can be asked of a launcher.

    Parameters
    ----------
    resources
        ``cpu`` (cores), ``gpu`` (a whole number), ``memory`` (such as ``"8Gi"``), ``queue`` (a name).

    Raises
    ------
    DeclarationError
        If a name or an amount is none of these.

    Examples
    --------
    >>> check_resources({"memory": "8"}, where="service 'churn'")
    Traceback (most recent call last):
    windrow.errors.DeclarationError: resources= of service 'churn' asks for memory='8'. Next: write "8Gi" or "512Mi".
    """
    for name, amount in resources.items():
        if name not in KINDS:
            raise UnknownNameError("resource", name, KINDS, where=f"resources= of {where}")
        if not _GOOD[name](amount):
            raise DeclarationError(
                f"resources= of {where} asks for {name}={amount!r}", next_step=f"write {_EXAMPLES[name]}"
            )
    return MappingProxyType(dict(resources))


def _whole(amount: object) -> bool:
    return isinstance(amount, int) and not isinstance(amount, bool) and amount > 0


def _cores(amount: object) -> bool:
    return _whole(amount) or (isinstance(amount, float) and amount > 0)


def _bytes(amount: object) -> bool:
    return isinstance(amount, str) and _MEMORY.fullmatch(amount) is not None


def _named(amount: object) -> bool:
    return isinstance(amount, str) and bool(amount.strip())


_GOOD: dict[str, Callable[[object], bool]] = {"cpu": _cores, "gpu": _whole, "memory": _bytes, "queue": _named}
_EXAMPLES = {
    "cpu": "cores, such as 2 or 0.5",
    "gpu": "a whole number, such as 1",
    "memory": '"8Gi" or "512Mi"',
    "queue": 'its name, such as "training"',
}
