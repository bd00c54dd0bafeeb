"""Errors say what is wrong, what exists and what to do next, in one bounded line."""

from __future__ import annotations

import inspect
import re

import pytest

from windrow import errors
from windrow.errors import NotebookError, RequestError, UnknownNameError, ValidationError, WindrowError, closest, listed


def test_a_message_is_made_of_what_what_exists_and_the_next_step() -> None:
    error = WindrowError("No lake", exists="There is a shed", next_step="dig one")
    assert str(error) == "No lake. There is a shed. Next: dig one."


def test_parts_left_out_leave_no_trace() -> None:
    assert str(WindrowError("No lake.")) == "No lake."


def test_a_list_of_names_is_cut_after_eight() -> None:
    assert listed(f"n{i}" for i in range(10)) == "'n0', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7' and 2 more"


def test_an_unknown_name_offers_the_closest() -> None:
    error = UnknownNameError("column", "amout", ["amount", "lat"], where="source 'payments'")
    assert error.next_step == "did you mean 'amount'?"
    assert (error.name, error.known) == ("amout", ("amount", "lat"))


def test_an_unknown_name_like_no_other_is_told_so() -> None:
    error = UnknownNameError("column", "zzz", ["amount"], where="source 'payments'")
    assert error.next_step == "use one of them or declare column 'zzz'"


def test_nothing_is_close_to_a_strange_name() -> None:
    assert closest("zzz", ["amount"]) == ""


def test_the_message_stays_bounded_with_ten_thousand_names() -> None:
    error = UnknownNameError("column", "x", [f"column_{i}" for i in range(10_000)], where="source 'wide'")
    assert len(str(error)) < 300
    assert "and 9992 more" in str(error)


def test_a_failed_validation_counts_its_reasons() -> None:
    error = ValidationError("Group 'spend' has bad rows", reasons={"amount < 0": 3}, next_step="mend them")
    assert error.reasons == {"amount < 0": 3}
    assert str(error) == "Group 'spend' has bad rows. Failed checks: amount < 0: 3 rows. Next: mend them."


def test_a_failed_validation_shows_eight_reasons_at_most() -> None:
    error = ValidationError("bad", reasons={f"r{i}": i for i in range(50)}, next_step="look")
    assert str(error).count("rows") == 8


def test_a_request_error_carries_its_http_status_and_place() -> None:
    error = RequestError(
        422, "wrong_type", "amount is not a number", where="$.rows[0].amount", next_step="send a number"
    )
    assert (error.status, error.kind, error.where) == (422, "wrong_type", "$.rows[0].amount")


def test_a_notebook_error_knows_its_cell() -> None:
    assert NotebookError("failed", cell=3).cell == 3


def test_a_notebook_shows_one_line_instead_of_frames() -> None:
    assert WindrowError("No lake", next_step="dig one")._render_traceback_() == [
        "WindrowError: No lake. Next: dig one."
    ]


def test_every_error_is_caught_as_a_windrow_error() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == "windrow.errors"]
    assert all(issubclass(c, WindrowError) for c in classes)
    assert len(classes) == 18


def test_the_tree_drawn_on_top_is_the_tree() -> None:
    drawn = re.findall(r"^    [|+\- ]*(\w+Error) ", str(errors.__doc__), flags=re.MULTILINE)
    built = [n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == "windrow.errors"]
    assert sorted(drawn) == sorted(built)


def test_an_unknown_name_is_a_declaration_error() -> None:
    with pytest.raises(errors.DeclarationError, match="has no column 'a'"):
        raise UnknownNameError("column", "a", [], where="source 's'")
