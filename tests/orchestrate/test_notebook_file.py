"""Promises of reading notebooks without running them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windrow.errors import DeclarationError, UnknownNameError
from windrow.orchestrate.notebook_file import NotebookFile, read_folder
from windrow.orchestrate.notebooks import config_schema, inputs


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(*cells: tuple[str, str] | tuple[str, str, str], name: str = "a.ipynb") -> NotebookFile:
        made = [
            {"cell_type": kind, "source": text.splitlines(keepends=True), "metadata": {"tags": list(tags)}}
            for kind, text, *tags in cells
        ]
        path = tmp_path / name
        path.write_text(json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
        return NotebookFile.read(path)

    return make


def test_the_first_heading_is_the_title_and_the_text_below_it_the_description(write: Any) -> None:
    notebook = write(
        ("markdown", "plain text"), ("markdown", "## Explore\n\nWho leaves,\nand when."), ("markdown", "# B")
    )
    assert (notebook.title, notebook.description) == ("Explore", "Who leaves, and when.")


def test_without_a_heading_the_file_name_is_the_title(write: Any) -> None:
    assert write(("code", "x = 1"), name="look.ipynb").title == "look"


def test_inputs_are_the_literal_names_that_are_loaded_each_once(write: Any) -> None:
    code = (
        'a = load("features/x_v1")\nb = nb.load("churn/log")\nload("features/x_v1")\nload(name)\njson.load("nothing")'
    )
    assert write(("code", code)).inputs == ("features/x_v1", "churn/log")


def test_text_cells_and_comments_are_no_inputs(write: Any) -> None:
    assert write(("markdown", 'load("features/a_v1")'), ("code", '# load("features/b_v1")')).inputs == ()


def test_nothing_of_a_notebook_runs_when_it_is_read(write: Any, tmp_path: Path) -> None:
    write(("code", f"open({str(tmp_path / 'ran')!r}, 'w')"))
    assert not (tmp_path / "ran").exists()


def test_parameters_are_the_literals_of_the_tagged_cell(write: Any) -> None:
    code = 'trees = 200\nrate: float = 0.1\nnames = ["a"]\nlate = max(1, 2)'
    notebook = write(("code", "other = 1"), ("code", code, "parameters"))
    assert notebook.parameters == {"trees": 200, "rate": 0.1, "names": ["a"]}


def test_parameters_become_run_configuration_with_their_defaults(write: Any) -> None:
    fields = config_schema(write(("code", 'trees = 200\nword = "plan"', "parameters")))
    assert {name: field.default_value for name, field in fields.items()} == {"trees": 200, "word": "plan"}


def test_lines_that_only_a_notebook_understands_are_skipped(write: Any) -> None:
    assert write(("code", '%matplotlib inline\n!ls\nload("sources/a")')).inputs == ("sources/a",)


def test_a_file_that_is_no_notebook_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(DeclarationError, match=r"'broken.ipynb' is not a notebook"):
        read_folder(tmp_path)


def test_a_cell_that_is_no_python_is_refused_with_its_line(write: Any) -> None:
    with pytest.raises(DeclarationError, match=r"a cell is not Python: .* \(line 2 of the cell\)"):
        write(("code", "x = 1\nx = = 2"))


def test_a_misspelt_input_is_found_before_anything_runs(write: Any) -> None:
    notebook = write(("code", 'load("features/habit_v1")'))
    with pytest.raises(
        UnknownNameError, match=r"has no input 'features/habit_v1'.*did you mean 'features/habits_v1'\?"
    ):
        inputs(notebook, ["features/habits_v1", "visits/model"])


def test_a_path_that_is_no_asset_is_not_an_input(write: Any) -> None:
    assert inputs(write(("code", 'np.load("data/x.npy")')), ["features/habits_v1"]) == []
