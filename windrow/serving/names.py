"""Names in a request's body: which ones an error may repeat, and none twice in one object.

JSON's readers keep the last of two values and say nothing. Every name takes a colon. Where a body has as many colons as there are names and colons in texts, no name is there twice;
counting them costs less than a microsecond. Only a body in doubt is read again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from windrow.errors import RequestError

# A name is the client's text too: only what looks like one is repeated.
SPEAKABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class _Object(dict[str, Any]):
    """A JSON object, and the first name that it was given twice."""

    twice: str | None = None


def refuse_duplicates(body: bytes, document: Mapping[str, Any]) -> None:
    """Raise if a name stands twice in the object of a body that was decoded already, or in an object of its lists.

    Raises
    ------
    RequestError
        400, with the path of the name.

    Examples
    --------
    >>> refuse_duplicates(b'{"x": 1, "at": "10:30"}', {"x": 1, "at": "10:30"})
    >>> refuse_duplicates(b'{"x": 1, "x": 2}', {"x": 2})
    Traceback (most recent call last):
    windrow.errors.RequestError: The field 'x' is given twice. Next: send each field once.
    """
    left = body.count(b":") - len(document)
    if not left:
        return
    lists, texts = [], 0
    for value in document.values():
        if type(value) is str:
            texts += value.count(":")
        elif type(value) is list:
            lists.append(value)
    if lists:
        objects = [one for items in lists for one in items if type(one) is dict]
        left -= sum(map(len, objects))
        texts += _colons(objects) if left != texts else 0
    # Where a colon is written as an escape, it is one more in the text than in the body.
    if left != texts or (texts and b"\\" in body):
        _read_again(body)


def _colons(objects: Sequence[Mapping[str, Any]]) -> int:
    """Return how many colons stand in texts."""
    count = 0
    for one in objects:
        for value in one.values():
            if type(value) is str:
                count += value.count(":")
    return count


def _read_again(body: bytes) -> None:
    try:
        document = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError):  # a number or a depth that only the quicker reader takes
        return
    _refuse(document, "$")
    for name, values in document.items():
        for i, value in enumerate(values if type(values) is list else ()):
            _refuse(value, f"$.{name}[{i}]")


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        made.twice = next(name for name, count in counted.items() if count > 1)
    return made


def _refuse(value: Any, where: str) -> None:
    name = value.twice if isinstance(value, _Object) else None
    if name is None:
        return
    if SPEAKABLE.fullmatch(name):
        what, where = f"The field {name!r} is given twice", f"{where}.{name}"
    else:
        what = "A field is given twice"
    raise RequestError(400, "duplicate-field", what, where=where, next_step="send each field once")
