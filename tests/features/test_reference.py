from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from windrow.errors import DataError, DeclarationError
from windrow.features.reference import Reference


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Write a module and return its name, which is its own: modules stay imported."""
    name = f"m_{abs(hash(request.node.nodeid))}"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_module_that_fails_on_import_is_named_with_file_and_line(module: Any) -> None:
    name = module("import math\n1 / 0\n")
    with pytest.raises(
        DeclarationError,
        match=rf"module '{name}' cannot be imported: ZeroDivisionError: .* It stops at .*{name}.py, line 2. Next: correct it there",
    ):
        Reference.to(f"{name}:model").load()


def test_a_module_with_broken_syntax_is_named_with_file_and_line(module: Any) -> None:
    name = module("x = (\n")
    with pytest.raises(DeclarationError, match=rf"cannot be imported: SyntaxError: .* It stops at .*{name}.py, line 1"):
        Reference.to(f"{name}:model").load()


def test_a_package_that_a_module_misses_is_not_taken_for_the_module(module: Any) -> None:
    name = module("import no_such_package\n")
    with pytest.raises(
        DeclarationError,
        match=f"module '{name}' cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
    ):
        Reference.to(f"{name}:model").load()


@pytest.mark.parametrize(
    ("call", "step"), [("Online(p99=20)", "did you mean 'p99_ms'?"), ("Drift(zzz=1)", "correct it there")]
)
def test_an_argument_that_is_misspelt_is_told_with_those_that_exist(module: Any, call: str, step: str) -> None:
    name = module(f"import windrow\nwindrow.{call}\n")
    with pytest.raises(DeclarationError, match="It takes '[a-z]") as told:
        Reference.to(f"{name}:model").load()
    assert told.value.next_step == step


def test_an_argument_of_a_stranger_is_told_as_python_tells_it(module: Any) -> None:
    name = module("def f(): ...\nf(a=1)\n")
    with pytest.raises(DeclarationError, match="unexpected keyword argument 'a'. It stops"):
        Reference.to(f"{name}:model").load()


def test_a_function_that_fails_is_named_with_its_role_and_place(module: Any) -> None:
    name = module("def model():\n    raise KeyError('x')\n")
    with pytest.raises(
        DeclarationError,
        match=rf"the trainer of service 'churn' \({name}:model\) fails: KeyError: 'x'. It stops at .*{name}.py, line 2",
    ):
        Reference.to(f"{name}:model").call("the trainer of service 'churn'")


def test_an_error_of_windrow_passes_a_call_unchanged() -> None:
    def wrong() -> None:
        raise DataError("there is no rain", next_step="wait")

    with pytest.raises(DataError, match="^there is no rain. Next: wait.$"):
        Reference.to(wrong).call("the simulator of source 'rain'")


def test_a_notebook_given_as_text_is_told_how_to_write_it() -> None:
    with pytest.raises(DeclarationError, match=r"is a notebook, not a function. Next: write Notebook\('train.ipynb'\)"):
        Reference.to("notebooks/train.ipynb")
