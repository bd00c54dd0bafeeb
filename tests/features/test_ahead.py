"""One step ahead, and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from windrow.errors import StoreError
from windrow.features.ahead import ahead


def test_the_next_item_is_made_while_the_last_one_is_used() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    made = ahead(items())
    assert next(made) == 1
    assert second.wait(10)
    assert list(made) == [2]


def test_an_error_is_raised_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise StoreError("the disk is full", next_step="free disk space")

    made = ahead(items())
    assert next(made) == 1
    with pytest.raises(StoreError, match="the disk is full"):
        next(made)


def test_its_thread_ends_with_whoever_leaves_early() -> None:
    made = ahead(iter(range(1000)))
    assert next(made) == 0
    made.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("windrow-ahead")]
