"""A trainer that asks for a column no group makes fails before anything runs."""

from __future__ import annotations

import msgspec
import pytest

from windrow import columns
from windrow.errors import UnknownNameError
from windrow.models.columns import asked_columns, check_columns


def notebook(path, *sources):
    cells = [{"cell_type": kind, "source": text} for kind, text in sources]
    path.write_bytes(msgspec.json.encode({"cells": cells}))
    return path


def test_columns_is_a_list_of_names():
    assert columns("plan", "limit") == ["plan", "limit"]


def test_names_are_read_from_a_module_without_running_it(tmp_path):
    path = tmp_path / "train.py"
    path.write_text('raise SystemExit\nimport windrow\nA = columns("plan", "limit")\nB = windrow.columns("amount")\n')
    assert asked_columns(path) == ["plan", "limit", "amount"]


def test_names_are_read_from_the_code_of_a_notebook(tmp_path):
    path = notebook(
        tmp_path / "train.ipynb",
        ("markdown", 'columns("not me")'),
        ("code", ["%pip list\n", 'columns("plan")\n', "!ls"]),
    )
    assert asked_columns(path) == ["plan"]


def test_a_name_that_the_view_does_not_have_is_refused_with_the_closest(tmp_path):
    path = tmp_path / "train.py"
    path.write_text('WORDS = columns("plan", "amout")')
    with pytest.raises(
        UnknownNameError,
        match=r"the view of service 'fraud' \(asked for by train.py\) has no feature 'amout'.*did you mean 'amount'",
    ):
        check_columns(path, ["plan", "amount"], service="fraud")


def test_names_that_the_view_has_pass(tmp_path):
    path = tmp_path / "train.py"
    path.write_text('WORDS = columns("plan")')
    check_columns(path, ["plan", "amount"], service="fraud")
