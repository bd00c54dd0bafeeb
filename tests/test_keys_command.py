"""``windrow keys`` and ``windrow up --insecure``, as somebody types them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from windrow.cli import run
from windrow.serving.keyring import Keyring
from windrow.settings import Settings
from windrow.stores.metadata import Metadata


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINDROW_HOME", str(tmp_path))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_key_is_shown_once_works_and_is_never_listed(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--scope", "outcomes", "--scope", "predict", "--rate", "2.5", "--expires", "90d")
    made = told(capsys, "create", "till 7", *given)
    assert (made["name"], made["scopes"], made["rate"], made["revoked"]) == (
        "till 7",
        ["predict", "outcomes"],
        2.5,
        None,
    )
    keyring = Keyring(Metadata(Settings.read().metadata))
    keyring.refresh()
    grant = keyring.find(made["key"].encode())
    assert grant is not None
    assert (grant.id, sorted(grant.scopes)) == (made["id"], ["outcomes", "predict"])
    keyring.close()
    (listed,) = told(capsys, "list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert made["key"].rpartition("_")[2] not in json.dumps([listed, told(capsys, "audit")])


def test_for_people_the_key_stands_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "till", "--scope", "predict"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "may: predict. It is shown this once:" in first
    assert second.startswith("wr_")
    assert run(["keys", "list"]) == 0
    assert second.rpartition("_")[2] not in capsys.readouterr().out


def test_a_revoked_key_stays_in_the_list_and_in_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    made = told(capsys, "create", "till", "--scope", "admin")
    assert told(capsys, "revoke", made["id"]) == {"id": made["id"], "revoked": True}
    assert told(capsys, "revoke", made["id"]) == {"id": made["id"], "revoked": False}
    assert told(capsys, "list")[0]["revoked"] is not None
    assert [row["action"] for row in told(capsys, "audit")] == ["key created", "key revoked"]
    assert [row["action"] for row in told(capsys, "audit", "--last", "1")] == ["key revoked"]
    assert run(["keys", "audit"]) == 0
    assert "key revoked" in capsys.readouterr().out


def test_the_audit_says_what_an_experiment_was_begun_with(capsys: pytest.CaptureFixture[str]) -> None:
    metadata = Metadata(Settings.read().metadata)
    arms = [{"name": "golden", "weight": 0.5}, {"name": "new", "release": "fraud-2-1", "weight": 0.5}]
    facts = {"arms": arms, "unit": ["card_id"], "buckets": [[0, 9999]], "started_at": 0}
    metadata.add_audit("ada", "experiment started", "fraud", facts)
    metadata.close()
    assert run(["keys", "audit"]) == 0
    shown = " ".join(re.sub(r"[│|]", " ", capsys.readouterr().out).split())
    assert "arms name golden weight 0.5, name new" in shown
    assert told(capsys, "audit")[0]["facts"] == facts


@pytest.mark.parametrize(
    ("given", "says", "code"),
    [
        (["n"], "the key would have no scope", 2),
        (["n", "--scope", "predct"], "there is no scope 'predct'.*did you mean 'predict'", 2),
        (["n", "--scope", "predict", "--rate", "0"], "the rate is 0", 2),
        (["n", "--scope", "predict", "--rate", "1e-300"], "the rate is 1e-300", 2),
        (["n", "--scope", "predict", "--rate", "nan"], "the rate is nan", 2),
        (["n", "--scope", "predict", "--rate", "inf"], "the rate is inf", 2),
        (["n", "--scope", "predict", "--expires", "2020-01-01"], "expired already", 2),
        (["n", "--scope", "predict", "--expires", "soon"], "--expires 'soon' is neither a time nor a duration", 2),
        ([" ", "--scope", "predict"], "no usable name", 2),
        (["n" * 65, "--scope", "predict"], "no usable name", 2),
        (["a\x1b[31mb", "--scope", "predict"], "no usable name", 2),
    ],
)
def test_a_key_that_cannot_be_made_is_told_and_nothing_is_made(
    given: list[str], says: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "create", *given]) == code
    assert re.search(says, capsys.readouterr().err)
    assert told(capsys, "list") == []


def test_a_key_that_is_not_there_cannot_be_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "revoke", "0123456789"]) == 1
    assert "there is no access key '0123456789'. Next: run `windrow keys list`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["create", "list", "revoke", "audit"])
def test_every_word_of_keys_has_help_with_an_example_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"windrow keys {name}" in shown.partition("Example:")[2]
    assert "--json" in shown
