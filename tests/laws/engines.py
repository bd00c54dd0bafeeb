"""The engines that point-in-time look-ups run on. Another one is one more line here: the whole suite then holds for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import ibis
import pytest

from windrow.features.asof import Form
from windrow.stores.engine import engine


class Engine(NamedTuple):
    """How to open one, and the forms of the look-up that it can do."""

    name: str
    open: Callable[[], Any]
    forms: tuple[Form, ...]


ENGINES = (
    Engine("duckdb", engine, ("asof", "late", "merge", "window")),
    Engine("sqlite", cache(lambda: ibis.sqlite.connect()), ("auto",)),  # no ASOF join: the window form, unasked
)

# For tests: ``@each_form`` runs a test with ``con`` and ``form`` for every engine and form.
each_form = pytest.mark.parametrize(
    ("engine", "form"), [pytest.param(e, f, id=f"{e.name}-{f}") for e in ENGINES for f in e.forms]
)
