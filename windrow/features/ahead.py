"""One step ahead: the next item is made while the last one is used."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")
_END: Any = object()


def ahead(items: Iterable[_T]) -> Generator[_T, None, None]:
    """Yield `items`; each is made by a thread of its own while the one before it is used.

    Worth it where both wait or leave the interpreter's lock: an engine that streams, a disk that is written.

    Parameters
    ----------
    items
        Iterated in that thread only; what it raises is raised here, in its place.

    Examples
    --------
    >>> list(ahead(n * n for n in range(3)))
    [0, 1, 4]
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="windrow-ahead") as maker:
        coming = maker.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = maker.submit(next, iterator, _END)
            yield item
