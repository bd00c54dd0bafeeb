from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from statistics import quantiles

import pytest

from tests.house.conftest import ROOT, python_files, text_files

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _tool(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function)]


def _body_lines(function: Function) -> int:
    documented = ast.get_docstring(function) is not None
    body = function.body[1:] if documented else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _parameters(function: Function) -> int:
    return len([a for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls")])


def test_ruff_finds_nothing() -> None:
    assert _tool("ruff", "check", "--quiet", ".") == ""


def test_rooms_import_downwards_only() -> None:
    code = "import sys; from importlinter.cli import lint_imports_command as c; sys.argv = ['x', '--no-cache', '--no-logo']; c()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_library_is_typed_strictly() -> None:
    assert _tool("mypy") == ""


def test_no_file_is_longer_than_500_lines() -> None:
    assert [p.name for p in python_files() if len(p.read_text().splitlines()) > 500] == []


def test_nine_of_ten_functions_have_bodies_of_25_lines_or_fewer() -> None:
    lengths = [_body_lines(f) for path in python_files("windrow") for f in _functions(path)]
    assert quantiles(lengths, n=10)[8] <= 25


def test_no_function_body_is_longer_than_50_lines() -> None:
    long = [
        f"{p.name}:{f.name}"
        for p in python_files("windrow", "assets", "bento")
        for f in _functions(p)
        if _body_lines(f) > 50
    ]
    assert long == []


def test_nine_of_ten_functions_take_four_positional_parameters_or_fewer() -> None:
    counts = [_parameters(f) for path in python_files("windrow") for f in _functions(path)]
    assert quantiles(counts, n=10)[8] <= 4


def test_no_class_is_called_manager_or_context() -> None:
    classes = [
        n.name for p in python_files() for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.ClassDef)
    ]
    assert [name for name in classes if name.endswith(("Manager", "Context"))] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    places = re.compile(r"(?<![\w.])/(?:work|root|home/\w|Users/\w)")
    assert [
        str(p.relative_to(ROOT))
        for p in text_files()
        if places.search(p.read_text(errors="ignore")) and p != Path(__file__)
    ] == []


def test_only_the_makefile_knows_where_shared_data_may_stand() -> None:
    naming = [p.name for p in text_files() if "../shared" in p.read_text(errors="ignore") and p != Path(__file__)]
    assert naming == ["Makefile"]


def test_the_lock_names_versions_and_no_registry() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if not line.lstrip().startswith("#")]
    assert [line for line in packages if not re.match(r"[a-z0-9._-]+==[\w.+!]+( ;.*)?$", line)] == []
    assert [line for line in lines if "://" in line] == []


@pytest.mark.parametrize("room", ["errors", "schema", "clock", "settings", "features", "stores", "models", "serving"])
def test_lower_rooms_do_not_name_dagster(room: str) -> None:
    files = [p for p in python_files("windrow") if p.relative_to(ROOT / "windrow").parts[0] in (room, f"{room}.py")]
    assert files
    assert [p.name for p in files if re.search(r"^\s*(import|from) dagster", p.read_text(), re.MULTILINE)] == []


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "assets").glob("*/features.py")) + sorted((ROOT / "assets").glob("*/service.py")),
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_declarations_import_the_front_door_and_ibis_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert [n for n in names if n not in ("windrow", "ibis") and not n.startswith("assets.")] == []


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in (ROOT / "assets").glob("*/service.py")), ids=lambda p: p.name
)
def test_a_service_is_declared_in_about_a_hundred_lines(folder: Path) -> None:
    lines = [
        line
        for name in ("features.py", "service.py")
        for line in (folder / name).read_text().splitlines()
        if line.strip()
    ]
    assert len(lines) <= 150


def test_every_package_has_a_lower_and_an_upper_bound() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    assert [d for d in wanted if not d.startswith("windrow[") and not (">=" in d and "<" in d)] == []


def test_nothing_pickles() -> None:
    pickling = re.compile(r"^\s*(import|from) (pickle|cloudpickle|joblib|dill)", re.MULTILINE)
    # The one door: a process of its own, begun by `windrow onboard --allow-code-execution` alone.
    assert [
        str(p.relative_to(ROOT)) for p in python_files("windrow", "assets", "bento") if pickling.search(p.read_text())
    ] == ["windrow/models/unpickle.py"]
