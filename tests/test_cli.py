from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windrow.cli import _COMMANDS, _called_wrongly, cli, run
from windrow.commands.screen import say, show
from windrow.errors import UnknownNameError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_PROJECT", str(ROOT))


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help_with_an_example_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"windrow {name}" in told.partition("Example:")[2]
    assert "--json" in told


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    code = "import sys; from windrow.cli import run; run(['--help']); print(sorted({'ibis', 'rich', 'numpy', 'dagster'} & set(sys.modules)))"
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - begin < 2  # 0.2 s on a quiet machine; the suite shares two cores


def test_an_unknown_command_is_a_usage_error_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sevices"]) == 2
    assert "Did you mean 'services'?" in capsys.readouterr().err


def test_up_elsewhere_than_in_a_project_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_PROJECT", str(tmp_path))
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path / "home"))
    assert run(["up"]) == 1
    assert f"there is no bento/service.py in {tmp_path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--port", "--dagster-port"])
def test_up_on_a_taken_port_says_so_before_anything_starts(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["up", option, str(taken.getsockname()[1])]) == 1
    assert "cannot be used: Address already in use" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given", [["start", "--arm", "a=r-1:0.1", "--arm", "a=r-2:0.1"], ["weights", "--arm", "a=0.1", "--arm", "a=0.2"]]
)
def test_an_arm_that_is_given_twice_is_not_one_of_them_silently(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["experiment", given[0], "fraud", "trial", *given[1:]]) == 2
    assert "--arm 'a' is given twice" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["services", "--frob"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_an_argument_that_is_no_text_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["promote", "churn", "churn-1", "--reason", "\udcff"]) == 2
    assert r"'\udcff' is no text in UTF-8" in capsys.readouterr().err


def test_what_stands_in_brackets_is_shown_and_not_taken_for_a_style(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"reason": "too slow [/nope] [red]"}], as_json=False, title="Of [/b]")
    say("by ada [/nope] :x:")
    told = capsys.readouterr().out
    assert "too slow [/nope] [red]" in told
    assert "Of [/b]" in told
    assert "by ada [/nope] :x:" in told


def test_an_error_is_its_message_and_no_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_PROJECT", str(tmp_path))
    assert run(["services", "--package", "nowhere"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("DeclarationError: There is no package 'nowhere'")
    assert "Traceback" not in told.err
    assert told.out == ""


def test_a_setting_that_does_not_exist_is_told_with_the_closest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDROW_HOMES", "x")
    assert run(["services"]) == 2
    assert "did you mean 'WINDROW_HOME'" in capsys.readouterr().err


def test_a_service_that_was_typed_and_is_not_declared_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "chrun"]) == 2
    assert "UnknownNameError: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "wrongly"), [("2031-01-01", True), ("2031-01-01..2031-01-05", True), ("latest", False)]
)
def test_a_day_that_is_none_of_the_partitions_is_a_usage_error_where_it_was_typed(typed: str, wrongly: bool) -> None:
    error = UnknownNameError("day", "2031-01-01", [], where="the partitions of 'electricity/predictions'")
    assert _called_wrongly(error, ["run", "electricity", f"--partitions={typed}"]) == wrongly


def test_a_declaration_that_names_what_is_not_there_is_no_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fields" / "hay").mkdir(parents=True)
    declared = (
        'from windrow import Source\npayments = Source("payments", event_time="ts", columns={"eur": "flaot64"})\n'
    )
    (tmp_path / "fields" / "hay" / "service.py").write_text(declared)
    monkeypatch.setenv("WINDROW_PROJECT", str(tmp_path))
    assert run(["services", "--package", "fields"]) == 1
    assert "did you mean 'float64'" in capsys.readouterr().err


def test_services_are_listed_as_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["services", "--json"]) == 0
    rows = {row["service"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["churn"]["request"] == ["customer_id"]
    assert rows["electricity"]["request"] == ["area"]


def test_services_say_how_each_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["services", "--json"]) == 0
    rows = {row["service"]: row for row in json.loads(capsys.readouterr().out)}
    ways = {name: [rows[name][way] for way in ("online", "batch", "stream")] for name in ("churn", "crypto")}
    assert ways["crypto"] == ["p99 <= 20 ms", "@daily", "looks back 1h"]
    assert ways["churn"][2] is None


def test_services_are_listed_as_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["services"]) == 0
    out = capsys.readouterr().out
    assert [word in out for word in ("Demand of an area 24", "churn", "looks back 1h")] == [True, True, True]


def test_every_command_of_the_table_is_a_module_and_every_module_is_in_the_table() -> None:
    modules = {p.stem for p in (ROOT / "windrow" / "commands").glob("*.py")} - {
        "__init__",
        "screen",
        "rig",
    }  # rig: an option of demo
    assert modules == set(_COMMANDS)
    assert cli.name == "cli"
