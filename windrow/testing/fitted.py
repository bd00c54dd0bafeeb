"""What an estimator learned, part by part, as digests that two fits can be compared by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)


def fitted_content(estimator: Any) -> dict[str, str]:
    """Return every part of a fitted estimator and of its parts -> a digest of its value.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> one, two = (fitted_content(LinearRegression().fit([[0.0], [1.0]], [0.0, y])) for y in (1.0, 2.0))
    >>> [name for name in one if one[name] != two[name]]
    ['coef_', 'intercept_']
    """
    return {".".join(path): digest for path, digest in _walk(estimator, (), {})}


def _walk(value: Any, path: tuple[str, ...], seen: dict[int, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, (*_PLAIN, type)) or callable(getattr(value, "__code__", None)):
        yield path, _digest(repr(value).encode())
    elif isinstance(value, np.ndarray):
        yield path, _digest(b"".join(_bytes(value)))
    elif id(value) in seen:
        return
    else:
        seen[id(value)] = value  # kept, so that no other object is given its id
        for name, part in _parts(value):
            yield from _walk(part, (*path, name), seen)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, tuple | list):
        return [(str(place), part) for place, part in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [("", sorted(map(repr, value)))]
    return [("", type(value).__qualname__), *_state(value)]


def _state(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, np.random.RandomState):
        return [("state", repr(value.get_state(legacy=True)))]
    try:
        state = value.__getstate__()
    except TypeError:  # compiled classes without a state of that kind say it by how they are built
        state = None
    if state is None:
        try:
            state = value.__reduce__()[1:]
        except TypeError:
            return []  # holds nothing that can be kept, such as a lock
    return _parts(state) if isinstance(state, Mapping | tuple | list) else [("state", state)]


def _bytes(values: np.ndarray[Any, Any]) -> Iterator[bytes]:
    yield f"{values.dtype}{values.shape}".encode()
    if values.dtype.names:  # field by field: the padding between them is whatever was in memory
        for name in values.dtype.names:
            yield from _bytes(values[name])
    elif values.dtype == object:
        yield repr(values.tolist()).encode()
    else:
        yield np.ascontiguousarray(values).tobytes()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
